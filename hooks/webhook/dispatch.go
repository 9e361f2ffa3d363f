package webhook

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
)

const (
	// window is how many deliveries of one endpoint are under way at a time, over all workers. It is far below a worker's
	// slots, so that an endpoint that answers slowly keeps nobody waiting but itself.
	window = 8
	tick   = 500 * time.Millisecond // how soon what was announced is sent
	breath = 50 * time.Millisecond  // between two dispatches of a backlog
	every  = 5 * time.Second        // how often what was lost with its worker is looked for, and what is old is swept
	swept  = 1000                   // announcements at a time
	// grace is how much longer than its request an attempt may take to be recorded. After it the worker is believed dead.
	grace = 15 * time.Second
)

// A Dispatcher turns announcements into deliveries, and deliveries that are due into jobs. Each worker runs one; one at
// a time does something.
type Dispatcher struct {
	conf  SenderConfig
	db    *storage.DB
	queue *queue.Queue
	more  chan struct{} // an attempt has ended, and its endpoint has room for another
	log   *slog.Logger
}

// NewDispatcher makes one on db, whose role must be an operator's.
func NewDispatcher(c SenderConfig, db *storage.DB, q *queue.Queue, log *slog.Logger) *Dispatcher {
	return &Dispatcher{conf: c, db: db, queue: q, more: make(chan struct{}, 1), log: log}
}

// wake has the dispatcher look soon.
func (d *Dispatcher) wake() {
	select {
	case d.more <- struct{}{}:
	default: // it was told
	}
}

// Run dispatches until ctx is done.
func (d *Dispatcher) Run(ctx context.Context) error {
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	var cleaned time.Time
	for {
		if time.Since(cleaned) > every {
			d.note(ctx, d.clean(ctx))
			cleaned = time.Now()
		}
		_, err := d.dispatch(ctx)
		d.note(ctx, err)
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

// note logs what went wrong: the next round tries again.
func (d *Dispatcher) note(ctx context.Context, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		d.log.ErrorContext(ctx, "webhooks wait", slog.Any("err", err))
	}
}

// clean makes due again what a killed worker left, and sweeps.
func (d *Dispatcher) clean(ctx context.Context) error {
	n, err := reclaim(ctx, d.db, d.conf.Timeout+grace)
	if n > 0 {
		d.log.WarnContext(ctx, "deliveries lost their worker and are tried again", slog.Int64("deliveries", n))
	}
	_, sweepErr := sweep(ctx, d.db, d.conf.Retention, swept)
	return errors.Join(err, sweepErr)
}
