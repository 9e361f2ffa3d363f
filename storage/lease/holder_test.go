package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/test/stack"
)

// A process has an id of its own, and knows when it is registered.
func TestRegistered(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	silent := lease.NewManager(d.Worker, "silent", calmly, stack.Log(t, slog.LevelInfo))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := silent.Registered(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	one := newReplica(t, d, calmly)
	stack.Must(t, one.Registered(t.Context()))
	if silent.Process() == one.Process() {
		t.Error("two processes have one name")
	}
}
