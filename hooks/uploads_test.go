package hooks_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// leased gives the site's uploads a store and leases, so that they can be opened.
func (s *site) leased(t *testing.T) {
	t.Helper()
	u := s.uploads
	var err error
	u.Store, err = object.NewStore(s.API, s.bucket, object.DefaultConfig(), object.NewMetrics(prometheus.NewRegistry(), s.bucket), u.Log)
	must(t, err)
	t.Cleanup(func() { must(t, u.Store.Close()) })
	u.Admission, u.Expiry = s.admission, hooks.DefaultExpiry()
	u.Leases = lease.NewManager(s.API, "test", time.Minute, u.Log)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- u.Leases.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	waiting, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	must(t, u.Leases.Registered(waiting))
}

const patience = 20 * time.Second

type sent struct{ io.Reader }

func (sent) Ended() bool { return true }
func (sent) Cut() error  { return nil }

// open opens an upload, which the test closes.
func (s *site) open(t *testing.T, ctx context.Context, id uuid.UUID) *hooks.Upload {
	t.Helper()
	u, err := s.uploads.Open(ctx, id, patience, nil)
	must(t, err)
	return u
}

// send brings all bytes of an upload, and finishes it if it is said to.
func (s *site) send(t *testing.T, ctx context.Context, id uuid.UUID, content []byte, finish bool) {
	t.Helper()
	u := s.open(t, ctx, id)
	defer u.Close(ctx)
	n, err := u.Write(ctx, 0, sent{bytes.NewReader(content)}, nil)
	must(t, err)
	if n != int64(len(content)) {
		t.Fatalf("%d bytes were kept", n)
	}
	if finish {
		must(t, u.Finish(ctx))
	}
}

// terminate is what a DELETE comes to.
func (s *site) terminate(ctx context.Context, id uuid.UUID) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l, err := s.uploads.Leases.Acquire(waiting, id, nil)
	if err != nil {
		return err
	}
	defer s.uploads.Release(ctx, l)
	u, err := s.uploads.OpenToEnd(ctx, id, l)
	if err != nil {
		return err
	}
	return u.Cancel(ctx)
}

// An upload that has ended takes nothing more, and says why.
func TestOpenOfEndedUploads(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.leased(t)
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
		a, err := s.uploads.Create(ctx, hooks.Request{Size: 10})
		must(t, err)
		must(t, s.API.InTenant(ctx, func(tx storage.Tx) error { return c.end(tx, a.ID) }))
		_, err = s.uploads.Open(ctx, a.ID, patience, nil)
		if wantErr(t, err, c.want); t.Failed() {
			t.Fatal(name)
		}
		_, err = s.uploads.View(ctx, a.ID)
		wantErr(t, err, c.want)
	}
	a, err := s.uploads.Create(ctx, hooks.Request{Size: 10})
	must(t, err)
	s.send(t, ctx, a.ID, make([]byte, 10), true)
	must(t, s.API.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, a.ID, storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonInfected}))
	}))
	u := s.open(t, ctx, a.ID)
	defer u.Close(ctx)
	if n := u.Row().Received; n != 10 {
		t.Errorf("an infected upload is at %d: its client must not send it again", n)
	}
}

// All bytes are there, and the finish fails: nobody opens the upload before it is finished, and the next who can finishes
// it.
func TestOpenFinishesFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.leased(t)
	ctx := s.NewTenant(t, 1000)
	a, err := s.uploads.Create(ctx, hooks.Request{Size: 10})
	must(t, err)
	s.send(t, ctx, a.ID, make([]byte, 10), false)
	s.exec(t, `revoke insert on river_job from tramo_api`)
	_, err = s.uploads.Open(ctx, a.ID, patience, nil)
	wantErr(t, err, hooks.ErrNotFinished)
	s.exec(t, `grant insert on river_job to tramo_api`)
	u := s.open(t, ctx, a.ID)
	defer u.Close(ctx)
	if n := u.Row().Received; n != 10 {
		t.Errorf("the offset is %d", n)
	}
	if row := s.upload(t, ctx, a.ID); row.Status != storage.Uploaded {
		t.Errorf("the upload is %s", row.Status)
	}
	if n := s.count(t, jobsOf, a.ID.String()); n != 1 {
		t.Errorf("there are %d jobs", n)
	}
}

