package storage_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

var ground storagetest.Ground

func TestMain(m *testing.M) { ground.Main(m) }

// A database is a test's own, with what these tests do in it again and again.
type database struct {
	*storagetest.Database
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	return &database{ground.NewDatabase(t)}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	stack.Must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}
