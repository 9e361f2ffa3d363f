package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"go.opentelemetry.io/otel/trace"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// A Worker does the jobs of one kind. Its methods are called with the job's tenant and trace in the context.
type Worker interface {
	// Work makes one attempt at a job. It may be called again for a job that was done before, by a worker that died or froze;
	// that must change nothing. nil ends the job. [ErrUnavailable] requeues it without costing an attempt; any other error, or
	// a panic, costs one.
	Work(context.Context, *Job) error
	// Failed is told of an attempt that failed, why, and whether the job has another. The cause is Work's error or panic, or
	// [ErrWorkerLost]. It may never be called, if all workers die.
	Failed(context.Context, *Job, error) error
}

var (
	// ErrUnavailable is the error of an attempt that met a dependency that did not answer: nothing is wrong with the job.
	ErrUnavailable = errors.New("dependency unavailable")
	// ErrWorkerLost is why an attempt failed whose process died.
	ErrWorkerLost = errors.New("worker lost")
)

// A Job is one attempt at a job.
type Job struct {
	Kind Kind
	ID   int64
	Args
	Attempt   int  // from 1
	Exhausted bool // this attempt is the last one

	row *river.Job[riverArgs] // nil for an attempt whose worker was lost
}

// Fence locks the job's row until the transaction ends. It returns an error unless this attempt is still the one that runs:
// River does not fence attempts.
func (j *Job) Fence(ctx context.Context, tx storage.Tx) error {
	err := tx.QueryRow(ctx, `select from river_job where id = $1 and state = 'running' and attempt = $2 for update`, j.ID, j.Attempt).Scan()
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("attempt %d of job %d has been superseded", j.Attempt, j.ID)
	}
	return err
}

// Complete ends the job with the transaction.
func (j *Job) Complete(ctx context.Context, tx storage.Tx) error {
	_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx.Tx, j.row)
	return err
}

// recordTime bounds what a worker does about a failed attempt. The job's own time may be over.
const recordTime = 10 * time.Second

// A registration is River's view of a worker.
type registration struct {
	river.WorkerDefaults[riverArgs]
	Options
	pool   *Pool
	kind   Kind
	worker Worker
}

// Timeout implements [river.Worker].
func (r *registration) Timeout(*river.Job[riverArgs]) time.Duration { return r.Options.Timeout }

// Work implements [river.Worker].
func (r *registration) Work(ctx context.Context, row *river.Job[riverArgs]) error {
	began := time.Now().Round(0) // the wall clock, which goes on while the machine sleeps
	err := r.attempt(ctx, row)
	if time.Now().Round(0).Sub(began) < r.pool.conf.LostAfter/2 {
		return err // no other process can have declared this one lost
	}
	return r.pool.waitIfSuperseded(ctx, row.JobRow, err)
}

func (r *registration) attempt(ctx context.Context, row *river.Job[riverArgs]) error {
	p := r.pool
	if r.Every > 0 && time.Since(row.ScheduledAt) > max(r.Every, time.Second) {
		return nil // the next one is due already: passes must not queue up
	}
	ctx, span := p.tracer.Start(inTrace(ctx, row.Metadata), row.Kind, trace.WithSpanKind(trace.SpanKindConsumer))
	defer span.End()
	job := &Job{Kind: r.kind, ID: row.ID, Args: row.Args.Args, Attempt: row.Attempt, Exhausted: row.Attempt >= row.MaxAttempts, row: row}
	ctx = asWorker(ctx, job)
	log := logFor(p.log, job)
	err := withoutPanic(func() error { return r.worker.Work(ctx, job) })
	switch {
	case err == nil:
		return nil
	case p.isStopping(ctx):
		log.InfoContext(ctx, "the worker stops; the job is handed back", slog.Any("err", err))
		p.metrics.requeued.WithLabelValues(requeuedStop).Inc()
		// River requeues a job of a stopped client that says it was cancelled, at once and with all the attempts that it had.
		return fmt.Errorf("the worker stops: %w", context.Canceled)
	case errors.Is(err, ErrUnavailable) && ctx.Err() == nil: // a job that took all of its time would take it again and again
		log.WarnContext(ctx, "a dependency is unavailable; the job waits", slog.Any("err", err))
		p.metrics.requeued.WithLabelValues(requeuedUnavailable).Inc()
		return river.JobSnooze(p.conf.BusyDelay)
	}
	return errors.Join(err, r.failed(ctx, log, job, err))
}

