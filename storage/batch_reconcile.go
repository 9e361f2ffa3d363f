package storage

import (
	"context"
	"fmt"
	"iter"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A BatchRef names a batch of any tenant.
type BatchRef struct {
	Tenant uuid.UUID `db:"tenant_id"`
	Batch  uuid.UUID `db:"id"`
}

// UnsettledBatches yields the batches of all tenants that are open although nothing in them has still to end. The
// previous release, which knows no batches, leaves them so while it runs beside this one. It needs an operator's role.
func (db *DB) UnsettledBatches(ctx context.Context) iter.Seq2[BatchRef, error] {
	return paged(func(after BatchRef) ([]BatchRef, error) {
		rows, err := db.pool.Query(ctx, `
			select b.tenant_id, b.id from batches b
			where b.completed_at is null and b.cancelled_at is null and `+settleable+` and (b.tenant_id, b.id) > ($1, $2)
			order by b.tenant_id, b.id limit $3`, after.Tenant, after.Batch, page)
		return collected[BatchRef](rows, err, "look for batches that have ended")
	})
}

// A Label is what uploads call a batch that they were never filed in.
type Label struct {
	Tenant  uuid.UUID `db:"tenant_id"`
	Project string    `db:"project"`
	Name    string    `db:"batch"`
}

// UnfiledLabels yields the labels of all tenants under which the previous release, which knows no batches, left uploads.
// It needs an operator's role.
func (db *DB) UnfiledLabels(ctx context.Context) iter.Seq2[Label, error] {
	return paged(func(after Label) ([]Label, error) {
		rows, err := db.pool.Query(ctx, `
			select distinct tenant_id, project, batch from uploads
			where batch is not null and batch_id is null and kind <> 'partial' and (tenant_id, project, batch) > ($1, $2, $3)
			order by tenant_id, project, batch limit $4`, after.Tenant, after.Project, after.Name, page)
		return collected[Label](rows, err, "look for labels")
	})
}

// FileLabel puts the uploads that have only a label into the batch n, or the one that has n's client id, which is that
// label. A batch is as old as its oldest upload. One in which nothing has still to end has ended with the last of
// them, which nobody is told of: it may be years ago.
func (tx Tx) FileLabel(ctx context.Context, n NewBatch) error {
	b, _, err := tx.MakeBatch(ctx, n)
	if err != nil {
		return err
	}
	if err := tx.lockTenant(ctx); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, `
		with mine as (
			select id from uploads
			where tenant_id = $1 and project = $2 and batch = $3 and batch_id is null and kind <> 'partial'
			order by id for no key update
		)
		update uploads u set batch_id = $4 from mine where u.tenant_id = $1 and u.id = mine.id`, tx.Tenant, b.Project, n.ClientID, b.ID)
	if err != nil {
		return fmt.Errorf("file uploads: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrWrongStatus
	}
	var all pgx.Batch // in one round trip
	all.Queue(`
		update uploads o set replaced_by = n.newer
		from (select id, user_id, client_id, lead(id) over (partition by user_id, client_id order by id) newer
			from uploads where tenant_id = $1 and batch_id = $2 and client_id is not null) n
		where o.tenant_id = $1 and o.id = n.id and n.newer is not null and o.replaced_by is null
			and o.status in ('failed', 'expired', 'cancelled')`, tx.Tenant, b.ID)
	all.Queue(`
		update batches b set created_at = least(b.created_at, u.first), updated_at = now(),
			completed_at = case when b.cancelled_at is null and `+settleable+` then coalesce(b.completed_at, u.last) end,
			failed = b.cancelled_at is null and `+settleable+` and `+spoilt+`
		from (select min(created_at) first, max(updated_at) last from uploads where tenant_id = $1 and batch_id = $2) u
		where b.tenant_id = $1 and b.id = $2`, tx.Tenant, b.ID)
	if err := tx.SendBatch(ctx, &all).Close(); err != nil {
		return fmt.Errorf("file uploads: %w", err)
	}
	return nil
}

func collected[T any](rows pgx.Rows, err error, doing string) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[T])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return found, nil
}
