package processing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"

	"github.com/tramo/tramo/storage"
)

// An Eraser removes for good what is to go. A pass may be called by several workers at once, and may come again at any
// time after one that was cut off.
type Eraser interface {
	Erase(ctx context.Context) error
}

// Erasing says how often a pool has an eraser make its pass, besides when somebody has asked for an erasure.
type Erasing struct {
	Eraser Eraser        // nil for none
	Every  time.Duration // at least a second
}

// Validate reports what is wrong with e.
func (e Erasing) Validate() error {
	if e.Every < time.Second {
		return errors.New("the interval must be a second or more")
	}
	return nil
}

const (
	eraseQueue = "erase"
	// A pass that takes longer is cut off, and the next one goes on.
	eraseTimeout = time.Hour
)

// eraseArgs name nothing: what is to go stands in the rows.
type eraseArgs struct{}

// Kind implements [river.JobArgs].
func (eraseArgs) Kind() string { return "erase" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (eraseArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: eraseQueue, MaxAttempts: 1}
}

// EnqueueErase has a pass made soon, in the transaction that makes something to erase.
func (q *Queue) EnqueueErase(ctx context.Context, tx storage.Tx) error {
	if _, err := q.client.InsertManyFastTx(ctx, tx.Tx, []river.InsertManyParams{{Args: eraseArgs{}}}); err != nil {
		return fmt.Errorf("enqueue an erasing pass: %w", err)
	}
	return nil
}

// join adds what erasing needs to a pool's workers and queues and returns what River's leader enqueues.
func (e Erasing) join(workers *river.Workers, queues map[string]river.QueueConfig, log *slog.Logger) []*river.PeriodicJob {
	if e.Eraser == nil {
		return nil
	}
	river.AddWorker(workers, &passWorker[eraseArgs]{run: e.Eraser.Erase, every: e.Every, timeout: eraseTimeout, log: log})
	queues[eraseQueue] = river.QueueConfig{MaxWorkers: 1, FetchPollInterval: time.Second}
	return []*river.PeriodicJob{river.NewPeriodicJob(river.PeriodicInterval(e.Every), func() (river.JobArgs, *river.InsertOpts) {
		return eraseArgs{}, nil
	}, &river.PeriodicJobOpts{RunOnStart: true})}
}
