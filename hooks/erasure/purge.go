package erasure

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
)

// due yields the deleted uploads of all tenants whose retention is over and that no erasure removes.
func due(ctx context.Context, db *storage.DB) iter.Seq2[storage.UploadRef, error] {
	return storage.Paged(func(after storage.UploadRef) ([]storage.UploadRef, error) {
		rows, err := db.Pool().Query(ctx, `
			select u.tenant_id, u.id from uploads u
			where u.deleted_at is not null and u.purge_at <= now() and (u.tenant_id, u.id) > ($1, $2)
			  and not exists (select from erasures e where e.state = 'running' and `+covered+`)
			order by u.tenant_id, u.id limit $3`, after.Tenant, after.Upload, storage.PageSize)
		return storage.Collect[storage.UploadRef]("look for what is to be removed", rows, err)
	})
}

// seal puts a deleted upload whose retention is over past restoring and returns its project. One that was restored is
// [storage.ErrWrongStatus]. One that a worker is processing, which may still write thumbnails, is [queue.ErrRunning].
func seal(ctx context.Context, tx storage.Tx, id uuid.UUID) (project string, err error) {
	err = tx.QueryRow(ctx, `
		update uploads set purge_at = '-infinity' where tenant_id = $1 and id = $2 and deleted_at is not null and purge_at <= now()
		returning project`, tx.Tenant, id).Scan(&project)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", storage.ErrWrongStatus
	case err != nil:
		return "", fmt.Errorf("seal upload: %w", err)
	}
	running, err := queue.IsRunning(ctx, tx, id)
	if err == nil && running {
		err = queue.ErrRunning
	}
	return project, err
}

// purge removes the jobs and all rows of a sealed upload of which S3 has nothing more, and refunds its quota. The audit log
// keeps its id, so that the reconciler knows what a late writer may yet leave in S3.
func purge(ctx context.Context, tx storage.Tx, id uuid.UUID, tables []table) error {
	if err := tx.LockTenant(ctx); err != nil {
		return err
	}
	for _, t := range tables {
		if t.Upload {
			if _, err := tx.Exec(ctx, `delete from `+t.name()+` where tenant_id = $1 and upload_id = $2`, tx.Tenant, id); err != nil {
				return fmt.Errorf("purge %s: %w", t.Name, err)
			}
		}
	}
	if err := queue.Drop(ctx, tx, id); err != nil {
		return err
	}
	var charged int64
	err := tx.QueryRow(ctx, `
		delete from uploads where tenant_id = $1 and id = $2 and purge_at = '-infinity' returning charged_bytes`,
		tx.Tenant, id).Scan(&charged)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return storage.ErrWrongStatus
	case err != nil:
		return fmt.Errorf("purge upload: %w", err)
	}
	if err := tx.Refund(ctx, charged); err != nil {
		return err
	}
	return tx.Audit(ctx, storage.Audit{Action: storage.AuditUploadPurge, Subject: id.String()})
}

// Purged reports whether the upload was removed for good, by itself or with its tenant. It needs an operator's role.
func Purged(ctx context.Context, db *storage.DB, ref storage.UploadRef) (purged bool, err error) {
	err = db.Pool().QueryRow(ctx, `
		select exists (select from audit where tenant_id = $1 and action = 'upload.purge' and subject = $2::uuid::text)
			or exists (select from tenants where id = $1 and erased_at is not null)`, ref.Tenant, ref.Upload).Scan(&purged)
	if err != nil {
		return false, fmt.Errorf("ask whether an upload was removed: %w", err)
	}
	return purged, nil
}
