package storage

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A Disorder is a state of an upload that should not last, as a condition on its row u, its content c and the
// least age $1.
type Disorder string

// lastMoved is when an upload's offset moved last.
const lastMoved = `c.touched_at`

// What the reconciler looks for in the rows.
const (
	// FinishCutOff has all its bytes, of its own or of its partial uploads, and was never finished.
	FinishCutOff Disorder = `u.status in ('pending', 'uploading') and u.uploaded_at is null
		and (c.received = u.size or u.kind = 'final') and ` + lastMoved + ` <= now() - $1::interval`
	// Idle has received nothing for so long that its client will not come back. A partial upload that is complete
	// waits for that too, until a final one takes it.
	Idle Disorder = `u.status in ('pending', 'uploading') and u.final_id is null
		and (u.uploaded_at is not null or c.received is distinct from u.size)
		and ` + lastMoved + ` <= now() - $1::interval`
	// UnownedTail keeps bytes that a part holds, or that nobody asks for any more.
	UnownedTail Disorder = lastMoved + ` <= now() - $1::interval
		and (u.tenant_id, u.id) in (
			select u.tenant_id, u.id from tails t join uploads u on u.tenant_id = t.tenant_id and u.id = t.upload_id
			join contents c on c.tenant_id = t.tenant_id and c.upload_id = t.upload_id where ` + unownedTail + `)`
	// WithoutJob waits for a job that does not exist.
	WithoutJob Disorder = `u.status in ('uploaded', 'processing') and u.updated_at <= now() - $1::interval
		and not exists (` + jobs + ` and j.state <> 'completed')`
	// DeadJob waits for a job that was given up: its worker was killed on the last attempt, say, and River ended
	// the job without running any code of ours.
	DeadJob Disorder = `u.status in ('uploaded', 'processing') and u.updated_at <= now() - $1::interval
		and exists (` + jobs + ` and j.state in ('discarded', 'cancelled'))
		and not exists (` + jobs + ` and j.state not in ('discarded', 'cancelled', 'completed'))`
)

const unownedTail = `(u.status not in ('pending', 'uploading') or t.start < c.received - c.tail_size or t.start >= c.received)`

const jobs = `select from river_job j where j.kind = 'process_upload'
	and j.args->>'tenant_id' = u.tenant_id::text and j.args->>'upload_id' = u.id::text`

// LeaseHeld is the condition that a live process holds the lease of an upload u.
const LeaseHeld = `exists (
	select from upload_leases l join lease_holders h on h.id = l.holder_id
	where l.tenant_id = u.tenant_id and l.upload_id = u.id and h.expires_at > now())`

// An UploadRef names an upload of any tenant.
type UploadRef struct {
	Tenant uuid.UUID `db:"tenant_id"`
	Upload uuid.UUID `db:"id"`
}

