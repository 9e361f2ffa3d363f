package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// passes count the passes of all pools.
type passes struct {
	quick, inventory atomic.Int64
	during           func(ctx context.Context, n int64) error // of the n-th quick pass; may be nil
}

func (r *passes) Reconcile(ctx context.Context) error {
	n := r.quick.Add(1)
	if r.during == nil {
		return nil
	}
	return r.during(ctx, n)
}

func (r *passes) TakeInventory(context.Context) error {
	r.inventory.Add(1)
	return nil
}

func (r *passes) register(p *Pool, inventoryEvery time.Duration) {
	log := slog.New(slog.DiscardHandler)
	p.Register(Reconcile, Pass(r.Reconcile, log), Options{Workers: 1, Timeout: time.Minute, Every: time.Second})
	p.Register(TakeInventory, Pass(r.TakeInventory, log), Options{Workers: 1, Timeout: time.Minute, Every: inventoryEvery})
}

// Two pools, and a third once they are gone: the quick pass is made again and again, and the inventory once, since it is not
// due again.
func TestPassesOverPools(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	r := new(passes)
	register := func(pool *Pool) { r.register(pool, 300*24*time.Hour) }
	stopOne, stopOther := p.run(t, register), p.run(t, register)
	stack.Until(t, "second quick pass", func() bool { return r.quick.Load() >= 2 })
	stack.Until(t, "inventory", func() bool { return r.inventory.Load() > 0 })
	stopOne()
	stopOther()
	// River enqueues what is due at a leader's start in one go, so that the inventory would be there too.
	const newest = `select count(*) from river_job where kind = 'reconcile'`
	before := p.Count(t, newest)
	p.run(t, register)
	stack.Until(t, "next leader's second quick pass", func() bool { return p.Count(t, newest) >= before+2 })
	if n := p.Count(t, `select count(*) from river_job where kind = 'inventory'`); n != 1 || r.inventory.Load() != 1 {
		t.Errorf("%d inventories were enqueued and %d taken", n, r.inventory.Load())
	}
}

// A pass that lasts keeps no upload waiting; one that fails or panics is followed by the next, and is no dead letter.
func TestPassesApartFromUploads(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	processed := make(chan struct{})
	r := &passes{during: func(ctx context.Context, n int64) error {
		switch n {
		case 1:
			select {
			case <-processed:
			case <-ctx.Done():
			}
		case 2:
			return errors.New("S3 is away")
		case 3:
			panic("a mistake")
		}
		return nil
	}}
	done := make(chan struct{})
	p.run(t, func(pool *Pool) {
		r.register(pool, time.Hour)
		pool.Register(ProcessUpload, doing(func(context.Context, *Job) error {
			close(done)
			return nil
		}), Options{Workers: 1})
	})
	stack.Until(t, "first pass", func() bool { return r.quick.Load() == 1 })
	p.arrive(t, p.ctx, 1)
	stack.Receive(t, "upload's job", done)
	close(processed)
	stack.Until(t, "passes after the panic", func() bool { return r.quick.Load() >= 5 })
	jobs, err := Count(t.Context(), p.Worker)
	stack.Must(t, err)
	if jobs["discarded"] != 0 || len(jobs) != 5 {
		t.Errorf("counted are %v", jobs)
	}
}
