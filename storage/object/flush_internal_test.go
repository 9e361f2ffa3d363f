package object

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/sourcegraph/conc/panics"
)

// A flush that panics has failed, as any other: it lets go of what it holds, and those after it do not wait.
func TestFlushPanics(t *testing.T) {
	t.Parallel()
	w := &writer{Upload: &Upload{store: &Store{log: slog.New(slog.DiscardHandler)}}, flushing: make(chan struct{}, 1)}
	w.multipart.Upload = w.Upload
	w.flushing <- struct{}{}
	f := &flush{writer: w, kind: asPart, numbered: make(chan struct{}), done: make(chan struct{})}
	f.ctx, f.fail = context.WithCancelCause(t.Context())
	f.run() // into a store without a bucket
	<-f.done
	var caught *panics.ErrRecovered
	if !errors.As(f.err, &caught) || !errors.Is(context.Cause(f.ctx), f.err) || len(w.flushing) != 0 {
		t.Errorf("%d flushes in progress, %v", len(w.flushing), f.err)
	}
}