// InDisorder yields the uploads of all tenants with the disorder that nobody living holds. It needs an
// operator's role. What it yields may be in order again by the time that it is looked at: see [Tx.Confirm].
func (db *DB) InDisorder(ctx context.Context, d Disorder, age time.Duration) iter.Seq2[UploadRef, error] {
	return Paged(func(after UploadRef) ([]UploadRef, error) {
		rows, err := db.pool.Query(ctx, `
			select u.tenant_id, u.id from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
			where `+string(d)+` and u.deleted_at is null and not `+LeaseHeld+` and (u.tenant_id, u.id) > ($2, $3)
			order by u.tenant_id, u.id limit $4`, age, after.Tenant, after.Upload, PageSize)
		if err != nil {
			return nil, fmt.Errorf("look for disorder: %w", err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowToStructByName[UploadRef])
		if err != nil {
			return nil, fmt.Errorf("look for disorder: %w", err)
		}
		return found, nil
	})
}

// Confirm locks the upload's row and returns [ErrWrongStatus] unless the disorder is still there.
func (tx Tx) Confirm(ctx context.Context, id uuid.UUID, d Disorder, age time.Duration) error {
	var still bool
	var both pgx.Batch // in one round trip, but two statements: the second must see what the first has waited for
	both.Queue(`select from uploads where tenant_id = $1 and id = $2 for update`, tx.Tenant, id)
	both.Queue(`
		select exists (
			select from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
			where u.tenant_id = $2 and u.id = $3 and u.deleted_at is null and `+string(d)+`)`,
		age, tx.Tenant, id).QueryRow(func(row pgx.Row) error { return row.Scan(&still) })
	if err := tx.SendBatch(ctx, &both).Close(); err != nil {
		return fmt.Errorf("confirm disorder: %w", err)
	}
	if !still {
		return ErrWrongStatus
	}
	return nil
}

// Expire ends an upload that has been idle for the time given and refunds its quota. For any other it returns
// [ErrWrongStatus].
func (tx Tx) Expire(ctx context.Context, id uuid.UUID, idle time.Duration) error {
	if err := tx.LockTenant(ctx); err != nil {
		return err
	}
	if err := tx.Confirm(ctx, id, Idle, idle); err != nil {
		return err
	}
	return tx.Move(ctx, id, Transition{Move: MoveExpire})
}

// DropUnownedTail deletes what [UnownedTail] finds, and returns [ErrWrongStatus] if there is nothing.
func (tx Tx) DropUnownedTail(ctx context.Context, id uuid.UUID) error {
	tag, err := tx.Exec(ctx, `
		delete from tails t using uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
		where u.tenant_id = $1 and u.id = $2 and t.tenant_id = $1 and t.upload_id = $2 and `+unownedTail, tx.Tenant, id)
	if err != nil {
		return fmt.Errorf("drop unowned tail: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrWrongStatus
	}
	return nil
}

// Lose fails an upload whose whole object was under the key and is gone, and refunds its quota. An upload that
// has no object there is [ErrWrongStatus].
func (tx Tx) Lose(ctx context.Context, id uuid.UUID, key string, f Failure) error {
	t := MoveLose.Because(f)
	t.If, t.Args = "u.object_key = $5", append(t.Args, key)
	return tx.Move(ctx, id, t)
}

// A Drift is a tenant whose charged quota is not what its uploads come to.
type Drift struct {
	Tenant  uuid.UUID `db:"id"`
	Charged int64     `db:"charged_bytes"`
	Uploads int64     `db:"uploads_bytes"` // the sum of what its uploads are charged
}

// Drifts returns all. It reads every upload, and needs an operator's role.
func (db *DB) Drifts(ctx context.Context) ([]Drift, error) {
	rows, err := db.pool.Query(ctx, `
		select t.id, t.charged_bytes, coalesce(u.bytes, 0) uploads_bytes
		from tenants t left join (select tenant_id, sum(charged_bytes)::bigint bytes from uploads group by tenant_id) u
			on u.tenant_id = t.id
		where t.charged_bytes <> coalesce(u.bytes, 0) order by t.id`)
	if err != nil {
		return nil, fmt.Errorf("compare quotas: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Drift])
	if err != nil {
		return nil, fmt.Errorf("compare quotas: %w", err)
	}
	return found, nil
}

// SettleQuota charges the tenant what its uploads come to. It returns [ErrWrongStatus] if that is so already.
func (tx Tx) SettleQuota(ctx context.Context) error {
	if err := tx.LockTenant(ctx); err != nil { // after which no charge can change before we commit
		return err
	}
	tag, err := tx.Exec(ctx, `
		update tenants set charged_bytes = s.bytes
		from (select coalesce(sum(charged_bytes), 0)::bigint bytes from uploads where tenant_id = $1) s
		where id = $1 and charged_bytes <> s.bytes`, tx.Tenant)
	if err != nil {
		return fmt.Errorf("settle quota: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrWrongStatus
	}
	return nil
}

// The passes of the reconciler, each of which one process at a time may make. The numbers are advisory locks.
const (
	ReconcileLock = migrationLock + 1 + iota
	InventoryLock
)

// Alone runs fn while no other process runs one under the same lock; it waits for its turn.
func (db *DB) Alone(ctx context.Context, lock int64, fn func(context.Context) error) error {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("wait for others: %w", err)
	}
	own := conn.Hijack()
	defer own.Close(context.WithoutCancel(ctx)) // which is what surely releases the lock
	if _, err := own.Exec(ctx, `select pg_advisory_lock($1)`, lock); err != nil {
		return fmt.Errorf("wait for others: %w", err)
	}
	return fn(ctx)
}
