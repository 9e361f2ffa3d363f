package processing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"go.opentelemetry.io/otel/trace"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
)

// How the pool works its queue.
const (
	jobTimeout    = 5 * time.Minute // longer than a download, ScanReply and an examination take together
	rescueMargin  = time.Minute     // a job that has run for so much longer has been forgotten by its worker
	buryTime      = 10 * time.Second
	fetchCooldown = 20 * time.Millisecond
	pollInterval  = 250 * time.Millisecond // covers a lost notification
	stopTime      = 20 * time.Second       // running jobs get this long when the pool stops, by default
	lastTime      = 5 * time.Second        // and then so long to be handed back
	keepDead      = 90 * 24 * time.Hour    // how long the jobs of dead letters are kept
)

// ScanReply is how long the pool waits for clamd's verdict once it has everything. It is above clamd's own
// MaxScanTime, two minutes by default, and leaves a job the time to be recorded.
const ScanReply = 150 * time.Second

// PoolConfig shapes a Pool.
type PoolConfig struct {
	Workers    int           // jobs at a time
	Why        string        // so many, for the log
	RetryDelay time.Duration // before the second attempt; later ones wait six times as long each
	BusyDelay  time.Duration // before a job that met a silent dependency is tried again
	LostAfter  time.Duration // for how long a worker must be silent until its jobs are put back
	JobTimeout time.Duration // of an upload's job; 5 min
	StopTime   time.Duration // running jobs get this long when the pool stops; 20 s
}

// Validate reports what is wrong with c.
func (c PoolConfig) Validate() error {
	if c.Workers < 1 || c.RetryDelay <= 0 || c.BusyDelay <= 0 || c.StopTime < 0 || c.JobTimeout < 0 {
		return errors.New("workers and delays must be more than 0")
	}
	if c.LostAfter < time.Second {
		return errors.New("workers must be silent for a second or more")
	}
	return nil
}

// A Sideline is other work that a pool does, in queues of its own: uploads do not wait for it, nor it for them.
type Sideline interface {
	// Join adds to the pool's workers and queues.
	Join(*river.Workers, map[string]river.QueueConfig)
}

// A Pool works jobs until it is told to stop.
type Pool struct {
	PoolConfig
	Rounds    Rounds     // what the pool does besides; nothing, if it has no reconciler
	Sidelines []Sideline // and what else
	Erasing   Erasing    // and what it removes; nothing, if it has no eraser

	// Leases say that this process lives, and so whose jobs are lost. Without them only River's own rescue is there.
	Leases *lease.Manager

	stopping context.Context // of Run
	db       *storage.DB
	pipeline *Pipeline
	metrics  *Metrics
	tracer   trace.Tracer
	log      *slog.Logger
}

// NewPool makes a pool that takes its jobs from db.
func NewPool(c PoolConfig, db *storage.DB, p *Pipeline, m *Metrics, tracers trace.TracerProvider, log *slog.Logger) *Pool {
	return &Pool{PoolConfig: c, db: db, pipeline: p, metrics: m, tracer: tracers.Tracer("github.com/tramo/tramo/processing"), log: log}
}

// Run works jobs until ctx is done, then lets running ones finish for a while; those that do not are worked
// again by another worker.
func (p *Pool) Run(ctx context.Context) error {
	p.stopping = ctx
	timeout, grace := cmp.Or(p.JobTimeout, jobTimeout), cmp.Or(p.StopTime, stopTime)
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{pool: p})
	queues := map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: p.Workers}}
	for _, s := range p.Sidelines {
		s.Join(workers, queues)
	}
	periodic := append(p.Rounds.join(workers, queues, p.log), p.Erasing.join(workers, queues, p.log)...)
	config := &river.Config{
		Queues:                      queues,
		PeriodicJobs:                periodic,
		Workers:                     workers,
		Logger:                      p.log,
		JobTimeout:                  timeout,
		RescueStuckJobsAfter:        timeout + rescueMargin,
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           pollInterval,
		DiscardedJobRetentionPeriod: keepDead,
		RetryPolicy:                 retryPolicy{p.RetryDelay},
		SoftStopTimeout:             grace,
		ErrorHandler:                &undertaker{pool: p},
	}
	if p.Leases != nil {
		if err := p.Leases.Enlisted(ctx); err != nil {
			return nil // told to stop before anything began
		}
		config.ID = p.Leases.Worker()
		config.Middleware = []rivertype.Middleware{&standDown{pool: p}}
	}
	client, err := river.NewClient(riverpgxv5.New(p.db.Pool()), config)
	if err != nil {
		return fmt.Errorf("open the job queue: %w", err)
	}
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start the worker pool: %w", err)
	}
	p.metrics.workers.Set(float64(p.Workers))
	p.log.InfoContext(ctx, "working", slog.Int("workers", p.Workers), slog.String("because_of", p.Why))
	var chores sync.WaitGroup
	if p.Leases != nil {
		chores.Go(func() { p.rescue(ctx) })
	}
	p.rank(ctx)
	chores.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace+lastTime)
	defer cancel()
	if err := client.Stop(last); err != nil {
		return fmt.Errorf("stop the worker pool: %w", err)
	}
	return nil
}

