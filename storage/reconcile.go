package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// LeaseHeld is the condition that a live process holds the lease of an upload u.
const LeaseHeld = `exists (
	select from upload_leases l join lease_holders h on h.id = l.holder_id
	where l.tenant_id = u.tenant_id and l.upload_id = u.id and h.expires_at > now())`

// An UploadRef names an upload of any tenant.
type UploadRef struct {
	Tenant uuid.UUID `db:"tenant_id"`
	Upload uuid.UUID `db:"id"`
}

// Alone runs fn while no other process runs one of the same name; it waits for its turn.
func (db *DB) Alone(ctx context.Context, name string, fn func(context.Context) error) error {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("wait for others: %w", err)
	}
	own := conn.Hijack()
	defer own.Close(context.WithoutCancel(ctx)) // the lock goes with the session, also if the connection is broken
	if _, err := own.Exec(ctx, `select pg_advisory_lock(hashtextextended($1, 0))`, name); err != nil {
		return fmt.Errorf("wait for others: %w", err)
	}
	return fn(ctx)
}