func (r *registration) failed(ctx context.Context, log *slog.Logger, job *Job, cause error) error {
	level := slog.LevelWarn
	if job.Exhausted {
		level = slog.LevelError
	}
	log.Log(ctx, level, "attempt failed", slog.Bool("exhausted", job.Exhausted), slog.Any("err", cause))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	return r.worker.Failed(ctx, job, cause)
}

// withoutPanic turns a panic into an error that has its stack.
func withoutPanic(work func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n\n%s", cause, debug.Stack())
		}
	}()
	return work()
}

// isStopping reports whether ctx, a job's, ended because the pool stops: that is no fault of the job's.
func (p *Pool) isStopping(ctx context.Context) bool {
	return p.stopping.Err() != nil && errors.Is(ctx.Err(), context.Canceled) &&
		!errors.Is(context.Cause(ctx), rivertype.ErrJobCancelledRemotely)
}

// supersededEvery is how often a superseded attempt looks whether its job has ended.
const supersededEvery = time.Second

// waitIfSuperseded keeps an attempt that was wrongly declared lost from ending its job: River looks only at the job's number,
// and so would end, or requeue, the attempt that runs in its place. Such an attempt waits until the job has ended.
func (p *Pool) waitIfSuperseded(ctx context.Context, row *rivertype.JobRow, err error) error {
	tick := time.NewTicker(supersededEvery)
	defer tick.Stop()
	for told := false; ; told = true {
		yes, lookErr := superseded(ctx, p.db, row.ID, row.Attempt)
		switch {
		case lookErr == nil && !yes:
			return err
		case lookErr != nil && !told && ctx.Err() == nil:
			p.log.WarnContext(ctx, "cannot tell whether an attempt was superseded", slog.Int64("job_id", row.ID), slog.Any("err", lookErr))
		case !told:
			p.log.WarnContext(ctx, "an attempt was superseded and waits for its job to end", slog.Int64("job_id", row.ID), slog.Int("attempt", row.Attempt))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("attempt %d of job %d has been superseded", row.Attempt, row.ID)
		}
	}
}

// superseded reports whether a job that has not ended has another attempt, which runs or will.
func superseded(ctx context.Context, db *storage.DB, job int64, attempt int) (yes bool, err error) {
	err = db.Pool().QueryRow(ctx, `
		select exists (
			select from river_job where id = $1 and finalized_at is null and not (state = 'running' and attempt = $2))`,
		job, attempt).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("look whether job %d was superseded: %w", job, err)
	}
	return yes, nil
}

// asWorker makes ctx act for the tenant that the job names.
func asWorker(ctx context.Context, job *Job) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: job.Tenant, User: tenant.Worker, Role: tenant.Admin})
}

func logFor(log *slog.Logger, job *Job) *slog.Logger {
	return log.With(slog.String("kind", string(job.Kind)), slog.Int64("job_id", job.ID), slog.Int("attempt", job.Attempt),
		slog.String("tenant_id", job.Tenant.String()), slog.String("upload_id", job.Upload.String()))
}

// Pass makes a worker of work that is repeated over all tenants. A pass that fails costs no attempt: the next one comes by
// itself.
func Pass(run func(context.Context) error, log *slog.Logger) Worker { return pass{run, log} }

type pass struct {
	run func(context.Context) error
	log *slog.Logger
}

// Work implements [Worker].
func (p pass) Work(ctx context.Context, job *Job) error {
	err := p.run(ctx)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return err // the worker stops
	}
	if err != nil {
		p.log.ErrorContext(ctx, "pass failed", slog.String("kind", string(job.Kind)), slog.Any("err", err))
	}
	return nil
}

// Failed implements [Worker].
func (pass) Failed(context.Context, *Job, error) error { return nil }
