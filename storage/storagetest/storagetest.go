// Package storagetest gives each test a migrated database of its own, in a cluster that a package's tests
// share. It knows roles and tenants; what the rows are is the test's business.
package storagetest

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// template is migrated once; each test works in a copy of it.
const template = "tramo_template"

// A Ground is a [stack.Ground] with a migrated template. Each package with tests on a database has one:
//
//	var ground storagetest.Ground
//
//	func TestMain(m *testing.M) { ground.Main(m) }
type Ground struct {
	stack.Ground

	mu          sync.Mutex
	hasTemplate bool
}

// NewDatabase makes a database. What is opened in it is closed when the test ends.
func (g *Ground) NewDatabase(t testing.TB) *Database {
	t.Helper()
	return newDatabase(t, stack.Get(t, g.migrated))
}

func (g *Ground) migrated(ctx context.Context) (*stack.Postgres, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	postgres, err := g.Postgres(ctx)
	if err != nil || g.hasTemplate {
		return postgres, err
	}
	if err := migrate(ctx, postgres); err != nil {
		return nil, err
	}
	g.hasTemplate = true
	return postgres, nil
}

// Alone starts a Postgres that only this test uses, and may break, and makes a database in it.
func Alone(t testing.TB, c stack.PostgresConfig) (*Database, *stack.Postgres) {
	t.Helper()
	postgres, err := stack.StartPostgres(t.Context(), c)
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, postgres.Stop()) })
	stack.Must(t, migrate(t.Context(), postgres))
	return newDatabase(t, postgres), postgres
}

func migrate(ctx context.Context, postgres *stack.Postgres) error {
	if err := postgres.CreateDatabase(ctx, template, ""); err != nil {
		return err
	}
	return storage.Migrate(ctx, storage.Config{URL: telemetry.Secret(postgres.URL("postgres", template))}, storage.Passwords{})
}

// A Database is a test's own copy of the template, seen by the server's role, which row-level security
// binds, and by the workers', which it does not.
type Database struct {
	Name        string
	API, Worker *storage.DB

	postgres *stack.Postgres
}

func newDatabase(t testing.TB, postgres *stack.Postgres) *Database {
	t.Helper()
	d := &Database{Name: "t_" + strings.ReplaceAll(uuid.NewString(), "-", ""), postgres: postgres}
	stack.Must(t, postgres.CreateDatabase(t.Context(), d.Name, template))
	d.API, d.Worker = d.As(t, "tramo_api"), d.As(t, "tramo_worker")
	return d
}

// URL is the database's address for a role.
func (d *Database) URL(role string) string { return d.postgres.URL(role, d.Name) }

// As opens the database for a role, with a pool of its own.
func (d *Database) As(t testing.TB, role string) *storage.DB {
	t.Helper()
	db, err := storage.Open(t.Context(), storage.Config{URL: telemetry.Secret(d.URL(role))})
	stack.Must(t, err)
	t.Cleanup(db.Close)
	return db
}

// Admin opens a connection of the superuser's.
func (d *Database) Admin(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.URL("postgres"))
	stack.Must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// NewTenant makes a tenant with a quota in bytes and returns a context that acts for ana, an employee of it.
func (d *Database) NewTenant(t testing.TB, quota int64) context.Context {
	t.Helper()
	id, created, err := d.Worker.CreateTenant(t.Context(), uuid.NewString(), quota)
	stack.Must(t, err)
	if !created {
		t.Fatal("the tenant was there before")
	}
	return tenant.With(t.Context(), tenant.Identity{Tenant: id, User: "ana", Role: tenant.Empleado})
}
