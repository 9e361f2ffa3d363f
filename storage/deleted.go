package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Deleted uploads do not exist: the row-level security policy "undeleted" hides them from servers, whatever a
// statement asks for, and the statements with which workers move an upload on name the column.

// AmongDeleted runs fn while the transaction sees what is deleted, too.
func (tx Tx) AmongDeleted(ctx context.Context, fn func() error) error {
	if _, err := tx.Exec(ctx, `select set_config('app.deleted', 'yes', true)`); err != nil {
		return fmt.Errorf("look among deleted uploads: %w", err)
	}
	if err := fn(); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `select set_config('app.deleted', '', true)`); err != nil {
		return fmt.Errorf("look away from deleted uploads: %w", err)
	}
	return nil
}

// lockWhole locks an upload and the partial ones that it was made of, in the order of their ids, and returns them all.
func (tx Tx) lockWhole(ctx context.Context, id uuid.UUID) (ids []uuid.UUID, err error) {
	rows, err := tx.Query(ctx, `
		select u.id from uploads u where u.tenant_id = $1 and (u.id = $2 or u.id in (
			select unnest(f.partials) from uploads f where f.tenant_id = $1 and f.id = $2))
		order by u.id for update`, tx.Tenant, id)
	if err == nil {
		ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	}
	if err != nil {
		return nil, fmt.Errorf("lock upload: %w", err)
	}
	return ids, nil
}

// Delete makes an upload that takes no more bytes vanish, with the partial ones that it was made of, and returns
// until when [Tx.Restore] brings it back: for so long as keep says. Its client id is free; its quota stays charged,
// for its bytes are there. One that still takes bytes, or is part of another, is [ErrWrongStatus].
func (tx Tx) Delete(ctx context.Context, id uuid.UUID, keep time.Duration) (purge time.Time, err error) {
	ids, err := tx.lockWhole(ctx, id)
	if err != nil {
		return purge, err
	}
	var batch *uuid.UUID
	var was Status
	err = tx.AmongDeleted(ctx, func() error { // the new rows must be visible to who writes them
		return tx.QueryRow(ctx, `
			with gone as (
				update uploads set deleted_at = now(), purge_at = now() + $4::interval
				where tenant_id = $1 and id = any($3) and deleted_at is null
				  and (id = $2 and status in ('uploaded', 'processing', 'completed', 'failed')
				       or final_id = $2 and status = 'concatenated')
				returning id, purge_at, batch_id, status
			)
			select purge_at, batch_id, status from gone where id = $2`, tx.Tenant, id, ids, keep).Scan(&purge, &batch, &was)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return purge, ErrWrongStatus
	case err != nil:
		return purge, fmt.Errorf("delete upload: %w", err)
	}
	if err := tx.Append(ctx, id, Entry{Event: EventDeleted, Detail: map[string]any{"purge_at": purge.UTC()}}); err != nil {
		return purge, err
	}
	if err := tx.Audit(ctx, Audit{Action: AuditUploadDelete, Subject: id.String(), Detail: map[string]any{"purge_at": purge.UTC()}}); err != nil {
		return purge, err
	}
	return purge, tx.leaveBatch(ctx, batch, was)
}

// leaveBatch settles the batch of an upload that is not there any more: it may have been the last that the batch waited
// for, or the one that had failed.
func (tx Tx) leaveBatch(ctx context.Context, batch *uuid.UUID, was Status) error {
	if batch == nil {
		return nil
	}
	if was == Failed {
		if err := tx.OpenBatch(ctx, *batch); err != nil && !errors.Is(err, ErrBatchCancelled) {
			return err
		}
	}
	if err := tx.SettleBatch(ctx, *batch); err != nil && !errors.Is(err, ErrWrongStatus) {
		return err
	}
	return nil
}

// rejoinBatch tells the batch of an upload that is there again.
func (tx Tx) rejoinBatch(ctx context.Context, u Upload) error {
	switch {
	case u.BatchID == nil:
		return nil
	case u.Status == Failed:
		if err := tx.SettleBatch(ctx, *u.BatchID); err != nil && !errors.Is(err, ErrWrongStatus) {
			return err
		}
		return nil
	case u.Status == Completed:
		return nil
	}
	if err := tx.OpenBatch(ctx, *u.BatchID); err != nil && !errors.Is(err, ErrBatchCancelled) {
		return err
	}
	return nil
}

// Restore brings a deleted upload back as it was and returns it. One that is not deleted, or whose time is over, is
// [ErrNotFound]. If its client id names another upload by now it is [ErrDuplicateClientID], after which the
// transaction is of no more use.
func (tx Tx) Restore(ctx context.Context, id uuid.UUID) (u Upload, err error) {
	err = tx.AmongDeleted(ctx, func() error {
		ids, err := tx.lockWhole(ctx, id)
		if err != nil {
			return err
		}
		var back int
		err = tx.QueryRow(ctx, `
			with back as (
				update uploads set deleted_at = null, purge_at = null, updated_at = now()
				where tenant_id = $1 and id = any($3) and purge_at > now() and (id = $2 and status <> 'concatenated' or final_id = $2)
				returning id
			)
			select count(*) from back where id = $2`, tx.Tenant, id, ids).Scan(&back)
		switch {
		case IsUniqueViolation(err, "uploads_client_id"):
			return ErrDuplicateClientID
		case err != nil:
			return fmt.Errorf("restore upload: %w", err)
		case back == 0:
			return ErrNotFound
		}
		return nil
	})
	if err != nil {
		return u, err
	}
	if err := tx.Append(ctx, id, Entry{Event: EventRestored}); err != nil {
		return u, err
	}
	if err := tx.Audit(ctx, Audit{Action: AuditUploadRestore, Subject: id.String()}); err != nil {
		return u, err
	}
	if u, err = tx.Upload(ctx, id); err != nil {
		return u, err
	}
	return u, tx.rejoinBatch(ctx, u)
}
