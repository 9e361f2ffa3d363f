package hooks_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

const jobsOf = `select count(*) from river_job where kind = 'process_upload' and args->>'upload_id' = $1::text`

// store puts an object where an upload's would be.
func (s *site) store(t *testing.T, ctx context.Context, id uuid.UUID, content []byte) (key string, sum []byte) {
	t.Helper()
	return s.Store(t, ctx, id, content)
}

// Finish is told of one upload many times, at once and later: the upload is uploaded, with exactly one job
// and one entry in its timeline.
func TestFinishOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	a, err := s.admission.Admit(ctx, hooks.Request{Size: 10})
	must(t, err)
	key, sum := s.store(t, ctx, a.ID, make([]byte, 10))
	g := new(errgroup.Group)
	for range 8 {
		g.Go(func() error { return s.uploads.Record(ctx, a.ID, key, sum) })
	}
	must(t, g.Wait())
	must(t, s.uploads.Record(ctx, a.ID, key, sum))
	u := s.upload(t, ctx, a.ID)
	if u.Status != storage.Uploaded || *u.ObjectKey != key || !bytes.Equal(u.SHA256, sum) {
		t.Errorf("got %+v", u)
	}
	if n := s.count(t, jobsOf, a.ID.String()); n != 1 {
		t.Errorf("there are %d jobs", n)
	}
	if n := s.count(t, `select count(*) from timeline where upload_id = $1 and event = 'uploaded'`, a.ID); n != 1 {
		t.Errorf("there are %d entries", n)
	}
	wantErr(t, s.uploads.CancelRows(ctx, a.ID), storage.ErrWrongStatus)
}

// The job cannot be enqueued: nothing of the end is recorded.
func TestFinishIsOneTransaction(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	a, err := s.admission.Admit(ctx, hooks.Request{Size: 10})
	must(t, err)
	key, sum := s.store(t, ctx, a.ID, make([]byte, 10))
	s.exec(t, `revoke insert on river_job from tramo_api`)
	if err := s.uploads.Record(ctx, a.ID, key, sum); err == nil {
		t.Error("an upload without a job was called complete")
	}
	if u := s.upload(t, ctx, a.ID); u.Status != storage.Pending || u.ObjectKey != nil {
		t.Errorf("got %+v", u)
	}
	s.exec(t, `grant insert on river_job to tramo_api`)
	must(t, s.uploads.Record(ctx, a.ID, key, sum))
	if n := s.count(t, jobsOf, a.ID.String()); n != 1 {
		t.Errorf("there are %d jobs", n)
	}
}

// An upload that was taken back is never called complete.
func TestFinishOfACancelledUpload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	a, err := s.admission.Admit(ctx, hooks.Request{Size: 10})
	must(t, err)
	key, sum := s.store(t, ctx, a.ID, make([]byte, 10))
	must(t, s.uploads.CancelRows(ctx, a.ID))
	wantErr(t, s.uploads.Record(ctx, a.ID, key, sum), storage.ErrWrongStatus)
	if n := s.count(t, jobsOf, a.ID.String()); n != 0 {
		t.Errorf("there are %d jobs", n)
	}
}

// Content is not what its client announced: the upload fails, the object goes, the quota comes back once,
// the client id is free, and saying it again changes nothing.
func TestChecksumMismatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	announced := sha256.Sum256([]byte("0123456789"))
	meta := map[string]string{"sha256": hex.EncodeToString(announced[:]), "client_id": "IMG_1"}
	a, err := s.admission.Admit(ctx, hooks.Request{Size: 10, Metadata: meta})
	must(t, err)
	key, sum := s.store(t, ctx, a.ID, make([]byte, 10))
	for range 2 {
		err := s.uploads.Record(ctx, a.ID, key, sum)
		var r *tenant.Refusal
		if !errors.Is(err, hooks.ErrChecksumMismatch) || !errors.As(err, &r) {
			t.Errorf("got %v", err)
		}
		u := s.upload(t, ctx, a.ID)
		if u.Status != storage.Failed || *u.FailureReason != storage.ReasonChecksumMismatch {
			t.Errorf("got %+v", u)
		}
		if room := s.room(t, ctx); room != 1000 {
			t.Errorf("%d bytes are left", room)
		}
		_, err = s.bucket.Size(ctx, key)
		wantErr(t, err, object.ErrNoObject)
	}
	again, err := s.admission.Admit(ctx, hooks.Request{Size: 10, Metadata: meta})
	must(t, err)
	if again.Existing || again.ID == a.ID {
		t.Errorf("the client id still names the upload that failed")
	}
	key, sum = s.store(t, ctx, again.ID, []byte("0123456789"))
	must(t, s.uploads.Record(ctx, again.ID, key, sum))
}

func TestCancel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	a, err := s.admission.Admit(ctx, hooks.Request{Size: 10})
	must(t, err)
	wantErr(t, s.uploads.CancelRows(as(ctx, uuid.New(), "eva", tenant.Admin), a.ID), storage.ErrWrongStatus)
	wantErr(t, s.uploads.CancelRows(t.Context(), a.ID), tenant.ErrNoIdentity)
	must(t, s.uploads.CancelRows(ctx, a.ID))
	wantErr(t, s.uploads.CancelRows(ctx, a.ID), storage.ErrWrongStatus)
	if room := s.room(t, ctx); room != 1000 {
		t.Errorf("%d bytes are left", room)
	}
}
