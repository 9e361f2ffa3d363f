package storage

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What features write their own SQL with. A statement in a [Tx] names the tenant as $1, beside row-level security.

// Collect reads all rows of a query into structs by their db tags. It takes the results of Query as they are; doing says
// what for, in an error.
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
	return pgx.BeginTxFunc(ctx, db.pool, pgx.TxOptions{BeginQuery: "begin; " + unlessIdle}, fn)
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
