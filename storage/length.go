package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ErrBadLength says that an upload cannot have the declared length: more bytes have arrived.
var ErrBadLength = errors.New("upload cannot have that length")

// NoFence stands for a request without a lease, which may act only while nobody holds one.
const NoFence = 0

// DeclareLength sets the size, in bytes, of an upload whose size was deferred, and refunds the rest of its charge. Declaring
// the same size again changes nothing. It returns [ErrFenced] unless the lease with this fence is held (for [NoFence]: if
// any is held), [ErrTooLarge] for more than the upload is charged, [ErrBadLength], or [ErrWrongStatus] for an upload that has
// another size or has ended.
func (tx Tx) DeclareLength(ctx context.Context, id uuid.UUID, fence, size int64) error {
	if err := tx.LockTenant(ctx); err != nil {
		return err
	}
	// FOR UPDATE keeps others from taking a first lease meanwhile: its row would refer to this one.
	u, err := tx.oneUpload(ctx, `where u.tenant_id = $1 and u.id = $2 for update of u`, id)
	if err != nil {
		return err
	}
	if err := tx.RequireLease(ctx, id, fence); err != nil {
		return err
	}
	switch {
	case !u.SizeDeferred && u.Size == size:
		return nil
	case !u.SizeDeferred, !u.Status.Receiving():
		return ErrWrongStatus
	case size > u.ChargedBytes:
		return ErrTooLarge
	case size <= 0, size < u.Received:
		return ErrBadLength
	}
	_, err = tx.Exec(ctx, `
		update uploads set size = $3, charged_bytes = $3, updated_at = now() where tenant_id = $1 and id = $2`,
		tx.Tenant, id, size)
	if err != nil {
		return fmt.Errorf("declare length: %w", err)
	}
	if err := tx.Refund(ctx, u.ChargedBytes-size); err != nil {
		return err
	}
	tx.Changed(UploadChanged, id)
	tx.Append(ctx, id, Entry{Event: EventLengthDeclared, Detail: map[string]any{"size": size}})
	return nil
}

// RequireLease returns [ErrFenced] unless the lease of the upload with this fence is held, until the transaction ends.
func (tx Tx) RequireLease(ctx context.Context, id uuid.UUID, fence int64) error {
	var held int64
	err := tx.QueryRow(ctx, `
		select fence from upload_leases where tenant_id = $1 and upload_id = $2 for share`, tx.Tenant, id).Scan(&held)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		held = NoFence
	case err != nil:
		return fmt.Errorf("check lease: %w", err)
	}
	if held != fence {
		return ErrFenced
	}
	return nil
}
