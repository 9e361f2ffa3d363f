package reconcile

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
)

// What is looked for in the rows: conditions on an upload u, its content c, and the least age $1.
const (
	// It has all its bytes, of its own or of its partial uploads, and was never finished.
	finishCutOff = `u.status in ('pending', 'uploading') and u.uploaded_at is null
		and (c.received = u.size or u.kind = 'final') and c.touched_at <= now() - $1::interval`
	// It has received nothing for so long that its client will not come back. A partial upload that is complete waits for
	// that as well, until a final one takes it.
	idle = `u.status in ('pending', 'uploading') and u.final_id is null
		and (u.uploaded_at is not null or c.received is distinct from u.size) and c.touched_at <= now() - $1::interval`
	// It waits for a job that does not exist.
	withoutJob = `u.status in ('uploaded', 'processing') and u.updated_at <= now() - $1::interval
		and ` + queue.HasNoJob
	// It waits for a job that was given up: its worker was killed on the last attempt, before it wrote the dead letter.
	jobGivenUp = `u.status in ('uploaded', 'processing') and u.updated_at <= now() - $1::interval and ` + queue.GivenUp
	// It has a tail that is orphaned.
	withTail = `c.touched_at <= now() - $1::interval
		and (u.tenant_id, u.id) in (
			select u.tenant_id, u.id from tails t join uploads u on u.tenant_id = t.tenant_id and u.id = t.upload_id
			join contents c on c.tenant_id = t.tenant_id and c.upload_id = t.upload_id where ` + orphanedTail + `)`

	// A part holds the bytes of a tail t, or the upload has ended: a request that was running when its batch was cancelled
	// saves what it has received.
	orphanedTail = `(u.status not in ('pending', 'uploading') or t.start < c.received - c.tail_size or t.start >= c.received)`
)

// findUploads yields the uploads of all tenants for which the condition is true and that no live process holds. They may be in
// order again by the time of their repair: see confirm.
func findUploads(ctx context.Context, db *storage.DB, condition string, age time.Duration) iter.Seq2[storage.UploadRef, error] {
	return storage.Paged(func(after storage.UploadRef) ([]storage.UploadRef, error) {
		rows, err := db.Pool().Query(ctx, `
			select u.tenant_id, u.id from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
			where `+condition+` and u.deleted_at is null and not `+storage.LeaseHeld+` and (u.tenant_id, u.id) > ($2, $3)
			order by u.tenant_id, u.id limit $4`, age, after.Tenant, after.Upload, storage.PageSize)
		return storage.Collect[storage.UploadRef]("look for uploads to repair", rows, err)
	})
}

// findRemaining yields the uploads of all tenants that ended so long ago, that are still charged, and that no live process holds.
func findRemaining(ctx context.Context, db *storage.DB, age time.Duration) iter.Seq2[storage.UploadRef, error] {
	return storage.Paged(func(after storage.UploadRef) ([]storage.UploadRef, error) {
		rows, err := db.Pool().Query(ctx, `
			select u.tenant_id, u.id from uploads u
			where u.remains and u.updated_at <= now() - $1::interval and not `+storage.LeaseHeld+` and (u.tenant_id, u.id) > ($2, $3)
			order by u.tenant_id, u.id limit $4`, age, after.Tenant, after.Upload, storage.PageSize)
		return storage.Collect[storage.UploadRef]("look for ended uploads", rows, err)
	})
}

// confirm locks the upload's row and returns [storage.ErrWrongStatus] unless the condition is still true for it.
func confirm(ctx context.Context, tx storage.Tx, id uuid.UUID, condition string, age time.Duration) error {
	var still bool
	var both pgx.Batch // in one round trip, but two statements: the second must see what the first has waited for
	both.Queue(`select from uploads where tenant_id = $1 and id = $2 for update`, tx.Tenant, id)
	both.Queue(`
		select exists (
			select from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
			where u.tenant_id = $2 and u.id = $3 and u.deleted_at is null and `+condition+`)`,
		age, tx.Tenant, id).QueryRow(func(row pgx.Row) error { return row.Scan(&still) })
	if err := tx.SendBatch(ctx, &both).Close(); err != nil {
		return fmt.Errorf("confirm what was found: %w", err)
	}
	if !still {
		return storage.ErrWrongStatus
	}
	return nil
}

// dropTails deletes the orphaned tails of an upload, and returns [storage.ErrWrongStatus] if it has none.
func dropTails(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
	n, err := storage.Exec(ctx, tx, "delete orphaned tails", `
		delete from tails t using uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
		where u.tenant_id = $1 and u.id = $2 and t.tenant_id = $1 and t.upload_id = $2 and `+orphanedTail, tx.Tenant, id)
	if err == nil && n == 0 {
		err = storage.ErrWrongStatus
	}
	return err
}

// A drift is a tenant whose charged quota is not what its uploads come to.
type drift struct {
	Tenant  uuid.UUID `db:"id"`
	Charged int64     `db:"charged_bytes"`
	Uploads int64     `db:"uploads_bytes"` // the sum of what its uploads are charged
}

// findDrifts returns those of all tenants. It reads every upload.
func findDrifts(ctx context.Context, db *storage.DB) ([]drift, error) {
	rows, err := db.Pool().Query(ctx, `
		select t.id, t.charged_bytes, coalesce(u.bytes, 0) uploads_bytes
		from tenants t left join (select tenant_id, sum(charged_bytes)::bigint bytes from uploads group by tenant_id) u
			on u.tenant_id = t.id
		where t.charged_bytes <> coalesce(u.bytes, 0) order by t.id`)
	return storage.Collect[drift]("compare quotas", rows, err)
}

// settleQuota charges the tenant what its uploads come to. It returns [storage.ErrWrongStatus] if that is so already.
func settleQuota(ctx context.Context, tx storage.Tx) error {
	if err := tx.LockTenant(ctx); err != nil { // after which no charge can change before we commit
		return err
	}
	n, err := storage.Exec(ctx, tx, "settle quota", `
		update tenants set charged_bytes = s.bytes
		from (select coalesce(sum(charged_bytes), 0)::bigint bytes from uploads where tenant_id = $1) s
		where id = $1 and charged_bytes <> s.bytes`, tx.Tenant)
	if err == nil && n == 0 {
		err = storage.ErrWrongStatus
	}
	return err
}
