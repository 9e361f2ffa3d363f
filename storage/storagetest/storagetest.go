// Package storagetest gives each test a migrated database of its own, in a cluster that a package's tests
// share. It knows roles and tenants; what the rows are is the test's business.
package storagetest

import (
	"context"
	"errors"
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

	mu      sync.Mutex
	cluster *Cluster
}

// NewDatabase makes a database. What is opened in it is closed when the test ends.
func (g *Ground) NewDatabase(t testing.TB) *Database {
	t.Helper()
	return stack.Get(t, g.migrated).NewDatabase(t)
}

func (g *Ground) migrated(ctx context.Context) (*Cluster, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cluster != nil {
		return g.cluster, nil
	}
	postgres, err := g.Postgres(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{postgres}
	if err := c.migrate(ctx); err != nil {
		return nil, err
	}
	g.cluster = c
	return c, nil
}

// A Cluster is a private Postgres with a migrated template. TestMain starts one and stops it.
type Cluster struct {
	*stack.Postgres
}

// Start starts a cluster and migrates its template.
func Start(ctx context.Context) (*Cluster, error) {
	postgres, err := stack.StartPostgres(ctx, stack.PostgresConfig{})
	if err != nil {
		return nil, err
	}
	c := &Cluster{postgres}
	if err := c.migrate(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) migrate(ctx context.Context) error {
	if err := c.CreateDatabase(ctx, template, ""); err != nil {
		return err
	}
	return storage.Migrate(ctx, storage.Config{URL: telemetry.Secret(c.URL("postgres", template))}, storage.Passwords{})
}

// A Database is a test's own copy of the template, seen by the server's role, which row-level security
// binds, and by the workers', which it does not.
type Database struct {
	Name        string
	API, Worker *storage.DB

	cluster *Cluster
}

// NewDatabase makes a database. What is opened in it is closed when the test ends.
func (c *Cluster) NewDatabase(t testing.TB) *Database {
	t.Helper()
	d := &Database{Name: "t_" + strings.ReplaceAll(uuid.NewString(), "-", ""), cluster: c}
	must(t, c.CreateDatabase(t.Context(), d.Name, template))
	d.API, d.Worker = d.As(t, "tramo_api"), d.As(t, "tramo_worker")
	return d
}

// As opens the database for a role, with a pool of its own.
func (d *Database) As(t testing.TB, role string) *storage.DB {
	t.Helper()
	db, err := storage.Open(t.Context(), storage.Config{URL: telemetry.Secret(d.cluster.URL(role, d.Name))})
	must(t, err)
	t.Cleanup(db.Close)
	return db
}

// Admin opens a connection of the superuser's.
func (d *Database) Admin(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.cluster.URL("postgres", d.Name))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// NewTenant makes a tenant with a quota in bytes and returns a context that acts for ana, an employee of it.
func (d *Database) NewTenant(t testing.TB, quota int64) context.Context {
	t.Helper()
	id, created, err := d.Worker.CreateTenant(t.Context(), uuid.NewString(), quota)
	must(t, err)
	if !created {
		t.Fatal("the tenant was there before")
	}
	return tenant.With(t.Context(), tenant.Identity{Tenant: id, User: "ana", Role: tenant.Empleado})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
