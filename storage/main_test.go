package storage_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"

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

func as(ctx context.Context, id uuid.UUID) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: "ana", Role: tenant.Empleado})
}

func tenantOf(t *testing.T, ctx context.Context) uuid.UUID {
	t.Helper()
	id, err := tenant.From(ctx)
	stack.Must(t, err)
	return id.Tenant
}

// anUpload is an upload that nothing is special about.
func anUpload(size int64) storage.NewUpload {
	return storage.NewUpload{
		ID: uuid.Must(uuid.NewV7()), UserID: "ana", Project: "torre", Metadata: map[string]string{}, Size: size,
	}
}

// create makes an upload for the tenant in ctx.
func (d *database) create(t *testing.T, ctx context.Context, size int64) uuid.UUID {
	t.Helper()
	n := anUpload(size)
	d.must(t, ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) })
	return n.ID
}

// must runs fn in the tenant of ctx.
func (d *database) must(t *testing.T, ctx context.Context, fn func(storage.Tx) error) {
	t.Helper()
	stack.Must(t, d.API.InTenant(ctx, fn))
}

// upload reads an upload back.
func (d *database) upload(t *testing.T, ctx context.Context, id uuid.UUID) (u storage.Upload) {
	t.Helper()
	d.must(t, ctx, func(tx storage.Tx) (err error) {
		u, err = tx.Upload(ctx, id)
		return err
	})
	return u
}

// room is what the tenant's quota has left.
func (d *database) room(t *testing.T, ctx context.Context) (room int64) {
	t.Helper()
	d.must(t, ctx, func(tx storage.Tx) (err error) {
		a, err := tx.Account(ctx)
		room = a.QuotaBytes - a.ChargedBytes
		return err
	})
	return room
}

// sqlState returns Postgres' code of an error, or "".
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// patience is how long a test waits for what should be a matter of moments, on a busy machine.
const patience = 20 * time.Second

// randomly returns a source of randomness. A failing test prints its seed; TRAMO_TEST_SEED replays it.
func randomly(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("TRAMO_TEST_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		stack.Must(t, err)
	}
	t.Logf("TRAMO_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
