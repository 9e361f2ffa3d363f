package processing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
)

// writeLetter is [deadletter.Write]. Where it is not known at which step the last attempt failed, it is the first that no attempt
// has kept.
func writeLetter(ctx context.Context, tx storage.Tx, upload uuid.UUID, c deadletter.Cause) error {
	if c.Step == "" {
		kept, err := readStepResults(ctx, tx, upload)
		if err != nil {
			return err
		}
		c.Step = nextStep(kept)
	}
	return deadletter.Write(ctx, tx, upload, c)
}

// GiveUp writes the dead letter of an upload whose job the queue has given up without a worker: the last
// attempt's was killed. An upload that has ended, or whose processing goes on, is [storage.ErrWrongStatus].
func GiveUp(ctx context.Context, tx storage.Tx, upload uuid.UUID) error {
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
	return writeLetter(job.Trace(ctx), tx, upload, deadletter.Cause{Job: job.ID, Kind: string(job.Kind), Error: cause, Attempts: job.Attempt})
}

// nextStep is the first that no attempt has kept. The last step is never kept: the upload's end is.
func nextStep(kept stepResults) string {
	i := slices.IndexFunc(steps, func(s step) bool { return !kept.has(s) })
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
