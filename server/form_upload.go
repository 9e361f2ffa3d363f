package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage/object"
)

// abandonTime bounds how long taking back what a form left may take.
const abandonTime = 10 * time.Second

// formOr serves those that send a form, and leaves all others to tus.
func (s *Server) formOr(tus echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if isForm(c.Request()) {
			return s.postForm(c)
		}
		return tus(c)
	}
}

// postForm makes an upload of a form: it is created, opened, written and finished. The answer comes once the upload is
// complete, as with tus.
func (s *Server) postForm(c echo.Context) error {
	r := c.Request()
	// Before a byte is sent, for clients that ask (Expect: 100-continue).
	switch err := hooks.MayUpload(r.Context()); {
	case err != nil:
		return err
	case r.ContentLength > s.Uploads.Admission.Policy.MaxSize+maxFormExtra:
		return hooks.ErrTooLarge
	case s.Bucket.Unavailable():
		return object.ErrUnavailable
	}
	// What has begun is brought to an end, good or bad, also when the client has gone: nobody else would.
	ctx := context.WithoutCancel(r.Context())
	body := &steadyBody{ReadCloser: r.Body, connection: http.NewResponseController(c.Response()), silence: s.NetworkTimeout}
	defer s.interruptAtShutdown(r.Context(), body)()
	f, err := openForm(r, body)
	if err != nil {
		return err
	}
	id, err := s.takeForm(ctx, f, max(r.ContentLength, 0))
	if err != nil {
		return err
	}
	j, err := s.reader.Upload(ctx, id)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Location", strings.TrimSuffix(s.PublicURL, "/")+UploadsPath+"/"+id.String())
	return c.JSON(http.StatusCreated, j)
}

// interruptAtShutdown cuts a body off when the server is told to stop and half the time that it has for that is over:
// a form that is cut off is sent again from its beginning, so it may take longer to end than others.
func (s *Server) interruptAtShutdown(ctx context.Context, b *steadyBody) (stop func()) {
	over := make(chan struct{})
	context.AfterFunc(ctx, func() {
		if !errors.Is(context.Cause(ctx), object.ErrStopping) {
			return // the client has gone, which reading tells
		}
		select {
		case <-time.After(s.ShutdownTimeout / 2):
			b.interrupt(object.ErrStopping)
		case <-over:
		}
	})
	return func() { close(over) }
}

// takeForm returns the complete upload that a form of at most so many bytes became (0: nobody knows how many).
func (s *Server) takeForm(ctx context.Context, f *form, atMost int64) (uuid.UUID, error) {
	a, err := s.Uploads.Create(ctx, hooks.Request{SizeDeferred: true, AtMost: atMost, Metadata: f.meta})
	if err != nil {
		return uuid.Nil, err
	}
	u, err := s.Uploads.Open(ctx, a.ID, s.LockTimeout, func() { f.body.interrupt(object.ErrTakenOver) })
	if err != nil {
		return uuid.Nil, err
	}
	defer u.Close(ctx)
	err = receive(ctx, u, f)
	// With a client_id, the form can be sent again, or go on by tus. Without one nobody could ever name the upload.
	if err != nil && f.meta["client_id"] == "" {
		s.abandon(ctx, u)
	}
	return a.ID, err
}

// receive makes the upload hold the form's file and finishes it. Of an upload that holds something already, because
// the form was sent before, the file must begin with that.
func receive(ctx context.Context, u *hooks.Upload, f *form) error {
	row := u.Row()
	if err := f.pass(u, row.Received); err != nil {
		return err
	}
	if !row.SizeDeferred {
		if row.Received < row.Size {
			return refuseFormAgain("An upload of yours with this client_id was begun by tus. Go on with it by tus, or use a new client_id for each file.")
		}
		return f.passEnd() // it is complete
	}
	n, err := u.Write(ctx, row.Received, f, nil)
	if err == nil {
		err = f.end()
	}
	if err != nil {
		return err
	}
	if row.Received+n != f.read {
		return fmt.Errorf("form brought %d bytes, of which %d are kept", f.read, row.Received+n)
	}
	if err := u.DeclareLength(ctx, f.read); err != nil {
		return err
	}
	return u.Finish(ctx)
}

// pass reads the n bytes that an upload holds from its form, and compares them.
func (f *form) pass(u *hooks.Upload, n int64) error {
	if n == 0 {
		return nil
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, n); err != nil && !f.ended {
		return f.explain(err)
	}
	sum, err := u.Sum()
	if err != nil {
		return err
	}
	if f.read < n || !bytes.Equal(h.Sum(nil), sum) {
		return refuseFormAgain("Another upload of yours has this client_id and other content. Use a new client_id for each file.")
	}
	return nil
}

// passEnd makes sure that a form that was complete before ends where it ended then.
func (f *form) passEnd() error {
	if n, _ := io.Copy(io.Discard, f); n > 0 {
		return refuseFormAgain("Another upload of yours has this client_id and other content. Use a new client_id for each file.")
	}
	return f.end()
}

func refuseFormAgain(detail string) error {
	return &hooks.Refusal{Cause: hooks.ErrClientIDTaken, Detail: detail}
}

// abandon gives back at once what an upload that cannot go on takes of its tenant's quota.
func (s *Server) abandon(ctx context.Context, u *hooks.Upload) {
	ctx, cancel := context.WithTimeout(ctx, abandonTime)
	defer cancel()
	err := u.Cancel(ctx)
	if err != nil && !errors.Is(err, hooks.ErrPartOfAnother) { // it has ended already
		s.Log.WarnContext(ctx, "upload of a form that failed is left to expire",
			slog.String("upload_id", u.Row().ID.String()), slog.Any("err", err))
	}
}
