package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// settleBatchesOf settles the batches of uploads that have just ended. The uploads' rows are locked by then, and a batch's is
// the last lock that a transaction takes.
func (tx Tx) settleBatchesOf(ctx context.Context, uploads []uuid.UUID) error {
	type batch struct {
		ID   uuid.UUID `db:"id"`
		Open bool      `db:"open"`
	}
	// NO KEY: uploads that are just being created in the batch refer to it, and need not wait.
	rows, err := tx.Query(ctx, `
		select b.id, b.completed_at is null and b.cancelled_at is null as open from batches b
		where b.tenant_id = $1 and b.id in (select u.batch_id from uploads u where u.tenant_id = $1 and u.id = any($2))
		order by b.id for no key update of b`, tx.Tenant, uploads)
	batches, err := Collect[batch]("lock batches of uploads", rows, err)
	if err != nil {
		return err
	}
	for _, b := range batches {
		settle := tx.settle
		if !b.Open {
			settle = tx.spoilBatch
		}
		if err := settle(ctx, b.ID); err != nil {
			return err
		}
	}
	return nil
}

// openBatchesOf opens the batches of uploads that are not at an end any more. One that was cancelled stays so.
func (tx Tx) openBatchesOf(ctx context.Context, uploads []uuid.UUID) error {
	_, err := Exec(ctx, tx, "open batches of uploads", `
		with theirs as (
			select b.id from batches b
			where b.tenant_id = $1 and b.cancelled_at is null
			  and b.id in (select u.batch_id from uploads u where u.tenant_id = $1 and u.id = any($2))
			order by b.id for no key update of b
		)
		update batches b set completed_at = null, failed = false, updated_at = now() from theirs
		where b.tenant_id = $1 and b.id = theirs.id`, tx.Tenant, uploads)
	return err
}

// SettleBatch is the consequence for a batch of what has become of its uploads: it ends, which is announced, if nothing in
// it has still to end; one that has ended is failed if something in it failed after all. It takes the last lock of a
// transaction: whoever adds, removes or restores uploads calls it last.
func (tx Tx) SettleBatch(ctx context.Context, id uuid.UUID) error {
	var open bool
	err := tx.QueryRow(ctx, `
		select completed_at is null and cancelled_at is null from batches where tenant_id = $1 and id = $2 for no key update`,
		tx.Tenant, id).Scan(&open)
	switch {
	case err != nil:
		return fmt.Errorf("lock batch: %w", OrNotFound(err))
	case !open:
		return tx.spoilBatch(ctx, id)
	}
	return tx.settle(ctx, id)
}

// BatchSettleable is a condition on a batch b: something in it came to an end that counts, and nothing in it has still to end.
const BatchSettleable = `not exists (
		select from uploads u where u.tenant_id = b.tenant_id and u.batch_id = b.id and u.deleted_at is null
		and u.status in ('pending', 'uploading', 'uploaded', 'processing'))
	and exists (
		select from uploads u where u.tenant_id = b.tenant_id and u.batch_id = b.id and u.deleted_at is null
		and u.status <> 'cancelled' and u.replaced_by is null)`

// spoilt is another: something in it failed or expired, and was not sent again.
const spoilt = `exists (
	select from uploads u where u.tenant_id = b.tenant_id and u.batch_id = b.id
	and u.deleted_at is null and u.status in ('failed', 'expired') and u.replaced_by is null)`

// settle ends a batch whose row is locked, and open. That it is locked before this statement begins is what makes one of
// many uploads that end together see that all the others have: each statement sees what was committed before it.
func (tx Tx) settle(ctx context.Context, id uuid.UUID) error {
	var failed bool
	err := tx.QueryRow(ctx, `
		update batches b set completed_at = clock_timestamp(), updated_at = clock_timestamp(), failed = `+spoilt+`
		where b.tenant_id = $1 and b.id = $2 and `+BatchSettleable+`
		returning b.failed`, tx.Tenant, id).Scan(&failed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("settle batch: %w", err)
	}
	tx.Changed(BatchChanged, id)
	return tx.announceBatch(ctx, id, failed)
}

// spoilBatch notes that something in a batch that has ended failed after all: its object was lost. That upload is
// announced; the batch was, and is not again.
func (tx Tx) spoilBatch(ctx context.Context, id uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		update batches b set failed = true, updated_at = now()
		where b.tenant_id = $1 and b.id = $2 and b.completed_at is not null and not b.failed and `+spoilt, tx.Tenant, id)
	if err != nil {
		return fmt.Errorf("spoil batch: %w", err)
	}
	tx.Changed(BatchChanged, id)
	return nil
}

// announceBatch tells what the uploads of a batch that has ended come to. Those that were sent again count as what they
// were sent again as.
func (tx Tx) announceBatch(ctx context.Context, id uuid.UUID, failed bool) error {
	var project, name string
	var client *string
	var completed time.Time
	var byStatus map[Status]int64
	var safe int64
	err := tx.QueryRow(ctx, `
		with counted as (
			select u.status, count(*) n, coalesce(sum(coalesce(u.size, c.received)), 0)::bigint bytes
			from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
			where u.tenant_id = $1 and u.batch_id = $2 and u.replaced_by is null and u.deleted_at is null
			group by u.status
		)
		select b.project, b.name, b.client_id, b.completed_at,
			coalesce((select jsonb_object_agg(status, n) from counted), '{}'),
			coalesce((select sum(bytes) from counted where status in ('uploaded', 'processing', 'completed')), 0)::bigint
		from batches b where b.tenant_id = $1 and b.id = $2`, tx.Tenant, id).
		Scan(&project, &name, &client, &completed, &byStatus, &safe)
	if err != nil {
		return fmt.Errorf("count uploads of batch: %w", OrNotFound(err))
	}
	a := Announcement{Type: AnnounceBatchCompleted, Batch: id, Detail: map[string]any{
		"project": project, "name": name, "client_id": client, "completed_at": completed, "uploads": byStatus, "bytes": safe,
	}}
	if failed {
		a.Type = AnnounceBatchFailed
	}
	return tx.Announce(ctx, a)
}

// OpenBatch makes the batch open, if it had ended: there is something in it again that has not. Uploads are locked before
// it is called. It returns [ErrBatchCancelled] for a batch that was cancelled.
func (tx Tx) OpenBatch(ctx context.Context, id uuid.UUID) error {
	n, err := Exec(ctx, tx, "open batch", `
		update batches set completed_at = null, failed = false, updated_at = now()
		where tenant_id = $1 and id = $2 and cancelled_at is null`, tx.Tenant, id)
	if err == nil && n == 0 {
		err = ErrBatchCancelled
	}
	return err
}
