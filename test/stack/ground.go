package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// A Ground is what the tests of one package share: a Postgres, an S3 server, a clamd and the built programs. Each starts
// when a test first asks for it, and all stop after the last test. The zero Ground is ready for use.
//
//	var ground stack.Ground
//
//	func TestMain(m *testing.M) { ground.Main(m) }
//
//	func TestUpload(t *testing.T) { postgres := stack.Get(t, ground.Postgres) ... }
type Ground struct {
	// Known returns what the shared clamd finds, see [ClamdConfig]; nil for clamd's default.
	Known func() map[string][]byte

	mu       sync.Mutex
	postgres *Postgres
	s3       *S3
	clamd    *Clamd
	programs *Binaries
	stops    []func() error
}

// startTimeout bounds the start of one part of a Ground.
const startTimeout = 3 * time.Minute

// Main runs the tests, stops what they have started, and ends the process.
func (g *Ground) Main(m *testing.M) {
	code := m.Run()
	if err := g.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// Get returns a part of a Ground and fails the test if the part does not start.
func Get[T any](t testing.TB, part func(context.Context) (T, error)) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	v, err := part(ctx)
	Must(t, err)
	return v
}

// Stop stops the parts, the newest first. It may be called twice.
func (g *Ground) Stop() (err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.stops) > 0 {
		last := len(g.stops) - 1
		err = errors.Join(err, g.stops[last]())
		g.stops = g.stops[:last]
	}
	return err
}

// AfterAll has Stop call stop, before it stops what was started earlier.
func (g *Ground) AfterAll(stop func() error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stops = append(g.stops, stop)
}

// Postgres returns the shared server.
func (g *Ground) Postgres(ctx context.Context) (*Postgres, error) {
	return share(g, &g.postgres, func() (*Postgres, error) { return StartPostgres(ctx, PostgresConfig{}) }, (*Postgres).Stop)
}

// S3 returns the shared server, whose credentials are in this process's environment. versitygw allows one a process, and
// its start moves the working directory: find files of the repository by [RepoRoot].
func (g *Ground) S3(ctx context.Context) (*S3, error) {
	return share(g, &g.s3, func() (*S3, error) {
		s, err := StartS3(ctx, S3Config{})
		if err != nil {
			return nil, err
		}
		return s, s.Setenv()
	}, (*S3).Stop)
}

// Clamd returns the shared clamd.
func (g *Ground) Clamd(ctx context.Context) (*Clamd, error) {
	return share(g, &g.clamd, func() (*Clamd, error) {
		var c ClamdConfig
		if g.Known != nil {
			c.Known = g.Known()
		}
		return StartClamd(ctx, c)
	}, (*Clamd).Stop)
}

// Programs returns all programs below cmd/, see [Build].
func (g *Ground) Programs(ctx context.Context) (*Binaries, error) {
	return share(g, &g.programs, func() (*Binaries, error) { return Build(ctx, "tramo", "tramo-worker", "tramo-dev") }, (*Binaries).Remove)
}

// share starts what is not there yet, once.
func share[T any](g *Ground, at **T, start func() (*T, error), stop func(*T) error) (*T, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if *at != nil {
		return *at, nil
	}
	v, err := start()
	if v != nil {
		g.stops = append(g.stops, func() error { *at = nil; return stop(v) })
	}
	if err != nil {
		return nil, err
	}
	*at = v
	return v, nil
}
