package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

var shared struct {
	cluster *storagetest.Cluster
	s3      *stack.S3
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
	if shared.cluster, err = storagetest.Start(ctx); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, shared.cluster.Stop()) }()
	if shared.s3, err = stack.StartS3(ctx, stack.S3Config{}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, shared.s3.Stop()) }()
	if err := shared.s3.Setenv(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// A site is what a server decides with, on a database of the test's own.
type site struct {
	*storagetest.Database
	bucket    *object.Bucket
	admission *hooks.Admission
	finisher  *hooks.Finisher
}

const maxSize = 1000 // bytes of an upload

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Database: shared.cluster.NewDatabase(t)}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	var err error
	s.bucket, err = object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: shared.s3.Endpoint(), Name: shared.s3.Bucket()})
	must(t, err)
	q, err := queue.New(s.API, log)
	must(t, err)
	types, err := mediatype.ParsePolicy("image/*,application/pdf")
	must(t, err)
	s.admission = &hooks.Admission{DB: s.API, Policy: hooks.Policy{MaxSize: maxSize, Types: types}, Log: log}
	s.finisher = &hooks.Finisher{DB: s.API, Queue: q, Bucket: s.bucket, Metrics: hooks.NewMetrics(prometheus.NewRegistry()), Log: log}
	return s
}

func as(ctx context.Context, id uuid.UUID, user string, role tenant.Role) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: user, Role: role})
}

func (s *site) upload(t *testing.T, ctx context.Context, id uuid.UUID) (u storage.Upload) {
	t.Helper()
	must(t, s.API.InTenant(ctx, func(tx storage.Tx) (err error) {
		u, err = tx.Upload(ctx, id)
		return err
	}))
	return u
}

func (s *site) room(t *testing.T, ctx context.Context) (room int64) {
	t.Helper()
	must(t, s.API.InTenant(ctx, func(tx storage.Tx) (err error) {
		a, err := tx.Account(ctx)
		room = a.QuotaBytes - a.ChargedBytes
		return err
	}))
	return room
}

func (s *site) count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	must(t, s.Admin(t).QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func (s *site) exec(t *testing.T, sql string) {
	t.Helper()
	_, err := s.Admin(t).Exec(t.Context(), sql)
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
