package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// LockPartials locks the tenant and the uploads with these ids, and returns those that exist, ordered by id.
func (tx Tx) LockPartials(ctx context.Context, ids []uuid.UUID) ([]Upload, error) {
	if err := tx.LockTenant(ctx); err != nil {
		return nil, err
	}
	return tx.FindUploads(ctx, `where u.tenant_id = $1 and u.id = any($2) order by u.id for no key update of u`, ids)
}

// take assigns partial uploads to a final one: all of them, or none and [ErrWrongStatus].
func (tx Tx) take(ctx context.Context, final uuid.UUID, partials []uuid.UUID) error {
	tag, err := tx.Exec(ctx, `
		update uploads set final_id = $2, updated_at = now()
		where tenant_id = $1 and id = any($3) and kind = 'partial' and status = 'uploading'
		  and uploaded_at is not null and final_id is null`, tx.Tenant, final, partials)
	if err != nil {
		return fmt.Errorf("take partial uploads: %w", err)
	}
	if tag.RowsAffected() != int64(len(partials)) {
		return ErrWrongStatus
	}
	return nil
}

// concatenate ends the partial uploads of a final one, which now has their bytes and is charged for them. They stay charged as
// well until their objects are gone: see [Release].
func (tx Tx) concatenate(ctx context.Context, final uuid.UUID) error {
	moved, err := tx.MoveAll(ctx, `u.final_id = $2 and u.id in (
			select unnest(f.partials) from uploads f where f.tenant_id = $1 and f.id = $2)`, final,
		Transition{Move: MoveConcatenate, Detail: map[string]any{"final": final}})
	if err != nil {
		return err
	}
	tx.Append(ctx, final, Entry{Event: EventAssembled, Detail: map[string]any{"partials": len(moved)}})
	return nil
}
