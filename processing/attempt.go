package processing

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/riverqueue/river/rivertype"

	"github.com/tramo/tramo/processing/clamd"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Where an attempt is before its first step and behind its last.
const (
	stepBegin  = "begin"
	stepRecord = "record"
)

// An attempt is one run of the steps over one upload. It keeps what the timeline is told of them until the
// transaction that ends the attempt.
type attempt struct {
	job     *rivertype.JobRow
	db      *storage.DB
	args    Args
	number  int // from 1
	began   time.Time
	at      string // the step that it has come to
	steps   []storage.Entry
	metrics *Metrics
}

func (p *Pool) newAttempt(job *rivertype.JobRow, args Args) *attempt {
	return &attempt{job: job, db: p.db, args: args, number: job.Attempt, began: time.Now(), at: stepBegin, metrics: p.metrics}
}

// keep keeps what the steps have found so far for the next attempt, if this one is still the one that runs. With it the
// timeline is told of the steps: none will tell it again.
func (a *attempt) keep(ctx context.Context, found storage.Findings) error {
	err := a.db.InTenant(ctx, func(tx storage.Tx) error {
		if err := ownAttempt(ctx, tx, a.job); err != nil {
			return err
		}
		if err := a.tell(ctx, tx, a.args); err != nil {
			return err
		}
		return tx.KeepFindings(ctx, a.args.UploadID, found)
	})
	if err == nil {
		a.steps = nil
	}
	return err
}

// time starts a step's clock and returns what stops it.
func (a *attempt) time(step storage.Event) (stop func()) {
	start := time.Now()
	a.at = string(step)
	return func() {
		took := time.Since(start)
		a.metrics.steps.WithLabelValues(string(step)).Observe(took.Seconds())
		a.steps = append(a.steps, storage.Entry{Event: step, At: start.Add(took), Duration: took, Detail: a.detail()})
	}
}

func (a *attempt) detail() map[string]any { return map[string]any{"attempt": a.number} }

// tell appends the steps to the upload's timeline.
func (a *attempt) tell(ctx context.Context, tx storage.Tx, args Args) error {
	for _, e := range a.steps {
		if err := tx.Append(ctx, args.UploadID, e); err != nil {
			return err
		}
	}
	return nil
}

// waits tells the timeline, once, that the attempt waits for a dependency. The step that met it is not told: it is
// as if it had not been.
func (p *Pool) waits(ctx context.Context, job *rivertype.JobRow, args Args, a *attempt, cause error) {
	detail := a.detail()
	detail["reason"] = "storage_unavailable"
	trouble := new(clamd.Trouble)
	switch {
	case errors.As(cause, &trouble):
		detail["reason"] = "scanner_unavailable"
	case errors.Is(cause, errNoRoom):
		detail["reason"] = "worker_full"
	}
	p.note(ctx, job, args, func(ctx context.Context, tx storage.Tx) error {
		return tx.AppendOnce(ctx, args.UploadID, storage.Entry{Event: storage.EventWaiting, Detail: detail})
	})
}

// retries tells the timeline that the attempt failed. The tenant reads where, and never an internal cause.
func (p *Pool) retries(ctx context.Context, job *rivertype.JobRow, args Args, a *attempt) {
	detail := a.detail()
	detail["reason"] = a.at + "_failed"
	p.note(ctx, job, args, func(ctx context.Context, tx storage.Tx) error {
		if err := a.tell(ctx, tx, args); err != nil {
			return err
		}
		return tx.Append(ctx, args.UploadID, storage.Entry{Event: storage.EventRetry, Duration: time.Since(a.began), Detail: detail})
	})
}

// note writes to the timeline while the attempt is still the one that runs. A note that cannot be written
// changes nothing for the job.
func (p *Pool) note(ctx context.Context, job *rivertype.JobRow, args Args, write func(context.Context, storage.Tx) error) {
	// The job's own time may be over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), buryTime)
	defer cancel()
	ctx = asWorker(ctx, args)
	err := p.db.InTenant(ctx, func(tx storage.Tx) error {
		if err := ownAttempt(ctx, tx, job); err != nil {
			return err
		}
		return write(ctx, tx)
	})
	if err != nil {
		p.log.WarnContext(ctx, "timeline not written", slog.String("upload_id", args.UploadID.String()), slog.Any("err", err))
	}
}

// asWorker makes ctx act for the tenant whose upload the job names.
func asWorker(ctx context.Context, args Args) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: args.TenantID, User: "worker", Role: tenant.Admin})
}
