package processing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tramo/tramo/processing/clamd"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
)

// Where an attempt is before its first step and after its last.
const (
	stepBegin  = "begin"
	stepRecord = "record"
	stepWorker = "worker" // not known: the attempt panicked, or its process died
)

// An attempt is one run of the steps over one upload. It keeps the timeline entries of steps, and what the next attempt need not
// do again, until its next transaction.
type attempt struct {
	*queue.Job
	began   time.Time
	at      string // the step that it has come to
	entries []storage.Entry
	kept    stepResults
	unsaved bool      // what is kept
	saved   time.Time // when all of it was saved
}

func newAttempt(job *queue.Job) *attempt {
	now := time.Now()
	return &attempt{Job: job, began: now, at: stepBegin, saved: now}
}

// save saves what is kept.
func (a *attempt) save(ctx context.Context, tx storage.Tx) error {
	if !a.unsaved {
		return nil
	}
	storage.AfterCommit(tx, func() { a.unsaved, a.saved = false, time.Now() })
	return keepStepResults(ctx, tx, a.Upload, a.kept)
}

// A failedAttempt is the error of an attempt, with the entries that its timeline does not have yet.
type failedAttempt struct {
	*attempt
	cause error
}

func (f *failedAttempt) Error() string { return f.cause.Error() }
func (f *failedAttempt) Unwrap() error { return f.cause }

// Work implements [queue.Worker].
func (p *Pipeline) Work(ctx context.Context, job *queue.Job) error {
	log := p.Log.With(slog.String("tenant_id", job.Tenant.String()), slog.String("upload_id", job.Upload.String()), slog.Int64("job_id", job.ID))
	a := newAttempt(job)
	out, err := p.process(ctx, a)
	defer out.moved.End(ctx)
	if err == nil {
		err = p.settle(ctx, out, a)
	}
	switch {
	case errors.Is(err, storage.ErrWrongStatus), errors.Is(err, storage.ErrNotFound):
		log.InfoContext(ctx, "upload needs no processing", slog.Any("err", err))
		return nil
	case errors.Is(err, queue.ErrUnavailable) && ctx.Err() == nil:
		p.wait(ctx, a, err)
		return err
	case err != nil:
		return &failedAttempt{a, err}
	}
	log.InfoContext(ctx, "upload processed", slog.String("status", string(out.status())))
	return nil
}

// settle writes the outcome and the job's completion in one transaction, unless the attempt was superseded.
func (p *Pipeline) settle(ctx context.Context, out outcome, a *attempt) error {
	a.at = stepRecord
	var before bool // another job ended the upload
	err := p.inAttempt(ctx, a, func(tx storage.Tx) error {
		err := out.record(ctx, tx, a.Upload)
		if before = errors.Is(err, storage.ErrWrongStatus); err != nil && !before {
			return err
		}
		return a.Complete(ctx, tx)
	})
	if err != nil {
		return fmt.Errorf("record outcome: %w", err)
	}
	if !before {
		out.moved.Clean(ctx)
		p.Metrics.outcomes.WithLabelValues(string(out.status())).Inc()
	}
	return nil
}

// Failed implements [queue.Worker]. The tenant reads in the timeline at which step an attempt failed, and never an internal
// cause. The last attempt makes the upload a dead letter.
func (p *Pipeline) Failed(ctx context.Context, job *queue.Job, cause error) error {
	if errors.Is(cause, queue.ErrWorkerLost) {
		return p.lost(ctx, job)
	}
	a, step := newAttempt(job), ""
	a.at = stepWorker
	if f := new(failedAttempt); errors.As(cause, &f) {
		a, step = f.attempt, f.at
	}
	err := p.inAttempt(ctx, a, func(tx storage.Tx) error {
		if job.Exhausted {
			return writeLetter(ctx, tx, job.Upload, deadletter.Cause{Job: job.ID, Kind: string(job.Kind), Step: step, Error: cause.Error(), Attempts: job.Attempt})
		}
		if err := a.save(ctx, tx); err != nil {
			return err
		}
		tx.Append(ctx, job.Upload, retried(job, a.at, time.Since(a.began)))
		return nil
	})
	switch {
	case err != nil && job.Exhausted:
		return fmt.Errorf("record dead letter: %w", err)
	case job.Exhausted:
		p.Metrics.outcomes.WithLabelValues(string(storage.Failed)).Inc()
	}
	return err
}

// lost records an attempt whose process died. Nobody fences it: the queue has requeued its job, or given it up.
func (p *Pipeline) lost(ctx context.Context, job *queue.Job) error {
	err := p.DB.InTenant(ctx, func(tx storage.Tx) error {
		if job.Exhausted {
			return GiveUp(ctx, tx, job.Upload)
		}
		u, err := tx.Upload(ctx, job.Upload)
		if err == nil && u.Status != storage.Uploaded && u.Status != storage.Processing {
			err = storage.ErrWrongStatus
		}
		if err != nil {
			return err
		}
		tx.Append(ctx, job.Upload, retried(job, "", 0))
		return nil
	})
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrWrongStatus):
		return nil // it has ended, or another job works on it
	case err == nil && job.Exhausted:
		p.Metrics.outcomes.WithLabelValues(string(storage.Failed)).Inc()
	}
	return err
}

func retried(job *queue.Job, step string, took time.Duration) storage.Entry {
	reason := "worker_lost"
	if step != "" {
		reason = step + "_failed"
	}
	return storage.Entry{Event: storage.EventRetry, Duration: took, Detail: map[string]any{"attempt": job.Attempt, "reason": reason}}
}

// wait appends to the timeline, once, that the attempt waits for a dependency. The step that needed it gets no entry: it runs again.
func (p *Pipeline) wait(ctx context.Context, a *attempt, cause error) {
	detail := a.detail()
	detail["reason"] = "storage_unavailable"
	trouble := new(clamd.Trouble)
	switch {
	case errors.As(cause, &trouble):
		detail["reason"] = "scanner_unavailable"
	case errors.Is(cause, errNoRoom):
		detail["reason"] = "worker_full"
	}
	err := p.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := a.Fence(ctx, tx); err != nil {
			return err
		}
		if err := a.save(ctx, tx); err != nil {
			return err
		}
		tx.Append(ctx, a.Upload, storage.Entry{Event: storage.EventWaiting, Detail: detail, Once: true})
		return nil
	})
	if err != nil { // which changes nothing for the job
		p.Log.WarnContext(ctx, "timeline not written", slog.String("upload_id", a.Upload.String()), slog.Any("err", err))
	}
}

// inAttempt runs fn in a transaction of the attempt, if it was not superseded, and tells the timeline of the attempt's steps.
func (p *Pipeline) inAttempt(ctx context.Context, a *attempt, fn func(storage.Tx) error) error {
	err := p.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := a.Fence(ctx, tx); err != nil {
			return err
		}
		for _, e := range a.entries {
			tx.Append(ctx, a.Upload, e)
		}
		return fn(tx)
	})
	if err == nil {
		a.entries = nil
	}
	return err
}

// time starts a step's clock and returns what stops it.
func (p *Pipeline) time(a *attempt, step storage.Event) (stop func()) {
	start := time.Now()
	a.at = string(step)
	return func() {
		took := time.Since(start)
		p.Metrics.steps.WithLabelValues(string(step)).Observe(took.Seconds())
		a.entries = append(a.entries, storage.Entry{Event: step, At: start.Add(took), Duration: took, Detail: a.detail()})
	}
}

func (a *attempt) detail() map[string]any { return map[string]any{"attempt": a.Attempt} }
