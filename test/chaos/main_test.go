// Package chaos injects every fault that Tramo is to withstand, by a plan that a seed decides, while real tus clients
// upload, and then compares what was promised with what there is. It imports nothing of ours but test/stack.
package chaos

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

var ground stack.Ground

func TestMain(m *testing.M) { ground.Main(m) }

// receipts returns the key that signs the receipts of all runs.
var receipts = sync.OnceValues(func() (seal, error) {
	dir, err := os.MkdirTemp("", "tramo-chaos-*")
	if err != nil {
		return seal{}, err
	}
	ground.AfterAll(func() error { return os.RemoveAll(dir) })
	return newSeal(dir)
})

// A pool lends each run a Postgres of its own, because runs restart it.
type pool struct {
	mu   sync.Mutex
	idle []*stack.Postgres
}

var servers pool

// take returns a server that no other test has until this one ends.
func (p *pool) take(t *testing.T) *stack.Postgres {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		pg := stack.Get(t, func(ctx context.Context) (*stack.Postgres, error) {
			return stack.StartPostgres(ctx, stack.PostgresConfig{})
		})
		ground.AfterAll(pg.Stop)
		p.idle = append(p.idle, pg)
	}
	pg := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.idle = append(p.idle, pg)
	})
	return pg
}
