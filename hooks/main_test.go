package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

const template = "tramo_template" // migrated once; each test works in a copy of it

var shared struct {
	postgres *stack.Postgres
	s3       *stack.S3
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	pg, err := stack.StartPostgres(ctx, stack.PostgresConfig{})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, pg.Stop()) }()
	if err := pg.CreateDatabase(ctx, template, ""); err != nil {
		return 1, err
	}
	if err := storage.Migrate(ctx, storage.Config{URL: pg.URL("postgres", template)}, storage.Passwords{}); err != nil {
		return 1, err
	}
	server, err := stack.StartS3(ctx, stack.S3Config{})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	for _, kv := range server.Env() {
		k, v, _ := strings.Cut(kv, "=")
		if err := os.Setenv(k, v); err != nil {
			return 1, err
		}
	}
	shared.postgres, shared.s3 = pg, server
	return m.Run(), nil
}

// A site is what a server decides with, on a database of the test's own.
type site struct {
	name      string // of the database
	db        *storage.DB
	worker    *storage.DB
	bucket    *object.Bucket
	admission *hooks.Admission
	finisher  *hooks.Finisher
}

const maxSize = 1000 // bytes of an upload

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{name: "t_" + strings.ReplaceAll(uuid.NewString(), "-", "")}
	must(t, shared.postgres.CreateDatabase(t.Context(), s.name, template))
	open := func(role string) *storage.DB {
		db, err := storage.Open(t.Context(), storage.Config{URL: shared.postgres.URL(role, s.name)})
		must(t, err)
		t.Cleanup(db.Close)
		return db
	}
	s.db, s.worker = open("tramo_api"), open("tramo_worker")
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	var err error
	s.bucket, err = object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: shared.s3.Endpoint(), Name: shared.s3.Bucket()})
	must(t, err)
	queue, err := processing.NewQueue(s.db, log)
	must(t, err)
	types, err := processing.ParseTypeList("image/*,application/pdf")
	must(t, err)
	s.admission = &hooks.Admission{DB: s.db, Policy: hooks.Policy{MaxSize: maxSize, Types: types}, Log: log}
	s.finisher = &hooks.Finisher{DB: s.db, Queue: queue, Bucket: s.bucket, Metrics: hooks.NewMetrics(prometheus.NewRegistry()), Log: log}
	return s
}

// newTenant returns a context that acts for a user of a new tenant's.
func (s *site) newTenant(t *testing.T, quota int64) context.Context {
	t.Helper()
	id, _, err := s.worker.CreateTenant(t.Context(), uuid.NewString(), quota)
	must(t, err)
	return as(t.Context(), id, "ana", tenant.Empleado)
}

func as(ctx context.Context, id uuid.UUID, user string, role tenant.Role) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: user, Role: role})
}

func (s *site) upload(t *testing.T, ctx context.Context, id uuid.UUID) (u storage.Upload) {
	t.Helper()
	must(t, s.db.InTenant(ctx, func(tx storage.Tx) (err error) {
		u, err = tx.Upload(ctx, id)
		return err
	}))
	return u
}

func (s *site) room(t *testing.T, ctx context.Context) (room int64) {
	t.Helper()
	must(t, s.db.InTenant(ctx, func(tx storage.Tx) (err error) {
		room, _, err = tx.Room(ctx)
		return err
	}))
	return room
}

// admin is a connection of the superuser's.
func (s *site) admin(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), shared.postgres.URL("postgres", s.name))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (s *site) count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	must(t, s.admin(t).QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func (s *site) exec(t *testing.T, sql string) {
	t.Helper()
	_, err := s.admin(t).Exec(t.Context(), sql)
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}
