package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/tramo/tramo/storage"
)

const (
	queueName = "webhooks" // apart from that of uploads: neither waits for the other
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

// args name a delivery that a job makes one attempt of.
type args struct {
	TenantID   uuid.UUID `json:"tenant_id"`
	DeliveryID uuid.UUID `json:"delivery_id"`
	TraceID    string    `json:"trace_id,omitempty"` // of what is announced
}

// Kind implements [river.JobArgs].
func (args) Kind() string { return "deliver_webhook" }

// InsertOpts implements [river.JobArgsWithInsertOpts]. A job is one attempt. When the next is due, the delivery's row
// says, whatever became of this one.
func (args) InsertOpts() river.InsertOpts { return river.InsertOpts{Queue: queueName, MaxAttempts: 1} }

// A Dispatcher turns announcements into deliveries, and deliveries that are due into jobs. Each worker runs one; one at
// a time does something.
type Dispatcher struct {
	conf   SenderConfig
	db     *storage.DB
	client *river.Client[pgx.Tx]
	more   chan struct{} // an attempt has ended, and its endpoint has room for another
	log    *slog.Logger
}

// NewDispatcher makes one on db, whose role must be an operator's.
func NewDispatcher(c SenderConfig, db *storage.DB, log *slog.Logger) (*Dispatcher, error) {
	client, err := river.NewClient(riverpgxv5.New(db.Pool()), &river.Config{Logger: log})
	if err != nil {
		return nil, fmt.Errorf("open the job queue: %w", err)
	}
	return &Dispatcher{conf: c, db: db, client: client, more: make(chan struct{}, 1), log: log}, nil
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
		_, err := d.db.DispatchWebhooks(ctx, window, func(tx pgx.Tx, due []storage.DueDelivery) ([]int64, error) {
			return d.enqueue(ctx, tx, due)
		})
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

func (d *Dispatcher) enqueue(ctx context.Context, tx pgx.Tx, due []storage.DueDelivery) ([]int64, error) {
	params := make([]river.InsertManyParams, len(due))
	for i, one := range due {
		a := args{TenantID: one.Tenant, DeliveryID: one.Delivery}
		if one.TraceID != nil {
			a.TraceID = *one.TraceID
		}
		params[i] = river.InsertManyParams{Args: a}
	}
	inserted, err := d.client.InsertManyTx(ctx, tx, params)
	if err != nil {
		return nil, fmt.Errorf("enqueue deliveries: %w", err)
	}
	ids := make([]int64, len(inserted))
	for i, one := range inserted {
		ids[i] = one.Job.ID
	}
	return ids, nil
}

// clean makes due again what a killed worker left, and sweeps.
func (d *Dispatcher) clean(ctx context.Context) error {
	n, err := d.db.ReclaimDeliveries(ctx, d.conf.Timeout+grace)
	if n > 0 {
		d.log.WarnContext(ctx, "deliveries lost their worker and are tried again", slog.Int64("deliveries", n))
	}
	_, sweepErr := d.db.SweepWebhooks(ctx, d.conf.Retention, swept)
	return errors.Join(err, sweepErr)
}
