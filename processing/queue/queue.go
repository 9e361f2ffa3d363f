// Package queue owns River, the job queue in Postgres: enqueueing, the worker pool, fairness between tenants, attempts and
// their fencing, requeueing the jobs of dead workers, and stopping. Nothing else reads or writes River's tables. It does not
// know what a job does: whoever has work registers a [Worker].
package queue

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"go.opentelemetry.io/otel/propagation"

	"github.com/tramo/tramo/storage"
)

// A Kind of job, as River stores it.
type Kind string

// The kinds of jobs.
const (
	ProcessUpload  Kind = "process_upload"
	RescanUpload   Kind = "rescan_upload"   // scan a completed upload again
	DeliverWebhook Kind = "deliver_webhook" // one attempt at one delivery
	Erase          Kind = "erase"           // remove what is to be removed
	Reconcile      Kind = "reconcile"       // the reconciler's quick pass
	TakeInventory  Kind = "inventory"       // and its long one
	SealAudit      Kind = "seal_audit"      // seal entries of the audit log
)

// MaxAttempts is how often an upload's job is tried.
const MaxAttempts = 3

// kinds says where the jobs of a kind wait, how often they are tried, and how often a process looks for one whose notification
// was lost. Each kind has a queue of its own: jobs of one kind never wait for those of another.
var kinds = map[Kind]struct {
	queue    string
	attempts int
	priority int // River's: 1 comes first, 4 last
	poll     time.Duration
}{
	ProcessUpload:  {river.QueueDefault, MaxAttempts, 1, 250 * time.Millisecond},
	RescanUpload:   {"rescan", MaxAttempts, 4, time.Second},
	DeliverWebhook: {"webhooks", 1, 1, 250 * time.Millisecond}, // the delivery's row says when the next attempt is due
	Erase:          {"erase", 1, 1, time.Second},
	Reconcile:      {"reconcile", 1, 1, time.Second},
	SealAudit:      {"seal_audit", 1, 1, time.Second},
	TakeInventory:  {"inventory", MaxAttempts, 1, time.Second}, // a worker's death costs an attempt, and the next inventory is hours away
}

// Args name what a job is about. They carry ids, never bytes or links.
type Args struct {
	Tenant   uuid.UUID `json:"tenant_id,omitzero"`
	Upload   uuid.UUID `json:"upload_id,omitzero"`
	Delivery uuid.UUID `json:"delivery_id,omitzero"`
	TraceID  string    `json:"trace_id,omitempty"` // of what a delivery announces
}

// riverArgs are Args with the kind, which River asks of them.
type riverArgs struct {
	Args
	kind Kind
}

// Kind implements [river.JobArgs].
func (a riverArgs) Kind() string { return string(a.kind) }

// A Queue takes jobs. Its database role needs INSERT on river_job and nothing more, except for [Queue.EnqueueDeliveries].
type Queue struct {
	client *river.Client[pgx.Tx]
}

// New makes a queue on db.
func New(db *storage.DB, log *slog.Logger) (*Queue, error) {
	client, err := river.NewClient(riverpgxv5.New(db.Pool()), &river.Config{Logger: log})
	if err != nil {
		return nil, fmt.Errorf("open the job queue: %w", err)
	}
	return &Queue{client: client}, nil
}

// Enqueue adds the uploads' processing jobs in the transaction that makes them uploaded. The more uploads of their tenant wait,
// the lower is the jobs' priority. They belong to the trace of ctx.
func (q *Queue) Enqueue(ctx context.Context, tx storage.Tx, uploads ...uuid.UUID) error {
	waiting := CountWaiting(tx)
	if err := storage.Flush(ctx, tx); err != nil {
		return err
	}
	return q.EnqueueBehind(ctx, tx, *waiting, uploads...)
}

// EnqueueBehind is [Queue.Enqueue] where it is known how many of the tenant's uploads wait, with these.
func (q *Queue) EnqueueBehind(ctx context.Context, tx storage.Tx, waiting int, uploads ...uuid.UUID) error {
	return q.insert(ctx, tx, ProcessUpload, priorityOf(waiting), uploads...)
}

// EnqueueRescans adds jobs that scan completed uploads again.
func (q *Queue) EnqueueRescans(ctx context.Context, tx storage.Tx, uploads ...uuid.UUID) error {
	return q.insert(ctx, tx, RescanUpload, 0, uploads...)
}

// EnqueueErase adds an erasing pass, in the transaction that makes something to erase.
func (q *Queue) EnqueueErase(ctx context.Context, tx storage.Tx) error {
	if _, err := q.client.InsertManyFastTx(ctx, tx.Tx, []river.InsertManyParams{params(Erase, Args{})}); err != nil {
		return fmt.Errorf("enqueue an erasing pass: %w", err)
	}
	return nil
}

// EnqueueDeliveries adds jobs that make an attempt at the deliveries and returns the jobs' ids in order.
func (q *Queue) EnqueueDeliveries(ctx context.Context, tx pgx.Tx, deliveries []Args) ([]int64, error) {
	jobs := make([]river.InsertManyParams, len(deliveries))
	for i, d := range deliveries {
		jobs[i] = params(DeliverWebhook, d)
	}
	inserted, err := q.client.InsertManyTx(ctx, tx, jobs)
	if err != nil {
		return nil, fmt.Errorf("enqueue deliveries: %w", err)
	}
	ids := make([]int64, len(inserted))
	for i, one := range inserted {
		ids[i] = one.Job.ID
	}
	return ids, nil
}

// insert adds a job for each upload. The fast insert returns no row, and so needs no right to read other tenants' jobs.
func (q *Queue) insert(ctx context.Context, tx storage.Tx, kind Kind, priority int, uploads ...uuid.UUID) error {
	metadata, err := traceMetadata(ctx)
	if err != nil {
		return err
	}
	jobs := make([]river.InsertManyParams, len(uploads))
	for i, id := range uploads {
		jobs[i] = params(kind, Args{Tenant: tx.Tenant, Upload: id})
		jobs[i].InsertOpts.Metadata = metadata
		jobs[i].InsertOpts.Priority = cmp.Or(priority, jobs[i].InsertOpts.Priority)
	}
	if _, err := q.client.InsertManyFastTx(ctx, tx.Tx, jobs); err != nil {
		return fmt.Errorf("enqueue %s of %v: %w", kind, uploads, err)
	}
	return nil
}

func params(kind Kind, args Args) river.InsertManyParams {
	k := kinds[kind]
	return river.InsertManyParams{
		Args:       riverArgs{args, kind},
		InsertOpts: &river.InsertOpts{Queue: k.queue, MaxAttempts: k.attempts, Priority: k.priority},
	}
}

// traceMetadata returns the metadata of a job that ctx enqueues. They carry the traceparent (W3C Trace Context, section 3.2), so
// that all attempts belong to the trace of the request that enqueued the job.
func traceMetadata(ctx context.Context) ([]byte, error) {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	metadata, err := json.Marshal(carrier)
	if err != nil {
		return nil, fmt.Errorf("encode job metadata: %w", err)
	}
	return metadata, nil
}

// inTrace returns ctx in the trace that a job's metadata name, if they name one.
func inTrace(ctx context.Context, metadata []byte) context.Context {
	var m struct {
		TraceParent string `json:"traceparent"`
		TraceState  string `json:"tracestate"`
	}
	if err := json.Unmarshal(metadata, &m); err != nil {
		return ctx // an operator's own
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": m.TraceParent, "tracestate": m.TraceState})
}
