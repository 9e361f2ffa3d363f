package batch

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
)

// Find returns the batch, or [storage.ErrNotFound].
func Find(ctx context.Context, tx storage.Tx, id uuid.UUID) (storage.Batch, error) {
	return tx.FindBatch(ctx, id, "", "")
}

// lockByClientIDs returns the user's uploads that have the client's ids, by these. It locks the tenant and then the uploads:
// until the transaction ends no other is created and none of these changes.
func lockByClientIDs(ctx context.Context, tx storage.Tx, user string, clientIDs []string) (map[string]storage.Upload, error) {
	if err := tx.LockTenant(ctx); err != nil {
		return nil, err
	}
	us, err := tx.FindUploads(ctx, `
		where u.tenant_id = $1 and u.user_id = $2 and u.client_id = any($3)
		  and u.status not in ('failed', 'expired', 'cancelled', 'concatenated')
		order by u.id for no key update of u`, user, clientIDs)
	if err != nil {
		return nil, err
	}
	byID := make(map[string]storage.Upload, len(us))
	for _, u := range us {
		byID[*u.ClientID] = u
	}
	return byID, nil
}

// replace lets uploads that are new in a batch replace those of the same client ids that failed, expired or were cancelled.
func replace(ctx context.Context, tx storage.Tx, batch uuid.UUID, ids []uuid.UUID, users, clientIDs []string) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := storage.Exec(ctx, tx, "replace uploads", `
		update uploads o set replaced_by = n.id
		from unnest($3::uuid[], $4::text[], $5::text[]) n (id, user_id, client_id)
		where o.tenant_id = $1 and o.batch_id = $2 and o.client_id = n.client_id and o.user_id = n.user_id and o.id <> n.id`,
		tx.Tenant, batch, ids, users, clientIDs)
	return err
}

// adopt puts uploads that lockByClientIDs has locked, and that are in no batch, into one of their project; label is their name
// for it. Their retention begins anew.
func adopt(ctx context.Context, tx storage.Tx, batch uuid.UUID, label string, us []storage.Upload) error {
	if len(us) == 0 {
		return nil
	}
	var ids []uuid.UUID
	var users, clients []string
	for _, u := range us {
		ids, users, clients = append(ids, u.ID), append(users, u.UserID), append(clients, *u.ClientID)
	}
	_, err := tx.Exec(ctx, `
		with touched as (
			update contents set touched_at = now() where tenant_id = $1 and upload_id = any($4)
		)
		update uploads set batch_id = $2, batch = $3, updated_at = now() where tenant_id = $1 and id = any($4) and batch_id is null`,
		tx.Tenant, batch, label, ids)
	if err != nil {
		return fmt.Errorf("adopt uploads: %w", err)
	}
	return replace(ctx, tx, batch, ids, users, clients)
}

// declareManifest records that the batch has a manifest, and its name. Uploads are locked before.
func declareManifest(ctx context.Context, tx storage.Tx, id uuid.UUID, name string) error {
	_, err := tx.Exec(ctx, `
		update batches set manifest = true, name = $3, updated_at = now() where tenant_id = $1 and id = $2 and not manifest`,
		tx.Tenant, id, name)
	if err != nil {
		return fmt.Errorf("declare manifest: %w", err)
	}
	tx.Changed(storage.BatchChanged, id)
	return nil
}

// cancel ends the batch and cancels its uploads that still take bytes. It returns these uploads; the holders of their leases
// are asked to let go once this commits. A batch that was cancelled before is [storage.ErrBatchCancelled].
func cancel(ctx context.Context, tx storage.Tx, id uuid.UUID) ([]storage.Moved, error) {
	cancelled, err := tx.MoveAll(ctx, "u.batch_id = $2", id, storage.Transition{Move: storage.MoveCancel, Also: func(moved []storage.Moved) error {
		// The batch first: it must not end because its last upload does.
		if err := markCancelled(ctx, tx, id); err != nil {
			return err
		}
		ids := make([]uuid.UUID, len(moved))
		for i, m := range moved {
			ids[i] = m.ID
		}
		return lease.Want(ctx, tx, ids)
	}})
	if err == nil && len(cancelled) == 0 {
		err = markCancelled(ctx, tx, id)
	}
	return cancelled, err
}

// markCancelled records that the batch was cancelled.
func markCancelled(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
	tag, err := tx.Exec(ctx, `
		update batches set cancelled_at = now(), completed_at = null, failed = false, updated_at = now()
		where tenant_id = $1 and id = $2 and cancelled_at is null`, tx.Tenant, id)
	switch {
	case err != nil:
		return fmt.Errorf("cancel batch: %w", err)
	case tag.RowsAffected() == 1:
		tx.Changed(storage.BatchChanged, id)
		return nil
	}
	if _, err := Find(ctx, tx, id); err != nil {
		return err
	}
	return storage.ErrBatchCancelled
}

// rename gives the batch another name. Its client id stays.
func rename(ctx context.Context, tx storage.Tx, id uuid.UUID, name string) error {
	tag, err := tx.Exec(ctx, `
		update batches set name = $3, updated_at = now() where tenant_id = $1 and id = $2`, tx.Tenant, id, name)
	if err != nil {
		return fmt.Errorf("rename batch: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return storage.ErrNotFound
	}
	tx.Changed(storage.BatchChanged, id)
	return nil
}
