package queue

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

var ground storagetest.Ground

func TestMain(m *testing.M) { ground.Main(m) }

// A plant is a database of the test's own, and pools that work in it.
type plant struct {
	*storagetest.Database
	ctx   context.Context // acts for a tenant
	queue *Queue
	conf  Config
	log   *slog.Logger
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	p := &plant{
		Database: ground.NewDatabase(t),
		conf:     Config{RetryDelay: 5 * time.Millisecond, BusyDelay: 50 * time.Millisecond, LostAfter: 15 * time.Second},
		log:      slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	p.ctx = p.NewTenant(t, 1<<30)
	var err error
	p.queue, err = New(p.API, p.log)
	stack.Must(t, err)
	return p
}

// run starts a pool and returns what stops it, once running jobs have ended.
func (p *plant) run(t *testing.T, register func(*Pool)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	leases := lease.NewManager(p.Worker, "worker", 5*time.Second, p.log)
	pool := NewPool(p.conf, p.Worker, leases, NewMetrics(prometheus.NewRegistry()), sdktrace.NewTracerProvider(), p.log)
	register(pool)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := leases.During(ctx, pool.Run); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

// arrive makes n uploads of the tenant in ctx, each with its job.
func (p *plant) arrive(t *testing.T, ctx context.Context, n int) {
	t.Helper()
	for range n {
		id := uuid.Must(uuid.NewV7())
		stack.Must(t, p.API.InTenant(ctx, func(tx storage.Tx) error {
			err := tx.CreateUpload(ctx, storage.NewUpload{ID: id, UserID: "ana", Project: "torre", Metadata: map[string]string{}, Size: 1})
			if err != nil {
				return err
			}
			if _, err := tx.MarkUploaded(ctx, id, id.String(), make([]byte, 32)); err != nil {
				return err
			}
			return p.queue.Enqueue(ctx, tx, id)
		}))
	}
}

func (p *plant) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := p.Admin(t).Exec(t.Context(), sql, args...)
	stack.Must(t, err)
}

func (p *plant) count(t *testing.T, sql string, args ...any) (n int) {
	t.Helper()
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func tenantOf(t *testing.T, ctx context.Context) uuid.UUID {
	t.Helper()
	who, err := tenant.From(ctx)
	stack.Must(t, err)
	return who.Tenant
}

// doing is a worker of jobs that do the same.
type doing func(context.Context, *Job) error

func (d doing) Work(ctx context.Context, job *Job) error  { return d(ctx, job) }
func (d doing) Failed(context.Context, *Job, error) error { return nil }
