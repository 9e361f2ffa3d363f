package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// CreateTenant adds a tenant with a quota in bytes and returns its id; created is false when a tenant
// of that name was there before, whose quota then stays. It needs an operator's role.
func (db *DB) CreateTenant(ctx context.Context, name string, quota int64) (id uuid.UUID, created bool, err error) {
	id, err = uuid.NewV7()
	if err != nil {
		return uuid.Nil, false, err
	}
	tag, err := db.pool.Exec(ctx, `
		insert into tenants (id, name, quota_bytes) values ($1, $2, $3)
		on conflict (name) do nothing`, id, name, quota)
	if err != nil {
		return uuid.Nil, false, fmt.Errorf("create tenant: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return id, true, nil
	}
	id, err = db.TenantByName(ctx, name)
	return id, false, err
}

// TenantByName returns the id of the tenant named, or [ErrNotFound]. It needs an operator's role.
func (db *DB) TenantByName(ctx context.Context, name string) (uuid.UUID, error) {
	var id uuid.UUID
	err := db.pool.QueryRow(ctx, `select id from tenants where name = $1`, name).Scan(&id)
	if err != nil {
		return uuid.Nil, fmt.Errorf("find tenant by name: %w", OrNotFound(err))
	}
	return id, nil
}

// LockTenant goes before the lock of an upload whose charge is to change, as in CreateUpload: a creation under the
// same client id waits for that upload's row while it holds the tenant's.
func (tx Tx) LockTenant(ctx context.Context) error {
	if _, err := tx.Exec(ctx, `select from tenants where id = $1 for no key update`, tx.Tenant); err != nil {
		return fmt.Errorf("lock tenant: %w", err)
	}
	return nil
}

// Refund gives bytes back to the tenant's quota.
func (tx Tx) Refund(ctx context.Context, bytes int64) error {
	if bytes == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		update tenants set charged_bytes = charged_bytes - $2 where id = $1`, tx.Tenant, bytes)
	if err != nil {
		return fmt.Errorf("refund quota: %w", err)
	}
	return nil
}
