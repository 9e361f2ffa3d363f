package batch_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

func TestMain(m *testing.M) { hookstest.Main(m) }

// A site has batches.
type site struct {
	*hookstest.Site
	batches *batch.Service
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := hookstest.New(t)
	return &site{s, &batch.Service{
		Config: batch.DefaultConfig(), DB: s.API, Policy: s.Admission.Policy, Queue: s.Queue, Metrics: s.Uploads.Metrics, Log: s.Log,
	}}
}

// in runs fn as the server does.
func (s *site) in(t *testing.T, ctx context.Context, fn func(storage.Tx) error) {
	t.Helper()
	stack.Must(t, s.API.InTenant(ctx, fn))
}

// anUpload is an upload that nothing is special about.
func anUpload(size int64) storage.NewUpload {
	return storage.NewUpload{ID: uuid.Must(uuid.NewV7()), UserID: "ana", Project: "torre", Metadata: map[string]string{}, Size: size}
}

func column[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) []T {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	stack.Must(t, err)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	stack.Must(t, err)
	return values
}

// sqlState returns Postgres' code of an error, or "".
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
