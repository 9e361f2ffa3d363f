package hooks_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

const jobsOf = `select count(*) from river_job where kind = 'process_upload' and args->>'upload_id' = $1::text`

// Finish is told of one upload many times, at once and later: the upload is uploaded, with exactly one job
// and one entry in its timeline.
func TestFinishOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	id, key, sum := s.receive(t, ctx, hooks.Request{Size: 10})
	g := new(errgroup.Group)
	for range 8 {
		u := s.Upload(t, ctx, id)
		g.Go(func() error { return s.Uploads.Record(ctx, u, key, sum) })
	}
	stack.Must(t, stack.Ended(t, "eight finishes", g.Wait))
	stack.Must(t, s.Uploads.Record(ctx, s.Upload(t, ctx, id), key, sum))
	u := s.Upload(t, ctx, id)
	if u.Status != storage.Uploaded || *u.ObjectKey != key || !bytes.Equal(u.SHA256, sum) {
		t.Errorf("got %+v", u)
	}
	s.WantCount(t, 1, jobsOf, id.String())
	s.WantCount(t, 1, `select count(*) from timeline where upload_id = $1 and event = 'uploaded'`, id)
	stack.WantErr(t, s.Uploads.CancelRows(ctx, id), storage.ErrWrongStatus)
}

// If the job cannot be enqueued, nothing of the finish is recorded.
func TestFinishIsOneTransaction(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	id, key, sum := s.receive(t, ctx, hooks.Request{Size: 10})
	s.Exec(t, `revoke insert on river_job from tramo_api`)
	if err := s.Uploads.Record(ctx, s.Upload(t, ctx, id), key, sum); err == nil {
		t.Error("an upload without a job was called complete")
	}
	if u := s.Upload(t, ctx, id); u.Status != storage.Pending || u.ObjectKey != nil {
		t.Errorf("got %+v", u)
	}
	s.Exec(t, `grant insert on river_job to tramo_api`)
	stack.Must(t, s.Uploads.Record(ctx, s.Upload(t, ctx, id), key, sum))
	s.WantCount(t, 1, jobsOf, id.String())
}

// A cancelled upload is never recorded as uploaded.
func TestFinishOfACancelledUpload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	id, key, sum := s.receive(t, ctx, hooks.Request{Size: 10})
	stack.Must(t, s.Uploads.CancelRows(ctx, id))
	stack.WantErr(t, s.Uploads.Record(ctx, s.Upload(t, ctx, id), key, sum), storage.ErrWrongStatus)
	s.WantCount(t, 0, jobsOf, id.String())
}

// Content has another checksum than its client declared: the upload fails, the object is deleted, the quota is refunded once,
// the client id is free, and a repetition changes nothing.
func TestChecksumMismatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	announced := sha256.Sum256([]byte("0123456789"))
	meta := map[string]string{"sha256": hex.EncodeToString(announced[:]), "client_id": "IMG_1"}
	id, key, sum := s.receive(t, ctx, hooks.Request{Size: 10, Metadata: meta})
	for range 2 {
		err := s.Uploads.Record(ctx, s.Upload(t, ctx, id), key, sum)
		var r *tenant.Refusal
		if !errors.Is(err, hooks.ErrChecksumMismatch) || !errors.As(err, &r) {
			t.Errorf("got %v", err)
		}
		u := s.Upload(t, ctx, id)
		if u.Status != storage.Failed || *u.FailureReason != storage.ReasonChecksumMismatch {
			t.Errorf("got %+v", u)
		}
		s.WantRoom(t, ctx, 1000)
		_, err = s.Bucket.Size(ctx, key)
		stack.WantErr(t, err, object.ErrNoObject)
	}
	again, err := s.Admission.Admit(ctx, hooks.Request{Size: 10, Metadata: meta})
	stack.Must(t, err)
	if again.Existing || again.ID == id {
		t.Errorf("the client id still names the upload that failed")
	}
	key, sum = s.Store(t, ctx, again.ID, []byte("0123456789"))
	stack.Must(t, s.Uploads.Record(ctx, s.Upload(t, ctx, again.ID), key, sum))
}

func TestCancel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	id := s.admit(t, ctx, hooks.Request{Size: 10})
	stack.WantErr(t, s.Uploads.CancelRows(hookstest.As(ctx, uuid.New(), "eva", tenant.Admin), id), storage.ErrWrongStatus)
	stack.WantErr(t, s.Uploads.CancelRows(t.Context(), id), tenant.ErrNoIdentity)
	stack.Must(t, s.Uploads.CancelRows(ctx, id))
	stack.WantErr(t, s.Uploads.CancelRows(ctx, id), storage.ErrWrongStatus)
	s.WantRoom(t, ctx, 1000)
}
