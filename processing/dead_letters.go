package processing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/tramo/tramo/storage"
)

// DeadLetter is why an upload fails whose processing failed for good.
func DeadLetter() storage.Failure {
	return storage.Failure{
		Reason: storage.ReasonDeadLettered,
		Detail: "The file is safe, but it could not be processed. Your administrator can find out why.",
	}
}

// Bury fails the upload of a job that is not tried again and writes its dead letter. Whoever calls it has made sure in the
// same transaction that no attempt of the job runs, or that it is its own. step is where the last attempt died; "" if
// that is not known: then it is the first step that no attempt has kept. An upload that has ended is
// [storage.ErrWrongStatus].
func Bury(ctx context.Context, tx storage.Tx, job *rivertype.JobRow, args Args, step string, cause error) error {
	ctx = inTraceOf(ctx, job)
	d, err := deathOf(ctx, tx, job, args.UploadID, step, cause)
	if err != nil {
		return err
	}
	return tx.Bury(ctx, args.UploadID, d, DeadLetter())
}

// BuryLost is [Bury] for an upload whose job the queue has given up while none of our code ran: its worker was killed on the
// last attempt.
func BuryLost(ctx context.Context, tx storage.Tx, upload uuid.UUID) error {
	job, cause, err := lostJob(ctx, tx, upload)
	if err != nil {
		return err
	}
	return Bury(ctx, tx, job, Args{TenantID: tx.Tenant, UploadID: upload}, "", cause)
}

func lostJob(ctx context.Context, tx storage.Tx, upload uuid.UUID) (job *rivertype.JobRow, cause error, err error) {
	j, err := tx.LostJob(ctx, upload)
	if err != nil {
		return nil, nil, err
	}
	cause = errors.New("its worker was lost on the last attempt")
	if j.Error != "" {
		cause = errors.New(j.Error)
	}
	return &rivertype.JobRow{ID: j.ID, Kind: j.Kind, Attempt: j.Attempt, Metadata: j.Metadata}, cause, nil
}

func deathOf(ctx context.Context, tx storage.Tx, job *rivertype.JobRow, upload uuid.UUID, step string, cause error) (storage.Death, error) {
	if step == "" {
		kept, err := tx.Findings(ctx, upload)
		if err != nil {
			return storage.Death{}, err
		}
		step = nextStep(kept)
	}
	return storage.Death{Job: job.ID, Kind: job.Kind, Step: step, Error: cause.Error(), Attempts: job.Attempt}, nil
}

// nextStep is the first that no attempt has kept. The last step is never kept: the upload's end is.
func nextStep(kept storage.Findings) string {
	i := slices.IndexFunc(steps, func(s step) bool { return !kept.Has(string(s.name)) })
	return string(steps[max(i, 0)].name)
}

// lastSteps are those that an attempt can die at.
func lastSteps() []string {
	all := []string{stepBegin}
	for _, s := range steps {
		all = append(all, string(s.name))
	}
	return append(all, stepRecord)
}

// bury records on the upload that its job is about to become a dead letter. The job's own time may be over.
func (p *Pool) bury(ctx context.Context, a *attempt, step string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), buryTime)
	defer cancel()
	ctx = asWorker(ctx, a.args)
	err := p.db.InTenant(ctx, func(tx storage.Tx) error {
		if err := ownAttempt(ctx, tx, a.job); err != nil {
			return err
		}
		if err := a.tell(ctx, tx, a.args); err != nil {
			return err
		}
		return Bury(ctx, tx, a.job, a.args, step, cause)
	})
	if err != nil {
		return fmt.Errorf("record dead letter: %w", err)
	}
	p.metrics.outcomes.WithLabelValues(string(storage.Failed)).Inc()
	return nil
}

// An undertaker buries uploads whose job panicked on its last attempt. Jobs that fail bury them themselves, and what
// no worker lived to bury the reconciler finds.
type undertaker struct{ pool *Pool }

// HandleError implements [river.ErrorHandler].
func (*undertaker) HandleError(context.Context, *rivertype.JobRow, error) *river.ErrorHandlerResult {
	return nil
}

// HandlePanic implements [river.ErrorHandler].
func (u *undertaker) HandlePanic(ctx context.Context, job *rivertype.JobRow, cause any, stack string) *river.ErrorHandlerResult {
	ctx = inTraceOf(ctx, job)
	u.pool.log.ErrorContext(ctx, "processing panicked", slog.Int64("job_id", job.ID), slog.Any("err", cause), slog.String("stack", stack))
	if job.Kind != (Args{}).Kind() {
		return nil
	}
	var args Args
	err := json.Unmarshal(job.EncodedArgs, &args)
	a := u.pool.newAttempt(job, args) // what was known of it is gone with the panic
	a.at = "worker"
	switch {
	case err != nil:
	case job.Attempt < job.MaxAttempts:
		u.pool.retries(ctx, job, args, a)
	default:
		err = u.pool.bury(ctx, a, "", fmt.Errorf("panic: %v\n\n%s", cause, stack))
	}
	if err != nil {
		u.pool.log.ErrorContext(ctx, "dead letter not recorded", slog.Int64("job_id", job.ID), slog.Any("err", err))
	}
	return nil
}
