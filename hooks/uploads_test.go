package hooks_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

type sent struct{ io.Reader }

func (sent) Ended() bool { return true }
func (sent) Cut() error  { return nil }

// open opens an upload, which the test closes.
func (s *site) open(t *testing.T, ctx context.Context, id uuid.UUID) *hooks.Upload {
	t.Helper()
	u, err := s.Uploads.Open(ctx, id, stack.Patience, nil)
	stack.Must(t, err)
	return u
}

// send brings all bytes of an upload, and returns how its finish ended.
func (s *site) send(t *testing.T, ctx context.Context, id uuid.UUID, content []byte) error {
	t.Helper()
	u := s.open(t, ctx, id)
	defer u.Close(ctx)
	n, err := u.Write(ctx, 0, sent{bytes.NewReader(content)}, nil)
	stack.Must(t, err)
	if n != int64(len(content)) {
		t.Fatalf("%d bytes were kept", n)
	}
	return u.Finish(ctx)
}

// An upload that has ended takes nothing more, and says why.
func TestOpenOfEndedUploads(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Serve(t)
	ctx := s.NewTenant(t, 1000)
	for name, c := range map[string]struct {
		end  func(storage.Tx, uuid.UUID) error
		want error
	}{
		"cancelled": {func(tx storage.Tx, id uuid.UUID) error {
			return tx.Move(ctx, id, storage.Transition{Move: storage.MoveCancel})
		}, hooks.ErrGone},
		"expired": {func(tx storage.Tx, id uuid.UUID) error {
			_, err := tx.Exec(ctx, `update uploads set status = 'expired' where id = $1`, id)
			return err
		}, hooks.ErrExpired},
		"past its time": {func(tx storage.Tx, id uuid.UUID) error {
			_, err := tx.Exec(ctx, `update contents set touched_at = now() - interval '1 year' where upload_id = $1`, id)
			return err
		}, hooks.ErrExpired},
		"rejected": {func(tx storage.Tx, id uuid.UUID) error {
			return tx.Move(ctx, id, storage.MoveReject.Because(storage.Failure{Reason: storage.ReasonChecksumMismatch}))
		}, hooks.ErrGone},
	} {
		a := s.Post(t, ctx, hooks.Request{Size: 10})
		s.Must(t, ctx, func(tx storage.Tx) error { return c.end(tx, a) })
		_, err := s.Uploads.Open(ctx, a, stack.Patience, nil)
		if stack.WantErr(t, err, c.want); t.Failed() {
			t.Fatal(name)
		}
		_, err = s.Uploads.View(ctx, a)
		stack.WantErr(t, err, c.want)
	}
	a := s.Post(t, ctx, hooks.Request{Size: 10})
	stack.Must(t, s.send(t, ctx, a, make([]byte, 10)))
	s.Must(t, ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, a, storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonInfected}))
	})
	u := s.open(t, ctx, a)
	defer u.Close(ctx)
	stack.Want(t, u.Row().Received, 10, "offset of an infected upload, whose client must not send it again")
}

// All bytes are there, and the finish fails: nobody opens the upload before it is finished, and the next who can finishes
// it.
func TestOpenFinishesFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Serve(t)
	ctx := s.NewTenant(t, 1000)
	id := s.Post(t, ctx, hooks.Request{Size: 10})
	s.Exec(t, `revoke insert on river_job from tramo_api`)
	if s.send(t, ctx, id, make([]byte, 10)) == nil {
		t.Fatal("the upload was finished without a job")
	}
	stack.Want(t, s.Upload(t, ctx, id).Received, 10, "bytes that need not be sent again")
	_, err := s.Uploads.Open(ctx, id, stack.Patience, nil)
	stack.WantErr(t, err, hooks.ErrNotFinished)
	s.Exec(t, `grant insert on river_job to tramo_api`)
	u := s.open(t, ctx, id)
	defer u.Close(ctx)
	stack.Want(t, u.Row().Received, 10, "offset")
	stack.Want(t, s.Upload(t, ctx, id).Status, storage.Uploaded, "status")
	s.WantCount(t, 1, jobsOf, id.String())
}