// retryPolicy spaces the attempts so that a short fault of a dependency is outlived.
type retryPolicy struct{ first time.Duration }

// NextRetry implements [river.ClientRetryPolicy].
func (r retryPolicy) NextRetry(job *rivertype.JobRow) time.Time {
	return time.Now().Add(time.Duration(float64(r.first) * math.Pow(6, float64(job.Attempt-1))))
}

// worker is River's view of the pipeline.
type worker struct {
	river.WorkerDefaults[Args]
	pool *Pool
}

// Work implements [river.Worker]. It may be called again for an upload that was processed before, by a
// worker that died or froze; that changes nothing.
func (w *worker) Work(ctx context.Context, job *river.Job[Args]) error {
	ctx, span := w.pool.tracer.Start(inTraceOf(ctx, job.JobRow), job.Kind, trace.WithSpanKind(trace.SpanKindConsumer))
	defer span.End()
	ctx = asWorker(ctx, job.Args)
	log := w.pool.log.With(slog.String("tenant_id", job.Args.TenantID.String()),
		slog.String("upload_id", job.Args.UploadID.String()), slog.Int64("job_id", job.ID))
	a := w.pool.newAttempt(job.JobRow, job.Args)
	out, err := w.pool.pipeline.process(ctx, job.Args.UploadID, a)
	defer out.end()
	if err == nil {
		err = w.settle(ctx, job, out, a)
	}
	switch {
	case errors.Is(err, storage.ErrWrongStatus), errors.Is(err, storage.ErrNotFound):
		log.InfoContext(ctx, "upload needs no processing", slog.Any("err", err))
		return nil
	case err != nil && w.pool.isCutOff(ctx):
		return w.pool.handBack(ctx, log, err)
	case errors.Is(err, errBusy) && ctx.Err() == nil: // else it took all of its time, and would take it for ever
		log.WarnContext(ctx, "a dependency does not answer; the job waits", slog.Any("err", err))
		w.pool.metrics.waits.Inc()
		w.pool.waits(ctx, job.JobRow, job.Args, a, err)
		return river.JobSnooze(w.pool.BusyDelay)
	case err != nil && job.Attempt >= job.MaxAttempts:
		log.ErrorContext(ctx, "upload is a dead letter", slog.Any("err", err))
		return errors.Join(err, w.pool.bury(ctx, a, a.at, err))
	case err != nil:
		log.WarnContext(ctx, "processing failed and is tried again", slog.Int("attempt", job.Attempt), slog.Any("err", err))
		w.pool.retries(ctx, job.JobRow, job.Args, a)
		return err
	}
	log.InfoContext(ctx, "upload processed", slog.String("status", string(out.status())))
	return nil
}

// settle writes the outcome and the job's completion in one transaction, unless another attempt of the job
// has taken over: River does not fence attempts.
func (w *worker) settle(ctx context.Context, job *river.Job[Args], out outcome, a *attempt) error {
	a.at = stepRecord
	var before bool // another job ended the upload
	err := w.pool.db.InTenant(ctx, func(tx storage.Tx) error {
		if err := ownAttempt(ctx, tx, job.JobRow); err != nil {
			return err
		}
		if err := a.tell(ctx, tx, job.Args); err != nil {
			return err
		}
		err := out.record(ctx, tx, job.Args.UploadID)
		if before = errors.Is(err, storage.ErrWrongStatus); err != nil && !before {
			return err
		}
		_, err = river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx.Tx, job)
		return err
	})
	if err != nil {
		return fmt.Errorf("record outcome: %w", err)
	}
	if !before {
		out.moved.leave(ctx)
		w.pool.metrics.outcomes.WithLabelValues(string(out.status())).Inc()
	}
	return nil
}

// ownAttempt locks the job's row, if this attempt is still the one that runs. A worker that freezes in the middle of the
// transaction would keep the row from being put back; so Postgres ends it then.
func ownAttempt(ctx context.Context, tx storage.Tx, job *rivertype.JobRow) error {
	var set string
	err := tx.QueryRow(ctx, `
		select set_config('idle_in_transaction_session_timeout', '5s', true)
		from river_job where id = $1 and state = 'running' and attempt = $2 for update`,
		job.ID, job.Attempt).Scan(&set)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("attempt %d of job %d has been overtaken", job.Attempt, job.ID)
	}
	return err
}
