package hooks

import (
	"context"
	"errors"
	"log/slog"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// MaxLetters is the most dead letters that one request retries.
const MaxLetters = 200

// DeadLetters is what is done about uploads whose processing was given up. All of it is for admins: letters tell of internal
// faults.
type DeadLetters struct {
	DB      *storage.DB
	Queue   *queue.Queue
	Uploads *Metrics
	Log     *slog.Logger
}

func mustOperate(ctx context.Context) error {
	who, err := tenant.From(ctx)
	if err == nil && (who.Role != tenant.Admin || who.Projects != nil) {
		return refuse(ErrForbidden, "Only an admin of the installation, whose token covers all projects, can look after dead letters.")
	}
	return err
}

// List returns one page of the tenant's.
func (d *DeadLetters) List(ctx context.Context, p storage.LetterPage) (found []storage.DeadLetter, err error) {
	if err := mustOperate(ctx); err != nil {
		return nil, err
	}
	err = d.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		found, err = tx.DeadLetters(ctx, p)
		return err
	})
	return found, err
}

// Find returns one of the tenant's.
func (d *DeadLetters) Find(ctx context.Context, id uuid.UUID) (letter storage.DeadLetter, err error) {
	if err := mustOperate(ctx); err != nil {
		return letter, err
	}
	err = d.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		letter, err = tx.DeadLetter(ctx, id)
		return err
	})
	return letter, err
}

// Retry has the upload of a dead letter processed again, with three fresh attempts that go on where the last one stopped, and
// returns the letter as it is then. The upload's batch is open again until it has ended; one that was cancelled stays so. A
// letter about which that can not be done is [ErrNothingToRetry].
func (d *DeadLetters) Retry(ctx context.Context, id uuid.UUID) (letter storage.DeadLetter, err error) {
	if err := mustOperate(ctx); err != nil {
		return letter, err
	}
	err = d.DB.InTenant(ctx, func(tx storage.Tx) error {
		u, err := lockDead(ctx, tx, id)
		if err != nil {
			return err
		}
		done, err := tx.Retry(ctx, []uuid.UUID{u.ID})
		if err != nil {
			return err
		}
		if len(done) == 0 {
			return refuse(ErrNothingToRetry, "The file was sent again since, as another upload.")
		}
		if u.BatchID != nil {
			if err := tx.OpenBatch(ctx, *u.BatchID); err != nil && !errors.Is(err, storage.ErrBatchCancelled) {
				return err
			}
		}
		if err := d.Queue.Enqueue(ctx, tx, u.ID); err != nil {
			return err
		}
		if letter, err = tx.DeadLetter(ctx, id); err != nil {
			return err
		}
		return tx.Audit(ctx, auditOf(storage.AuditLetterRetry, letter))
	})
	if err != nil {
		return storage.DeadLetter{}, err
	}
	d.Uploads.became(storage.Uploaded)
	d.Log.InfoContext(ctx, "dead letter retried", tenantAttr(ctx), slog.String("upload_id", letter.Upload.String()), slog.String("step", letter.Step))
	return letter, nil
}

// lockDead locks the upload of a dead letter that can be retried. The letter is read again behind the lock: somebody else
// may have retried it while this one waited.
func lockDead(ctx context.Context, tx storage.Tx, id uuid.UUID) (u storage.Upload, err error) {
	letter, err := tx.DeadLetter(ctx, id)
	if err != nil {
		return u, err
	}
	u, err = tx.EndedBadlyOne(ctx, letter.Upload)
	switch {
	case errors.Is(err, storage.ErrWrongStatus):
		return u, refuse(ErrNothingToRetry, "The upload of this dead letter is not failed any more, or was sent again.")
	case err != nil:
		return u, err
	}
	if letter, err = tx.DeadLetter(ctx, id); err != nil {
		return u, err
	}
	if letter.State != storage.LetterOpen && letter.State != storage.LetterDiscarded || *u.FailureReason != storage.ReasonDeadLettered {
		return u, refuse(ErrNothingToRetry, "This dead letter is %s: nothing is left to be retried.", letter.State)
	}
	return u, nil
}

// A LeftLetter is one that was not retried.
type LeftLetter struct {
	ID  uuid.UUID
	Err error // [storage.ErrNotFound] or [ErrNothingToRetry]
}

// RetryAll retries the letters named, each in a transaction of its own, and returns those that it did so with and those that
// it could not. It ends at the first fault; what is done by then stays done.
func (d *DeadLetters) RetryAll(ctx context.Context, ids []uuid.UUID) (retried []storage.DeadLetter, left []LeftLetter, err error) {
	for _, id := range ids {
		letter, err := d.Retry(ctx, id)
		switch {
		case errors.Is(err, storage.ErrNotFound), errors.Is(err, ErrNothingToRetry):
			left = append(left, LeftLetter{id, err})
		case err != nil:
			return retried, left, err
		default:
			retried = append(retried, letter)
		}
	}
	return retried, left, nil
}

// Discard records that nothing is to be done about a dead letter; its upload stays failed. Saying it again is no change.
func (d *DeadLetters) Discard(ctx context.Context, id uuid.UUID) error {
	if err := mustOperate(ctx); err != nil {
		return err
	}
	err := d.DB.InTenant(ctx, func(tx storage.Tx) error {
		letter, err := tx.DiscardLetter(ctx, id)
		if err != nil {
			return err
		}
		return tx.Audit(ctx, auditOf(storage.AuditLetterDiscard, letter))
	})
	if errors.Is(err, storage.ErrWrongStatus) {
		return nil
	}
	return err
}

// auditOf is about the upload, whose history it belongs to.
func auditOf(action string, letter storage.DeadLetter) storage.Audit {
	return storage.Audit{Action: action, Subject: letter.Upload.String(), Detail: map[string]any{
		"dead_letter": letter.ID, "step": letter.Step,
	}}
}
