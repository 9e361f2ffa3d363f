package storagetest

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// NewUpload is an upload that nothing is special about.
func NewUpload(size int64) storage.NewUpload {
	return storage.NewUpload{ID: uuid.Must(uuid.NewV7()), UserID: "ana", Project: "torre", Metadata: map[string]string{}, Size: size}
}

// As acts for ana, an employee of the tenant.
func As(ctx context.Context, id uuid.UUID) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: "ana", Role: tenant.Empleado})
}

// TenantOf is the tenant that ctx acts for.
func TenantOf(t testing.TB, ctx context.Context) uuid.UUID {
	t.Helper()
	who, err := tenant.From(ctx)
	stack.Must(t, err)
	return who.Tenant
}

// SQLState returns Postgres' code of an error, or "".
func SQLState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// Must runs fn as the server does, for the tenant in ctx.
func (d *Database) Must(t testing.TB, ctx context.Context, fn func(storage.Tx) error) {
	t.Helper()
	stack.Must(t, d.API.InTenant(ctx, fn))
}

// MustWork runs fn as a worker does, for the tenant in ctx.
func (d *Database) MustWork(t testing.TB, ctx context.Context, fn func(storage.Tx) error) {
	t.Helper()
	stack.Must(t, d.Worker.InTenant(ctx, fn))
}

// Create makes an upload of size bytes for the tenant in ctx.
func (d *Database) Create(t testing.TB, ctx context.Context, size int64) uuid.UUID {
	t.Helper()
	n := NewUpload(size)
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) })
	return n.ID
}

// Upload reads an upload as the server does.
func (d *Database) Upload(t testing.TB, ctx context.Context, id uuid.UUID) (u storage.Upload) {
	t.Helper()
	d.Must(t, ctx, func(tx storage.Tx) (err error) {
		u, err = tx.Upload(ctx, id)
		return err
	})
	return u
}

// Room is how many bytes the tenant's quota has left.
func (d *Database) Room(t testing.TB, ctx context.Context) (room int64) {
	t.Helper()
	d.Must(t, ctx, func(tx storage.Tx) error {
		a, err := tx.Account(ctx)
		room = a.QuotaBytes - a.ChargedBytes
		return err
	})
	return room
}

// WantRoom reports a quota that has not so many bytes left.
func (d *Database) WantRoom(t testing.TB, ctx context.Context, want int64) {
	t.Helper()
	stack.Want(t, d.Room(t, ctx), want, "bytes of the quota that are left")
}

// Exec runs a statement as the superuser.
func (d *Database) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	d.once(t, func(conn *pgx.Conn) error {
		_, err := conn.Exec(t.Context(), sql, args...)
		return err
	})
}

// Count runs a query that returns one number, as the superuser.
func (d *Database) Count(t testing.TB, sql string, args ...any) (n int) {
	t.Helper()
	d.once(t, func(conn *pgx.Conn) error { return conn.QueryRow(t.Context(), sql, args...).Scan(&n) })
	return n
}

// WantCount reports a query that does not return the number.
func (d *Database) WantCount(t testing.TB, want int, sql string, args ...any) {
	t.Helper()
	stack.Want(t, d.Count(t, sql, args...), want, "%s %v", sql, args)
}

// once has a connection of the superuser's for as long as fn runs.
func (d *Database) once(t testing.TB, fn func(*pgx.Conn) error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.URL("postgres"))
	stack.Must(t, err)
	err = fn(conn)
	stack.Must(t, errors.Join(err, conn.Close(context.WithoutCancel(t.Context()))))
}

// Column reads a query's only column.
func Column[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) []T {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	stack.Must(t, err)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	stack.Must(t, err)
	return values
}

// UntilLocked waits until a statement like the pattern waits for a lock.
func (d *Database) UntilLocked(t testing.TB, what, like string) {
	t.Helper()
	admin := d.Admin(t) // in a transaction of the test's, the same activity would be seen for ever
	stack.Until(t, what, func() bool {
		return Column[bool](t, admin, `select exists (select from pg_stat_activity
			where datname = current_database() and wait_event_type = 'Lock' and query like $1)`, like)[0]
	})
}
