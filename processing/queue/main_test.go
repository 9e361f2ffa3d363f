package queue

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

var ground storagetest.Ground

func TestMain(m *testing.M) { ground.Main(m) }

// A fixture is a database of the test's own, and pools that work in it.
type fixture struct {
	*storagetest.Database
	ctx   context.Context // acts for a tenant
	queue *Queue
	conf  Config
	log   *slog.Logger
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	p := &fixture{
		Database: ground.NewDatabase(t),
		conf:     Config{RetryDelay: 5 * time.Millisecond, BusyDelay: 50 * time.Millisecond, LostAfter: 15 * time.Second},
		log:      stack.Log(t, slog.LevelWarn),
	}
	p.ctx = p.NewTenant(t, 1<<30)
	var err error
	p.queue, err = New(p.API, p.log)
	stack.Must(t, err)
	return p
}

// run starts a pool and returns what stops it, once running jobs have ended.
func (p *fixture) run(t *testing.T, register func(*Pool)) (stop func()) {
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
		stack.Receive(t, "end of the pool", ended)
	}
	t.Cleanup(stop)
	return stop
}

// arrive makes n uploads of the tenant in ctx, each with its job.
func (p *fixture) arrive(t *testing.T, ctx context.Context, n int) {
	t.Helper()
	for range n {
		id := p.Create(t, ctx, 1)
		p.Must(t, ctx, func(tx storage.Tx) error {
			if _, err := tx.MarkUploaded(ctx, id, id.String(), make([]byte, 32)); err != nil {
				return err
			}
			return p.queue.Enqueue(ctx, tx, id)
		})
	}
}

// doing is a worker of jobs that do the same.
type doing func(context.Context, *Job) error

func (d doing) Work(ctx context.Context, job *Job) error  { return d(ctx, job) }
func (d doing) Failed(context.Context, *Job, error) error { return nil }
