// Package chaos breaks Tramo in every way that it says it withstands, by a plan that a seed decides, while real tus clients
// upload, and then compares what was promised with what there is. It imports nothing of ours but test/stack.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// shared is what all runs have in common; versitygw allows one server a process.
var shared struct {
	s3   *stack.S3
	bin  *stack.Binaries
	seal seal

	mu    sync.Mutex
	free  []*ground
	every []*ground
}

// A ground is a Postgres of its own for one run at a time, because runs restart it.
type ground struct{ postgres *stack.Postgres }

// template is the migrated database that each run copies.
const template = "migrated"

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	defer func() { err = errors.Join(err, leave()) }()
	if shared.bin, err = stack.Build(ctx, "tramo"); err != nil {
		return 1, err
	}
	if shared.s3, err = stack.StartS3(ctx, stack.S3Config{}); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "tramo-chaos-*")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if shared.seal, err = newSeal(dir); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func leave() (err error) {
	for _, g := range shared.every {
		err = errors.Join(err, g.postgres.Stop())
	}
	if shared.s3 != nil {
		err = errors.Join(err, shared.s3.Stop())
	}
	if shared.bin != nil {
		err = errors.Join(err, shared.bin.Remove())
	}
	return err
}

// takeGround returns a ground that nobody else has until the test ends.
func takeGround(t *testing.T) *ground {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if n := len(shared.free); n > 0 {
		g := shared.free[n-1]
		shared.free = shared.free[:n-1]
		t.Cleanup(g.release)
		return g
	}
	g, err := newGround(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shared.every = append(shared.every, g)
	t.Cleanup(g.release)
	return g
}

func (g *ground) release() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.free = append(shared.free, g)
}

func newGround(ctx context.Context) (*ground, error) {
	postgres, err := stack.StartPostgres(ctx, stack.PostgresConfig{})
	if err != nil {
		return nil, err
	}
	g := &ground{postgres}
	if err := postgres.CreateDatabase(ctx, template, "template0"); err != nil {
		return nil, errors.Join(err, postgres.Stop())
	}
	_, err = stack.Run(ctx, stack.ProcessConfig{
		Path: shared.bin.Path("tramo"), Args: []string{"migrate"},
		Env: stack.CleanEnv("TRAMO_DATABASE_URL=" + postgres.URL("postgres", template)),
	})
	if err != nil {
		return nil, errors.Join(err, postgres.Stop())
	}
	return g, nil
}
