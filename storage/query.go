package storage

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Helpers for the SQL of features. A statement in a [Tx] names the tenant as $1, in addition to row-level security.

// Collect reads all rows of a query into structs by their db tags. It takes the results of Query; doing begins the text of an
// error.
func Collect[T any](doing string, rows pgx.Rows, err error) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[T])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return found, nil
}

// CollectOne reads the only row of a query, like [Collect]. No row is [ErrNotFound].
func CollectOne[T any](doing string, rows pgx.Rows, err error) (found T, _ error) {
	if err == nil {
		found, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[T])
	}
	if err != nil {
		var zero T
		return zero, fmt.Errorf("%s: %w", doing, OrNotFound(err))
	}
	return found, nil
}

// Exec runs a statement in a transaction or on a pool and returns how many rows it changed. doing begins the text of an error.
func Exec(ctx context.Context, on interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}, doing, sql string, args ...any,
) (changed int64, err error) {
	tag, err := on.Exec(ctx, sql, args...)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", doing, err)
	}
	return tag.RowsAffected(), nil
}

// InTenant is [DB.InTenant] for an fn that returns a value.
func InTenant[T any](ctx context.Context, db *DB, fn func(Tx) (T, error), settings ...Setting) (v T, err error) {
	err = db.InTenant(ctx, func(tx Tx) (err error) {
		v, err = fn(tx)
		return err
	}, settings...)
	return v, err
}

// CollectCounts reads rows of a name and a number, like [Collect].
func CollectCounts[K ~string](doing string, rows pgx.Rows, err error) (map[K]int64, error) {
	counts := make(map[K]int64)
	if err == nil {
		var name K
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error {
			counts[name] = n
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	return counts, nil
}

// FindUploads returns the uploads u, with contents c, that where selects. In it $1 is the tenant, and args begin at $2. It
// may end in an order, a limit and a lock.
func (tx Tx) FindUploads(ctx context.Context, where string, args ...any) ([]Upload, error) {
	rows, err := tx.Query(ctx, SelectUpload+" "+where, append([]any{tx.Tenant}, args...)...)
	return Collect[Upload]("read uploads", rows, err)
}

// PageSize is how many rows a query over all tenants reads at a time.
const PageSize = 500

// Paged yields the items of page after page, each of [PageSize] but the last. next returns the page that follows an item,
// or the first one if that is the zero value.
func Paged[T any](next func(last T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last T
		for {
			items, err := next(last)
			if err != nil {
				yield(last, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if len(items) < PageSize {
				return
			}
			last = items[len(items)-1]
		}
	}
}

// InAllTenants runs fn in a transaction that sees every tenant, and commits unless fn fails. It needs an operator's role.
func (db *DB) InAllTenants(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, beginner{db.pool, nil}, pgx.TxOptions{}, fn)
}

// OrNull returns nil, which becomes null, for a zero value.
func OrNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// OrNotFound turns pgx's "no rows" into [ErrNotFound] and leaves other errors as they are.
func OrNotFound(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// IsUniqueViolation reports whether err is a violation of the unique index or constraint named.
func IsUniqueViolation(err error, name string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "23505" && pgErr.ConstraintName == name
}

// IsText reports whether s can be stored as text.
func IsText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

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

// CountUnended counts the uploads of all tenants that have not ended, by status. It needs an operator's role.
func (db *DB) CountUnended(ctx context.Context) (map[Status]int64, error) {
	rows, err := db.pool.Query(ctx, `
		select s.status, (select count(*) from uploads u where u.status = s.status)
		from unnest(array['pending', 'uploading', 'uploaded', 'processing']) s (status)`)
	return CollectCounts[Status]("count uploads", rows, err)
}
