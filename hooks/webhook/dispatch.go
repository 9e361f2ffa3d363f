package webhook

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sourcegraph/conc/panics"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
)

const (
	// window is how many deliveries of one endpoint are in progress at a time, over all workers. It is far below the concurrency of one
	// worker, so that an endpoint that answers slowly delays only its own deliveries.
	window = 8
	tick   = 500 * time.Millisecond // how soon an announcement is sent
	breath = 50 * time.Millisecond  // between two dispatches of a backlog
	every  = 5 * time.Second        // how often deliveries of dead workers are reclaimed, and old announcements deleted
	swept  = 1000                   // announcements at a time
	// grace is how long recording an attempt may take after its request. Then the worker counts as dead.
	grace = 15 * time.Second
)

// A Dispatcher turns announcements into deliveries, and due deliveries into jobs. Each worker has one; one of them is active at a
// time.
type Dispatcher struct {
	conf  SenderConfig
	db    *storage.DB
	queue *queue.Queue
	more  chan struct{} // an attempt has ended, so that its endpoint can get another
	log   *slog.Logger
}

// NewDispatcher makes one on db, whose role must be an operator's.
func NewDispatcher(c SenderConfig, db *storage.DB, q *queue.Queue, log *slog.Logger) *Dispatcher {
	return &Dispatcher{conf: c, db: db, queue: q, more: make(chan struct{}, 1), log: log}
}

// wake makes the dispatcher look for due deliveries soon.
func (d *Dispatcher) wake() {
	select {
	case d.more <- struct{}{}:
	default: // it was woken already
	}
}

// Run dispatches until ctx is done.
func (d *Dispatcher) Run(ctx context.Context) error {
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	var cleaned time.Time
	for {
		if time.Since(cleaned) > every {
			d.note(ctx, d.clean)
			cleaned = time.Now()
		}
		d.note(ctx, func(ctx context.Context) error {
			_, err := d.dispatch(ctx)
			return err
		})
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(breath):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		case <-d.more:
		}
	}
}

// note logs an error, or a panic: the next round tries again.
func (d *Dispatcher) note(ctx context.Context, do func(context.Context) error) {
	var err error
	if p := panics.Try(func() { err = do(ctx) }); p != nil {
		err = p.AsError()
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		d.log.ErrorContext(ctx, "webhooks not dispatched", slog.Any("err", err))
	}
}

// clean reclaims the deliveries of dead workers, and deletes old announcements.
func (d *Dispatcher) clean(ctx context.Context) error {
	n, err := reclaim(ctx, d.db, d.conf.Timeout+grace)
	if n > 0 {
		d.log.WarnContext(ctx, "deliveries lost their worker and are tried again", slog.Int64("deliveries", n))
	}
	_, sweepErr := sweep(ctx, d.db, d.conf.Retention, swept)
	return errors.Join(err, sweepErr)
}
