package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// CancelBatch ends the batch, and with it what in it has not all its bytes, whose quota it refunds. What is safe already
// goes on. It returns the uploads that it ended, whose holders are asked to let go once this commits; [ErrNotFound]; or
// [ErrBatchCancelled] for a batch that was cancelled before.
func (tx Tx) CancelBatch(ctx context.Context, id uuid.UUID) ([]uuid.UUID, error) {
	var ids []uuid.UUID
	_, err := tx.MoveAll(ctx, "u.batch_id = $2", id, Transition{Move: MoveCancel, Also: func(moved []Moved) error {
		ids = idsOf(moved)
		// The batch first: the end of its last upload is not what ends it.
		if err := tx.endBatch(ctx, id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			select pg_notify('tramo_lease_' || replace(holder_id::text, '-', ''), 'want ' || tenant_id::text || ' ' || upload_id::text)
			from upload_leases where tenant_id = $1 and upload_id = any($2)`, tx.Tenant, ids)
		return err
	}})
	if err == nil && len(ids) == 0 {
		err = tx.endBatch(ctx, id)
	}
	return ids, err
}

// endBatch records that the batch was cancelled.
func (tx Tx) endBatch(ctx context.Context, id uuid.UUID) error {
	tag, err := tx.Exec(ctx, `
		update batches set cancelled_at = now(), completed_at = null, failed = false, updated_at = now()
		where tenant_id = $1 and id = $2 and cancelled_at is null`, tx.Tenant, id)
	switch {
	case err != nil:
		return fmt.Errorf("cancel batch: %w", err)
	case tag.RowsAffected() == 1:
		tx.Changed(BatchChanged, id)
		return nil
	}
	if _, err := tx.Batch(ctx, id); err != nil {
		return err
	}
	return ErrBatchCancelled
}

// ErrSendAgain says that an upload which has ended badly has nothing left that could be processed again.
var ErrSendAgain = errors.New("upload must be sent again")

// EndedBadly returns the uploads of a batch that failed or expired and were not sent again, and locks the tenant and them.
func (tx Tx) EndedBadly(ctx context.Context, batch uuid.UUID) ([]Upload, error) {
	return tx.endedBadly(ctx, `u.batch_id = $2`, batch)
}

// EndedBadlyOne returns the upload if it failed or expired, and locks the tenant and it. Any other is [ErrWrongStatus],
// and what the tenant does not have [ErrNotFound].
func (tx Tx) EndedBadlyOne(ctx context.Context, id uuid.UUID) (Upload, error) {
	us, err := tx.endedBadly(ctx, `u.id = $2`, id)
	if err != nil {
		return Upload{}, err
	}
	if len(us) == 1 {
		return us[0], nil
	}
	if _, err := tx.Upload(ctx, id); err != nil {
		return Upload{}, err
	}
	return Upload{}, ErrWrongStatus
}

func (tx Tx) endedBadly(ctx context.Context, which string, id uuid.UUID) ([]Upload, error) {
	if err := tx.LockTenant(ctx); err != nil { // nobody begins anew under the same client id meanwhile
		return nil, err
	}
	rows, err := tx.Query(ctx, SelectUpload+`
		where u.tenant_id = $1 and `+which+` and u.status in ('failed', 'expired') and u.replaced_by is null
		order by u.id for no key update of u`, tx.Tenant, id)
	if err != nil {
		return nil, fmt.Errorf("read what ended badly: %w", err)
	}
	us, err := pgx.CollectRows(rows, pgx.RowToStructByName[Upload])
	if err != nil {
		return nil, fmt.Errorf("read what ended badly: %w", err)
	}
	return us, nil
}

// Retry makes failed uploads, whose objects are there and which [Tx.EndedBadly] has locked, uploaded again. Whoever calls
// it enqueues their processing. It returns those that it did so with; the others were sent again meanwhile, under the same
// client ids.
func (tx Tx) Retry(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	moved, err := tx.MoveAll(ctx, "u.id = any($2)", ids, Transition{
		Move: MoveRetry, Set: "failure_reason = null, failure_detail = null", Detail: map[string]any{"retry": true},
		If: `u.object_key is not null and not exists (
			select from uploads o where o.tenant_id = $1 and o.user_id = u.user_id and o.client_id = u.client_id
			and o.status not in ('failed', 'expired', 'cancelled', 'concatenated') and o.deleted_at is null)`,
	})
	return idsOf(moved), err
}

// RenameBatch gives the batch another name. Its client's own name for it stays.
func (tx Tx) RenameBatch(ctx context.Context, id uuid.UUID, name string) error {
	tag, err := tx.Exec(ctx, `
		update batches set name = $3, updated_at = now() where tenant_id = $1 and id = $2`, tx.Tenant, id, name)
	if err != nil {
		return fmt.Errorf("rename batch: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNotFound
	}
	tx.Changed(BatchChanged, id)
	return nil
}
