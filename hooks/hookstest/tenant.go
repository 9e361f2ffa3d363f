package hookstest

import (
	"context"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// A Tenant of a site makes uploads in every state.
type Tenant struct {
	*Site
	Ctx context.Context //nolint:containedctx // acts for ana, an employee of the tenant, for as long as the test runs
	ID  uuid.UUID
}

// Quota is what a tenant has, in bytes.
const Quota = 100_000

// NewTenant makes an installation with one tenant.
func NewTenant(t *testing.T) *Tenant {
	t.Helper()
	return New(t).AddTenant(t)
}

// AddTenant makes one more.
func (s *Site) AddTenant(t *testing.T) *Tenant {
	t.Helper()
	ctx := s.NewTenant(t, Quota)
	return &Tenant{Site: s, Ctx: ctx, ID: storagetest.TenantOf(t, ctx)}
}

// As acts in the tenant as somebody else than ana.
func (n *Tenant) As(ctx context.Context, user string, role tenant.Role) context.Context {
	return As(ctx, n.ID, user, role)
}

// Keys are those of an upload in the default project.
func (n *Tenant) Keys(id uuid.UUID) object.Keys {
	return object.Keys{Tenant: n.ID, Project: object.DefaultProject, Upload: id}
}

// Content is what uploads have.
var Content = []byte("0123456789")

// Admit makes an upload of ten bytes of which none has arrived.
func (n *Tenant) Admit(t *testing.T) uuid.UUID {
	t.Helper()
	a, err := n.Admission.Admit(n.Ctx, hooks.Request{Size: int64(len(Content))})
	stack.Must(t, err)
	return a.ID
}

// Begin makes an upload of which a part is in S3.
func (n *Tenant) Begin(t *testing.T) (id uuid.UUID, multipart string) {
	t.Helper()
	id = n.Admit(t)
	key := n.Keys(id).Original(1)
	multipart, etag := n.Multipart(t, key, Content[:5])
	n.Exec(t, `insert into parts (tenant_id, upload_id, number, size, etag) values ($1, $2, 1, 5, $3)`, n.ID, id, etag)
	n.Exec(t, `update contents set received = 5, object_key = $2, multipart_id = $3, next_part = 2 where upload_id = $1`, id, key, multipart)
	n.Exec(t, `update uploads set status = 'uploading' where id = $1`, id)
	return id, multipart
}

// Finish makes an upload that has all its bytes, and its job.
func (n *Tenant) Finish(t *testing.T) (id uuid.UUID, key string) {
	t.Helper()
	id = n.Admit(t)
	key, sum := n.Store(t, n.Ctx, id, Content)
	n.stored(t, id, key)
	stack.Must(t, n.Uploads.Record(n.Ctx, n.Upload(t, n.Ctx, id), key, sum))
	return id, key
}

func (n *Tenant) stored(t *testing.T, id uuid.UUID, key string) {
	t.Helper()
	n.Exec(t, `update contents set received = 10, stored = true, object_key = $2 where upload_id = $1`, id, key)
}

// Complete makes an upload that has gone all the way, with a thumbnail.
func (n *Tenant) Complete(t *testing.T) (id uuid.UUID, original, thumbnail string) {
	t.Helper()
	id, original = n.Finish(t)
	thumbnail = n.Keys(id).Thumbnail(160)
	n.Put(t, thumbnail)
	n.Exec(t, `update river_job set state = 'completed', finalized_at = now() where args->>'upload_id' = $1`, id.String())
	n.MustWork(t, n.Ctx, func(tx storage.Tx) error {
		if err := tx.MarkProcessing(n.Ctx, id, 1); err != nil {
			return err
		}
		return tx.Complete(n.Ctx, id, storage.Results{Thumbnails: []storage.Thumbnail{
			{Size: 160, WidthPx: 1, HeightPx: 1, Bytes: 1, ContentType: "image/webp", ObjectKey: thumbnail},
		}})
	})
	return id, original, thumbnail
}

// Partial makes a partial upload that has all its bytes and that no final upload has taken.
func (n *Tenant) Partial(t *testing.T) (id uuid.UUID, key string) {
	t.Helper()
	a, err := n.Admission.Admit(n.Ctx, hooks.Request{Size: int64(len(Content)), Partial: true})
	stack.Must(t, err)
	key, sum := n.Store(t, n.Ctx, a.ID, Content)
	n.Exec(t, `update uploads set status = 'uploading' where id = $1`, a.ID)
	stack.Must(t, n.Uploads.Record(n.Ctx, n.Upload(t, n.Ctx, a.ID), key, sum))
	n.stored(t, a.ID, key)
	return a.ID, key
}

// Quarantine makes a completed upload one that a rescan has found to be infected, with its object in quarantine.
func (n *Tenant) Quarantine(t *testing.T) (id uuid.UUID, key string) {
	t.Helper()
	id, original, thumbnail := n.Complete(t)
	n.MustWork(t, n.Ctx, func(tx storage.Tx) error {
		var fence int64
		err := tx.QueryRow(n.Ctx, `
			with me as (insert into lease_holders values (gen_random_uuid(), 'r', now() + interval '1 hour') returning id)
			insert into upload_leases select $1, $2, id, nextval('fences') from me returning fence`, n.ID, id).Scan(&fence)
		if err != nil {
			return err
		}
		key = n.Keys(id).Quarantine(fence)
		scan := quarantine.Scan{Verdict: storage.ScanInfected, Signature: "EICAR"}
		_, err = quarantine.Place(n.Ctx, tx, id, quarantine.Placement{
			From: storage.Completed, Failure: scan.Failure(), Scan: scan, Fence: fence, Key: original, New: key,
		})
		return err
	})
	n.Exec(t, `delete from upload_leases where upload_id = $1`, id)
	stack.Must(t, n.Bucket.Copy(n.Ctx, original, key, int64(len(Content))))
	stack.Must(t, n.Bucket.Delete(n.Ctx, original))
	stack.Must(t, n.Bucket.Delete(n.Ctx, thumbnail))
	return id, key
}

// Sound makes uploads of every state with which all is well: nothing may happen to them.
func (n *Tenant) Sound(t *testing.T) {
	t.Helper()
	n.Admit(t)
	n.Begin(t)
	n.Finish(t)
	n.Complete(t)
	cancelled := n.Admit(t)
	n.Must(t, n.Ctx, func(tx storage.Tx) error {
		return tx.Move(n.Ctx, cancelled, storage.Transition{Move: storage.MoveCancel})
	})
	id, _ := n.Finish(t) // whose thumbnails are being made
	stack.Must(t, n.Worker.InTenant(n.Ctx, func(tx storage.Tx) error { return tx.MarkProcessing(n.Ctx, id, 1) }))
	n.Put(t, n.Keys(id).Thumbnail(480))
	n.GivenUp(t) // that is tried once more
	n.Exec(t, `insert into river_job (kind, queue, state, max_attempts, args) select kind, queue, 'available', 3, args from river_job
		where state = 'discarded'`)
	id, key := n.Finish(t) // whose object is kept all the same
	n.MustWork(t, n.Ctx, func(tx storage.Tx) error {
		return tx.Move(n.Ctx, id, storage.MoveFail.Because(storage.Failure{Reason: storage.ReasonInfected, Detail: "EICAR"}))
	})
	stack.Must(t, n.Bucket.Tag(n.Ctx, key, int64(len(Content)), "scan", storage.ReasonInfected))
}

// GivenUp makes an upload whose worker was killed on the last attempt, so that River gave its job up.
func (n *Tenant) GivenUp(t *testing.T) (id uuid.UUID, key string) {
	t.Helper()
	id, key = n.Finish(t)
	stack.Must(t, n.Worker.InTenant(n.Ctx, func(tx storage.Tx) error { return tx.MarkProcessing(n.Ctx, id, 1) }))
	n.Exec(t, `update river_job set state = 'discarded', attempt = 3, finalized_at = now() where args->>'upload_id' = $1`, id.String())
	return id, key
}

// Jobs counts the processing jobs of an upload.
func (n *Tenant) Jobs(t *testing.T, id uuid.UUID) int {
	t.Helper()
	return n.Count(t, `select count(*) from river_job where kind = 'process_upload' and args->>'upload_id' = $1::text`, id.String())
}

// WantJobs reports an upload with more or fewer processing jobs.
func (n *Tenant) WantJobs(t *testing.T, id uuid.UUID, want int) {
	t.Helper()
	stack.Want(t, n.Jobs(t, id), want, "number of jobs")
}
