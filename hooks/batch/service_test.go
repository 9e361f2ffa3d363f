package batch_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

func entry(clientID string) batch.Entry {
	return batch.Entry{ClientID: clientID, Filename: clientID + ".jpg", Size: 10, Type: "image/jpeg"}
}

// A token that covers one project makes batches of that project and sees no others. Of its own uploads in other projects it
// learns only that their client ids are taken.
func TestBatchesOfOtherProjects(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.batches
	ctx := s.NewTenant(t, 1000)
	who, err := tenant.From(ctx)
	stack.Must(t, err)
	who.Projects = []string{"puente"}
	narrow := tenant.With(ctx, who)

	f, err := b.Create(ctx, batch.Manifest{Project: "torre", Name: "x", Uploads: []batch.Entry{entry("a")}}, batch.IdempotencyKey{})
	stack.Must(t, err)
	_, err = b.Create(narrow, batch.Manifest{Project: "torre", Name: "x"}, batch.IdempotencyKey{})
	stack.WantErr(t, err, hooks.ErrNotYourProject)
	_, err = b.Add(narrow, f.Batch.ID, []batch.Entry{entry("b")}, batch.IdempotencyKey{})
	stack.WantErr(t, err, storage.ErrNotFound)
	_, err = b.Create(narrow, batch.Manifest{Project: "puente", Name: "x", Uploads: []batch.Entry{entry("b"), entry("a")}}, batch.IdempotencyKey{})
	var wrong *batch.ManifestError
	if !errors.As(err, &wrong) || len(wrong.Entries) != 1 || wrong.Entries[0].Index != 1 || !errors.Is(wrong.Entries[0].Err, hooks.ErrClientIDTaken) {
		t.Errorf("got %v", err)
	}
	_, err = s.Admission.Admit(narrow, hooks.Request{Size: 10, Metadata: map[string]string{"project": "puente", "batch": f.Batch.ID.String()}})
	stack.WantErr(t, err, hooks.ErrNoBatch)
	s.WantCount(t, 1, `select count(*) from uploads`)
	who.Role = tenant.Constructora
	_, err = b.Cancel(tenant.With(ctx, who), f.Batch.ID)
	stack.WantErr(t, err, storage.ErrNotFound)
	_, err = b.Retry(tenant.With(ctx, who), f.Batch.ID)
	stack.WantErr(t, err, storage.ErrNotFound)
	stack.WantErr(t, b.Rename(tenant.With(ctx, who), f.Batch.ID, "y"), storage.ErrNotFound)
	s.WantRoom(t, ctx, 990)
}

// The refusal says that the tenant named by a token does not exist.
func TestBatchOfNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := hookstest.As(t.Context(), uuid.Must(uuid.NewV7()), "ana", tenant.Empleado)
	_, err := s.batches.Create(ctx, batch.Manifest{Name: "x"}, batch.IdempotencyKey{})
	stack.WantErr(t, err, hooks.ErrNoTenant)
	_, err = s.Admission.Admit(ctx, hooks.Request{Size: 10, Metadata: map[string]string{"batch": "x"}})
	stack.WantErr(t, err, hooks.ErrNoTenant)
	_, err = s.batches.Create(context.Background(), batch.Manifest{Name: "x"}, batch.IdempotencyKey{})
	stack.WantErr(t, err, tenant.ErrNoIdentity)
}

// A partial upload is in no batch; the final one that it becomes a part of is.
func TestBatchOfAConcatenation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	meta := map[string]string{"batch": "lunes"}
	part, err := s.Admission.Admit(ctx, hooks.Request{Size: 10, Partial: true, Metadata: meta})
	stack.Must(t, err)
	s.WantCount(t, 0, `select count(*) from batches`)
	stack.Must(t, s.Uploads.Record(ctx, s.Upload(t, ctx, part.ID), "key", make([]byte, 32)))
	s.Exec(t, `update uploads set status = 'uploading' where kind = 'partial'`)
	final, err := s.Admission.Admit(ctx, hooks.Request{Partials: []string{part.ID.String()}, Metadata: meta})
	stack.Must(t, err)
	if u := s.Upload(t, ctx, final.ID); u.BatchID == nil {
		t.Error("the final upload is in no batch")
	}
	s.WantCount(t, 1, `select count(*) from uploads where batch_id is not null`)
}