// What is cancelled is gone; what has all its bytes is deleted, and can be restored; what is part of another is neither.
func TestCancelUpload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.leased(t)
	ctx := s.NewTenant(t, 1000)
	a, err := s.uploads.Create(ctx, hooks.Request{Size: 10})
	must(t, err)
	must(t, s.terminate(ctx, a.ID))
	wantErr(t, s.terminate(ctx, a.ID), hooks.ErrGone)
	if room := s.room(t, ctx); room != 1000 {
		t.Errorf("%d bytes are left", room)
	}

	a, err = s.uploads.Create(ctx, hooks.Request{Size: 10})
	must(t, err)
	s.send(t, ctx, a.ID, make([]byte, 10), true)
	must(t, s.terminate(ctx, a.ID))
	wantErr(t, s.terminate(ctx, a.ID), storage.ErrNotFound)

	partial, err := s.uploads.Create(ctx, hooks.Request{Size: 10, Partial: true})
	must(t, err)
	s.send(t, ctx, partial.ID, make([]byte, 10), true)
	final, err := s.uploads.Create(ctx, hooks.Request{Partials: []string{partial.ID.String()}})
	must(t, err)
	wantErr(t, s.terminate(ctx, partial.ID), hooks.ErrPartOfAnother)
	must(t, s.uploads.Concatenate(ctx, final.ID, patience))
	must(t, s.uploads.Concatenate(ctx, final.ID, patience))
	if row := s.upload(t, ctx, final.ID); row.Status != storage.Uploaded || row.Received != 10 {
		t.Errorf("the final upload is %s with %d bytes", row.Status, row.Received)
	}
}

// An upload of unknown size that turns out to have no content ends, and gives its quota back.
func TestDeclareNoContent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.leased(t)
	ctx := s.NewTenant(t, 1000)
	a, err := s.uploads.Create(ctx, hooks.Request{SizeDeferred: true})
	must(t, err)
	u := s.open(t, ctx, a.ID)
	defer u.Close(ctx)
	wantErr(t, u.DeclareLength(ctx, 0), hooks.ErrEmpty)
	if row := s.upload(t, ctx, a.ID); row.Status != storage.Cancelled {
		t.Errorf("the upload is %s", row.Status)
	}
	if room := s.room(t, ctx); room != 1000 {
		t.Errorf("%d bytes are left", room)
	}
}

// Whoever may not write an upload gets neither its lease nor a view of it.
func TestWhoMayWrite(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.leased(t)
	ctx := s.NewTenant(t, 1000)
	who, err := tenant.From(ctx)
	must(t, err)
	a, err := s.uploads.Create(ctx, hooks.Request{Size: 10})
	must(t, err)
	wantErr(t, hooks.MayUpload(as(ctx, who.Tenant, "ida", tenant.Inversionista)), tenant.ErrForbidden)
	for name, c := range map[string]struct {
		ctx  context.Context
		want error
	}{
		"owner":          {ctx, nil},
		"manager":        {as(ctx, who.Tenant, "marta", tenant.Constructora), nil},
		"another user":   {as(ctx, who.Tenant, "pedro", tenant.Empleado), storage.ErrNotYours},
		"another tenant": {s.NewTenant(t, 1000), storage.ErrNotFound},
	} {
		_, err := s.uploads.View(c.ctx, a.ID)
		if wantErr(t, err, c.want); t.Failed() {
			t.Fatal(name)
		}
		u, err := s.uploads.Open(c.ctx, a.ID, patience, nil)
		if wantErr(t, err, c.want); t.Failed() {
			t.Fatal(name)
		}
		if err == nil {
			u.Close(c.ctx)
		}
	}
}