// An upload that is to end, and has all its bytes without being finished, is finished first, which gives its lease back. It is
// deleted then, as any other that has all its bytes.
func TestTerminateUnfinished(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Serve(t)
	ctx := s.NewTenant(t, 1000)
	id := s.Post(t, ctx, hooks.Request{Size: 10})
	s.Exec(t, `revoke insert on river_job from tramo_api`)
	if s.send(t, ctx, id, make([]byte, 10)) == nil {
		t.Fatal("the upload was finished without a job")
	}
	s.Exec(t, `grant insert on river_job to tramo_api`)
	stack.Must(t, s.Terminate(ctx, id))
	stack.WantErr(t, s.Terminate(ctx, id), storage.ErrNotFound)
}

// What is cancelled is gone; what has all its bytes is deleted, and can be restored; what is part of another is neither.
func TestCancelUpload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Serve(t)
	ctx := s.NewTenant(t, 1000)
	id := s.Post(t, ctx, hooks.Request{Size: 10})
	stack.Must(t, s.Terminate(ctx, id))
	stack.WantErr(t, s.Terminate(ctx, id), hooks.ErrGone)
	s.WantRoom(t, ctx, 1000)

	id = s.Post(t, ctx, hooks.Request{Size: 10})
	stack.Must(t, s.send(t, ctx, id, make([]byte, 10)))
	stack.Must(t, s.Terminate(ctx, id))
	stack.WantErr(t, s.Terminate(ctx, id), storage.ErrNotFound)

	partial := s.Post(t, ctx, hooks.Request{Size: 10, Partial: true})
	stack.Must(t, s.send(t, ctx, partial, make([]byte, 10)))
	final := s.Post(t, ctx, hooks.Request{Partials: []string{partial.String()}})
	stack.WantErr(t, s.Terminate(ctx, partial), hooks.ErrPartOfAnother)
	stack.Must(t, s.Uploads.Concatenate(ctx, final, stack.Patience))
	stack.Must(t, s.Uploads.Concatenate(ctx, final, stack.Patience))
	if row := s.Upload(t, ctx, final); row.Status != storage.Uploaded || row.Received != 10 {
		t.Errorf("the final upload is %s with %d bytes", row.Status, row.Received)
	}
}

// An upload of unknown size that turns out to have no content ends, and gives its quota back.
func TestDeclareNoContent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Serve(t)
	ctx := s.NewTenant(t, 1000)
	id := s.Post(t, ctx, hooks.Request{SizeDeferred: true})
	u := s.open(t, ctx, id)
	defer u.Close(ctx)
	stack.WantErr(t, u.DeclareLength(ctx, 0), hooks.ErrEmpty)
	stack.Want(t, s.Upload(t, ctx, id).Status, storage.Cancelled, "status")
	s.WantRoom(t, ctx, 1000)
}

// Whoever may not write an upload gets neither its lease nor a view of it.
func TestWhoMayWrite(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Serve(t)
	ctx := s.NewTenant(t, 1000)
	who, err := tenant.From(ctx)
	stack.Must(t, err)
	id := s.Post(t, ctx, hooks.Request{Size: 10})
	_, err = hooks.MayUpload(hookstest.As(ctx, who.Tenant, "ida", tenant.Inversionista))
	stack.WantErr(t, err, tenant.ErrForbidden)
	for name, c := range map[string]struct {
		ctx  context.Context
		want error
	}{
		"owner":          {ctx, nil},
		"manager":        {hookstest.As(ctx, who.Tenant, "marta", tenant.Constructora), nil},
		"another user":   {hookstest.As(ctx, who.Tenant, "pedro", tenant.Empleado), storage.ErrNotYours},
		"another tenant": {s.NewTenant(t, 1000), storage.ErrNotFound},
	} {
		_, err := s.Uploads.View(c.ctx, id)
		if stack.WantErr(t, err, c.want); t.Failed() {
			t.Fatal(name)
		}
		u, err := s.Uploads.Open(c.ctx, id, stack.Patience, nil)
		if stack.WantErr(t, err, c.want); t.Failed() {
			t.Fatal(name)
		}
		if err == nil {
			u.Close(c.ctx)
		}
	}
}
