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
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
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

// postForm makes an upload of a form, the way tusd makes one: admission, lease, bytes, finish. It answers once the
// upload is complete, as tus does.
func (s *Server) postForm(c echo.Context) error {
	r := c.Request()
	who, err := tenant.From(r.Context())
	switch {
	case err != nil:
		return err
	case !who.Role.CanUpload(): // before a byte is sent, for clients that ask (Expect: 100-continue)
		return hooks.ErrForbidden
	case r.ContentLength > s.Admission.Policy.MaxSize+maxFormExtra:
		return hooks.ErrTooLarge
	case s.Bucket.Unavailable():
		return object.ErrUnavailable
	}
	// What has begun is brought to an end, good or bad, also when the client has gone: nobody else would.
	ctx := object.WithLeaseSlot(context.WithoutCancel(r.Context()))
	body := &steadyBody{
		ReadCloser: object.WatchBody(ctx, r.Body), connection: http.NewResponseController(c.Response()), silence: s.NetworkTimeout,
	}
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
	c.Response().Header().Set("Location", s.base()+id.String())
	return c.JSON(http.StatusCreated, j)
}

// interruptAtShutdown cuts a body off when the server is told to stop and half the time that it has for that is over:
// a form that is cut off is sent again from its beginning, so it may take longer to end than others.
func (s *Server) interruptAtShutdown(ctx context.Context, b *steadyBody) (stop func()) {
	over := make(chan struct{})
	context.AfterFunc(ctx, func() {
		if !errors.Is(context.Cause(ctx), handler.ErrServerShutdown) {
			return // the client has gone, which reading tells
		}
		select {
		case <-time.After(s.ShutdownTimeout / 2):
			b.interrupt(handler.ErrServerShutdown)
		case <-over:
		}
	})
	return func() { close(over) }
}

// takeForm returns the complete upload that a form of at most so many bytes became (0: nobody knows how many). ctx has
// a slot for its lease.
func (s *Server) takeForm(ctx context.Context, f *form, atMost int64) (uuid.UUID, error) {
	a, err := s.Admission.Admit(ctx, hooks.Request{SizeDeferred: true, AtMost: atMost, Metadata: f.meta})
	if err != nil {
		return uuid.Nil, err
	}
	lock, err := s.Locker.NewLock(a.ID.String())
	if err != nil {
		return uuid.Nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, s.LockTimeout)
	defer cancel()
	if err := lock.Lock(waiting, func() { f.body.interrupt(handler.ErrUploadInterrupted) }); err != nil {
		return uuid.Nil, err
	}
	defer lock.Unlock() //nolint:errcheck // the locker logs it
	u, err := s.Store.GetUpload(ctx, a.ID.String())
	if err != nil {
		return uuid.Nil, err
	}
	err = s.receive(ctx, u, f)
	// With a client_id, the form can be sent again, or go on by tus. Without one nobody could ever name the upload.
	if err != nil && f.meta["client_id"] == "" {
		s.abandon(ctx, u, a.ID)
	}
	return a.ID, err
}

// receive makes the upload hold the form's file and finishes it. Of an upload that holds something already, because
// the form was sent before, the file must begin with that.
func (s *Server) receive(ctx context.Context, u handler.Upload, f *form) error {
	info, err := u.GetInfo(ctx)
	if err != nil {
		return err
	}
	if err := f.pass(u, info.Offset); err != nil {
		return err
	}
	if !info.SizeIsDeferred {
		if info.Offset < info.Size {
			return refuseFormAgain("An upload of yours with this client_id was begun by tus. Go on with it by tus, or use a new client_id for each file.")
		}
		return f.passEnd() // it is complete
	}
	n, err := u.WriteChunk(ctx, info.Offset, f)
	if err == nil {
		err = f.end()
	}
	if err != nil {
		return err
	}
	if info.Offset+n != f.read {
		return fmt.Errorf("form brought %d bytes, of which %d are kept", f.read, info.Offset+n)
	}
	if err := s.Store.AsLengthDeclarableUpload(u).DeclareLength(ctx, f.read); err != nil {
		return err
	}
	return u.FinishUpload(ctx)
}

// pass reads the n bytes that an upload holds from its form, and compares them.
func (f *form) pass(u handler.Upload, n int64) error {
	if n == 0 {
		return nil
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, n); err != nil && !f.ended {
		return f.explain(err)
	}
	sum, err := u.(object.Summed).Sum()
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
func (s *Server) abandon(ctx context.Context, u handler.Upload, id uuid.UUID) {
	ctx, cancel := context.WithTimeout(ctx, abandonTime)
	defer cancel()
	err := s.Store.AsTerminatableUpload(u).Terminate(ctx)
	if err != nil && !errors.Is(err, object.ErrComplete) { // which it became, or it has ended already
		s.Log.WarnContext(ctx, "upload of a form that failed is left to expire",
			slog.String("upload_id", id.String()), slog.Any("err", err))
	}
}
