package processing

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// rounds count the passes of all pools.
type rounds struct {
	quick, inventory atomic.Int64
	during           func(ctx context.Context, n int64) error // of the n-th quick pass; may be nil
}

func (r *rounds) Reconcile(ctx context.Context) error {
	n := r.quick.Add(1)
	if r.during == nil {
		return nil
	}
	return r.during(ctx, n)
}

func (r *rounds) TakeInventory(context.Context) error {
	r.inventory.Add(1)
	return nil
}

// Two pools, and a third once they are gone: the quick pass is made again and again, and the inventory once, since it is not
// due again.
func TestRoundsOverPools(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	r := new(rounds)
	p.rounds = Rounds{Reconciler: r, ReconcileEvery: time.Second, InventoryEvery: 300 * 24 * time.Hour}
	stopOne, stopOther := p.run(t), p.run(t)
	await(t, "second quick pass", func() bool { return r.quick.Load() >= 2 })
	await(t, "inventory", func() bool { return r.inventory.Load() > 0 })
	stopOne()
	stopOther()
	// River enqueues what is due at a leader's start in one go, so that the inventory would be there too.
	const newest = `select count(*) from river_job where kind = 'reconcile'`
	before := p.count(t, newest)
	p.run(t)
	await(t, "next leader's second quick pass", func() bool { return p.count(t, newest) >= before+2 })
	if n := p.count(t, `select count(*) from river_job where kind = 'inventory'`); n != 1 || r.inventory.Load() != 1 {
		t.Errorf("%d inventories were enqueued and %d taken", n, r.inventory.Load())
	}
}

// A pass that lasts keeps no upload waiting; one that fails or panics is followed by the next, and is no dead letter.
func TestRoundsApartFromUploads(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.conf.Workers = 1
	processed := make(chan struct{})
	r := &rounds{during: func(ctx context.Context, n int64) error {
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
	p.rounds = Rounds{Reconciler: r, ReconcileEvery: time.Second, InventoryEvery: time.Hour}
	p.run(t)
	await(t, "first pass", func() bool { return r.quick.Load() == 1 })
	content := []byte("fecha;hora\n1;2\n")
	id := p.receive(t, content, content, 1)
	p.await(t, `select status = 'completed' from uploads where id = $1`, id)
	close(processed)
	await(t, "passes after the panic", func() bool { return r.quick.Load() >= 5 })
	b, err := p.Worker.Backlog(t.Context())
	must(t, err)
	if b.Jobs["discarded"] != 0 {
		t.Errorf("%d dead letters are counted", b.Jobs["discarded"])
	}
}
