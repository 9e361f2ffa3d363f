package erasure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
)

// Row-level security hides deleted uploads from servers, whatever a statement asks for (policy "undeleted"). Workers see them,
// so the statements that move an upload on name the column.

// lockWithPartials locks an upload and the partial uploads that it was made of, in the order of their ids, and returns the ids.
func lockWithPartials(ctx context.Context, tx storage.Tx, id uuid.UUID) (ids []uuid.UUID, err error) {
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

// deleteUpload hides an upload that takes no more bytes, with the partial uploads that it was made of, and returns until when
// restoreUpload brings it back. Its client id is free; its quota stays charged, for its bytes are there. One that still takes
// bytes, or is part of another, is [storage.ErrWrongStatus].
func deleteUpload(ctx context.Context, tx storage.Tx, id uuid.UUID, retention time.Duration) (purge time.Time, err error) {
	ids, err := lockWithPartials(ctx, tx, id)
	if err != nil {
		return purge, err
	}
	var batch *uuid.UUID
	var status storage.Status
	err = tx.AmongDeleted(ctx, func() error { // Postgres refuses an update whose new row the policy hides
		return tx.QueryRow(ctx, `
			with gone as (
				update uploads set deleted_at = now(), purge_at = now() + $4::interval
				where tenant_id = $1 and id = any($3) and deleted_at is null
				  and (id = $2 and status in ('uploaded', 'processing', 'completed', 'failed')
				       or final_id = $2 and status = 'concatenated')
				returning id, purge_at, batch_id, status
			)
			select purge_at, batch_id, status from gone where id = $2`, tx.Tenant, id, ids, retention).Scan(&purge, &batch, &status)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return purge, storage.ErrWrongStatus
	case err != nil:
		return purge, fmt.Errorf("delete upload: %w", err)
	}
	detail := map[string]any{"purge_at": purge.UTC()}
	tx.Append(ctx, id, storage.Entry{Event: storage.EventDeleted, Detail: detail})
	if err := tx.Audit(ctx, storage.Audit{Action: storage.AuditUploadDelete, Subject: id.String(), Detail: detail}); err != nil {
		return purge, err
	}
	return purge, leaveBatch(ctx, tx, batch, status)
}

// leaveBatch settles the batch of an upload that was deleted: it may have been the last that the batch waited for, or the one
// that had failed.
func leaveBatch(ctx context.Context, tx storage.Tx, batch *uuid.UUID, status storage.Status) error {
	if batch == nil {
		return nil
	}
	if status == storage.Failed {
		if err := openBatch(ctx, tx, *batch); err != nil {
			return err
		}
	}
	return tx.SettleBatch(ctx, *batch)
}

// returnToBatch opens the batch of an upload that was restored, or settles it, as the upload's status demands.
func returnToBatch(ctx context.Context, tx storage.Tx, u storage.Upload) error {
	switch {
	case u.BatchID == nil, u.Status == storage.Completed:
		return nil
	case u.Status == storage.Failed:
		return tx.SettleBatch(ctx, *u.BatchID)
	}
	return openBatch(ctx, tx, *u.BatchID)
}

func openBatch(ctx context.Context, tx storage.Tx, batch uuid.UUID) error {
	if err := tx.OpenBatch(ctx, batch); !errors.Is(err, storage.ErrBatchCancelled) {
		return err
	}
	return nil
}

// restoreUpload brings a deleted upload back as it was and returns it. One that is not deleted, or whose retention is over, is
// [storage.ErrNotFound]. If another upload has its client id by now it is [storage.ErrDuplicateClientID], and the transaction
// has failed.
func restoreUpload(ctx context.Context, tx storage.Tx, id uuid.UUID) (u storage.Upload, err error) {
	err = tx.AmongDeleted(ctx, func() error {
		ids, err := lockWithPartials(ctx, tx, id)
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
		case storage.IsUniqueViolation(err, "uploads_client_id"):
			return storage.ErrDuplicateClientID
		case err != nil:
			return fmt.Errorf("restore upload: %w", err)
		case back == 0:
			return storage.ErrNotFound
		}
		return nil
	})
	if err != nil {
		return u, err
	}
	tx.Append(ctx, id, storage.Entry{Event: storage.EventRestored})
	if err := tx.Audit(ctx, storage.Audit{Action: storage.AuditUploadRestore, Subject: id.String()}); err != nil {
		return u, err
	}
	if u, err = tx.Upload(ctx, id); err != nil {
		return u, err
	}
	return u, returnToBatch(ctx, tx, u)
}
