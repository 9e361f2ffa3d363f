package api

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
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// abandonTimeout bounds the cancellation of the upload of a failed form.
const abandonTimeout = 10 * time.Second

// PostForm creates an upload from a form, writes it and finishes it. It answers once the upload is complete, as tus does.
func (a *API) PostForm(c echo.Context) error {
	r := c.Request()
	// Checked before the body is read, for clients that send Expect: 100-continue.
	switch _, err := hooks.MayUpload(r.Context()); {
	case err != nil:
		return err
	case r.ContentLength > a.Uploads.Admission.Policy.MaxSize+maxFormExtra:
		return hooks.ErrTooLarge
	case a.Bucket.Unavailable():
		return object.ErrUnavailable
	}
	// The upload is finished or abandoned also after the client has disconnected: no later request would do it.
	ctx := context.WithoutCancel(r.Context())
	body := &idleBody{ReadCloser: r.Body, connection: http.NewResponseController(c.Response()), timeout: a.NetworkTimeout}
	defer a.interruptInTime(r.Context(), body)()
	f, err := openForm(r, body)
	if err != nil {
		return err
	}
	id, err := a.takeForm(ctx, f, max(r.ContentLength, 0))
	if err != nil {
		return err
	}
	j, err := a.Reader.Upload(ctx, id)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Location", strings.TrimSuffix(a.PublicURL, "/")+resource.UploadsPath+"/"+id.String())
	return answer(c, http.StatusCreated, j)
}

// interruptInTime interrupts a body when its client's token is no longer valid, and when the server stops and half of its
// shutdown timeout has passed. Forms get longer than other uploads, because an interrupted form is sent again from its start.
func (a *API) interruptInTime(ctx context.Context, b *idleBody) (stop func()) {
	over := make(chan struct{})
	context.AfterFunc(ctx, func() {
		cause := context.Cause(ctx)
		if errors.As(cause, new(*tenant.Refusal)) {
			b.interrupt(cause)
		}
		if !errors.Is(cause, object.ErrStopping) {
			return // the client has disconnected, and reads fail
		}
		select {
		case <-time.After(a.ShutdownTimeout / 2):
			b.interrupt(object.ErrStopping)
		case <-over:
		}
	})
	return func() { close(over) }
}

// takeForm creates an upload from a form of at most so many bytes (0: unknown) and returns its id once it is complete.
func (a *API) takeForm(ctx context.Context, f *form, atMost int64) (uuid.UUID, error) {
	admitted, u, err := a.Uploads.CreateHeld(ctx, hooks.Request{SizeDeferred: true, AtMost: atMost, Metadata: f.meta})
	if err != nil {
		return uuid.Nil, err
	}
	interrupt := func() { f.body.interrupt(object.ErrTakenOver) }
	if u != nil {
		u.OnWant(interrupt)
	} else if u, err = a.Uploads.Open(ctx, admitted.ID, a.LeaseTimeout, interrupt); err != nil {
		return uuid.Nil, err
	}
	defer u.Close(ctx)
	err = receive(ctx, u, f)
	// With a client_id, the form can be sent again, or tus can resume it. Without one, no request can name the upload.
	if err != nil && f.meta["client_id"] == "" {
		a.abandon(ctx, u)
	}
	return admitted.ID, err
}

// receive writes the form's file to the upload and finishes it. If the upload has bytes already, because the form was sent
// before, the file must begin with the same bytes.
func receive(ctx context.Context, u *hooks.Upload, f *form) error {
	row := u.Row()
	if err := f.pass(u, row.Received); err != nil {
		return err
	}
	if !row.SizeDeferred {
		if row.Received < row.Size {
			return tenant.Refuse(hooks.ErrClientIDTaken, "You have an unfinished tus upload with this client_id. Resume it with tus, or use a new client_id for each file.")
		}
		return f.passEnd() // the upload is complete
	}
	n, err := u.Write(ctx, row.Received, f, nil)
	if err == nil {
		err = f.end()
	}
	if err != nil {
		return err
	}
	if row.Received+n != f.read {
		return fmt.Errorf("form has %d bytes, but %d are stored", f.read, row.Received+n)
	}
	if err := u.DeclareLength(ctx, f.read); err != nil {
		return err
	}
	return u.Finish(ctx)
}

var errOtherContent = tenant.Refuse(hooks.ErrClientIDTaken, "Another upload of yours has this client_id and different content. Use a new client_id for each file.")

// pass reads the first n bytes of the file and compares them with the n bytes that the upload has.
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
		return errOtherContent
	}
	return nil
}

// passEnd checks that the file ends where the complete upload ends.
func (f *form) passEnd() error {
	if n, _ := io.Copy(io.Discard, f); n > 0 {
		return errOtherContent
	}
	return f.end()
}

// abandon cancels an upload that cannot be resumed, to release its quota at once.
func (a *API) abandon(ctx context.Context, u *hooks.Upload) {
	ctx, cancel := context.WithTimeout(ctx, abandonTimeout)
	defer cancel()
	err := u.Cancel(ctx)
	if err != nil && !errors.Is(err, hooks.ErrPartOfAnother) { // the upload has ended already
		a.Log.WarnContext(ctx, "upload of a failed form is left to expire",
			slog.String("upload_id", u.Row().ID.String()), slog.Any("err", err))
	}
}
