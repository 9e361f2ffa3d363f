package processing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
)

// A Reconciler finds and repairs what got stuck. Its passes may be called by several workers at once, and a call may
// come again at any time after one that was cut off.
type Reconciler interface {
	// Reconcile makes the quick pass: over rows, and over what S3 knows to be unfinished.
	Reconcile(ctx context.Context) error
	// TakeInventory makes the long pass: over all uploads and all objects.
	TakeInventory(ctx context.Context) error
}

// Rounds say how often a pool has a reconciler make its passes: one of a kind at a time over all workers.
type Rounds struct {
	Reconciler     Reconciler    // nil for none
	ReconcileEvery time.Duration // at least a second
	InventoryEvery time.Duration // at least a second
}

// Validate reports what is wrong with r.
func (r Rounds) Validate() error {
	if r.ReconcileEvery < time.Second || r.InventoryEvery < time.Second {
		return errors.New("intervals must be a second or more")
	}
	return nil
}

// Each pass has a queue of its own, apart from that of uploads: neither an upload nor the other pass waits for it.
const (
	reconcileQueue = "reconcile"
	inventoryQueue = "inventory"
	// A pass that takes longer lost its worker, and what it did not come to is the next one's.
	reconcileTimeout = 10 * time.Minute
	inventoryTimeout = 6 * time.Hour
)

type reconcileArgs struct{}

// Kind implements [river.JobArgs].
func (reconcileArgs) Kind() string { return "reconcile" }

type inventoryArgs struct{}

// Kind implements [river.JobArgs].
func (inventoryArgs) Kind() string { return "inventory" }

// join adds what the rounds need to a pool's workers and queues and returns what River's leader enqueues.
func (r Rounds) join(workers *river.Workers, queues map[string]river.QueueConfig, log *slog.Logger) []*river.PeriodicJob {
	if r.Reconciler == nil {
		return nil
	}
	river.AddWorker(workers, &passWorker[reconcileArgs]{run: r.Reconciler.Reconcile, every: r.ReconcileEvery, timeout: reconcileTimeout, log: log})
	river.AddWorker(workers, &passWorker[inventoryArgs]{run: r.Reconciler.TakeInventory, every: r.InventoryEvery, timeout: inventoryTimeout, log: log})
	one := river.QueueConfig{MaxWorkers: 1, FetchPollInterval: time.Second}
	queues[reconcileQueue], queues[inventoryQueue] = one, one
	now := &river.PeriodicJobOpts{RunOnStart: true}
	return []*river.PeriodicJob{
		river.NewPeriodicJob(river.PeriodicInterval(r.ReconcileEvery), func() (river.JobArgs, *river.InsertOpts) {
			return reconcileArgs{}, &river.InsertOpts{Queue: reconcileQueue, MaxAttempts: 1}
		}, now),
		river.NewPeriodicJob(river.PeriodicInterval(r.InventoryEvery), func() (river.JobArgs, *river.InsertOpts) {
			// A new leader begins at once; within one interval that is enough once.
			return inventoryArgs{}, &river.InsertOpts{
				// A worker's death costs an attempt, and the next inventory is hours away.
				Queue: inventoryQueue, MaxAttempts: MaxAttempts, UniqueOpts: river.UniqueOpts{ByPeriod: r.InventoryEvery},
			}
		}, now),
	}
}

// passWorker is River's view of one kind of pass.
type passWorker[A river.JobArgs] struct {
	river.WorkerDefaults[A]
	run     func(context.Context) error
	every   time.Duration
	timeout time.Duration
	log     *slog.Logger
}

// Timeout implements [river.Worker].
func (w *passWorker[A]) Timeout(*river.Job[A]) time.Duration { return w.timeout }

// Work implements [river.Worker]. What fails is no dead letter: the next pass comes by itself. A job that had to wait for
// longer than that is late by more than one pass, and left out, so that passes never queue up. One that is cut off because
// the worker stops is handed back.
func (w *passWorker[A]) Work(ctx context.Context, job *river.Job[A]) error {
	if time.Since(job.ScheduledAt) > max(w.every, time.Second) {
		return nil
	}
	err := w.run(ctx)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("the worker stops: %w", context.Canceled)
	}
	if err != nil {
		w.log.ErrorContext(ctx, "reconciling failed", slog.String("pass", job.Kind), slog.Any("err", err))
	}
	return nil
}
