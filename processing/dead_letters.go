package processing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
)

// DeadLetter is why an upload fails whose processing failed for good.
func DeadLetter() storage.Failure {
	return storage.Failure{
		Reason: storage.ReasonDeadLettered,
		Detail: "The file is safe, but it could not be processed. Your administrator can find out why.",
	}
}

// writeLetter fails an upload whose job is not tried again and writes its dead letter. Whoever calls it has made sure in the
// same transaction that no other attempt of the job runs. If the letter does not know at which step the last attempt failed, it
// is the first that no attempt has kept. An upload that has ended is [storage.ErrWrongStatus].
func writeLetter(ctx context.Context, tx storage.Tx, upload uuid.UUID, d storage.Death) error {
	if d.Step == "" {
		kept, err := tx.Findings(ctx, upload)
		if err != nil {
			return err
		}
		d.Step = nextStep(kept)
	}
	return tx.Bury(ctx, upload, d, DeadLetter())
}

// BuryLost writes the dead letter of an upload whose job the queue has given up while none of our code ran: its worker was killed
// on the last attempt. An upload that has ended, or whose processing goes on, is [storage.ErrWrongStatus].
func BuryLost(ctx context.Context, tx storage.Tx, upload uuid.UUID) error {
	// In two statements: the second must see what the first has waited for.
	tag, err := tx.Exec(ctx, `
		select from uploads where tenant_id = $1 and id = $2 and status in ('uploaded', 'processing') and deleted_at is null
		for update`, tx.Tenant, upload)
	switch {
	case err != nil:
		return fmt.Errorf("lock upload: %w", err)
	case tag.RowsAffected() == 0:
		return storage.ErrWrongStatus
	}
	job, err := queue.FindGivenUp(ctx, tx, upload)
	if errors.Is(err, storage.ErrNotFound) {
		return storage.ErrWrongStatus
	}
	if err != nil {
		return err
	}
	cause := cmp.Or(job.Error, "its worker was lost on the last attempt")
	return writeLetter(job.Trace(ctx), tx, upload, storage.Death{Job: job.ID, Kind: string(job.Kind), Error: cause, Attempts: job.Attempt})
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
