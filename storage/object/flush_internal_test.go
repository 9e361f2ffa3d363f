package object

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"testing"

	"github.com/sourcegraph/conc/panics"
)

// A flush that panics has failed, as any other: it lets go of what it holds, and those after it do not wait.
func TestFlushPanics(t *testing.T) {
	t.Parallel()
	w := &writer{
		Upload: &Upload{store: &Store{log: slog.New(slog.DiscardHandler)}}, flushing: make(chan struct{}, 1), hash: sha256.New(),
	}
	w.multipart.Upload = w.Upload
	w.flushing <- struct{}{}
	f := &flush{writer: w, kind: asPart, numbered: make(chan struct{}), hashed: make(chan struct{}), done: make(chan struct{})}
	f.ctx, f.fail = context.WithCancelCause(t.Context())
	f.digest()
	f.run() // into a store without a bucket
	<-f.done
	var caught *panics.ErrRecovered
	if !errors.As(f.err, &caught) || !errors.Is(context.Cause(f.ctx), f.err) || len(w.flushing) != 0 {
		t.Errorf("%d flushes in progress, %v", len(w.flushing), f.err)
	}
}

// Bytes that could not be hashed do not count, and neither do those after them: their sum would be another file's.
func TestFlushUnhashed(t *testing.T) {
	t.Parallel()
	w := &writer{Upload: &Upload{}, hash: sha256.New()}
	lost := &flush{writer: w, hashed: make(chan struct{})}
	lost.bytes = run{extents: []extent{{end: 1}}, size: 1} // on a disk that is gone
	next := &flush{writer: w, hashed: make(chan struct{}), before: lost, bytes: *runOf([]byte("x"))}
	lost.digest()
	next.digest()
	if lost.unhashed == nil || !errors.Is(next.unhashed, lost.unhashed) || next.state != nil {
		t.Errorf("got %v, then %v", lost.unhashed, next.unhashed)
	}
}
