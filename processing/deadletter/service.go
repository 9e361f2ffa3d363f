package deadletter

import (
	"context"
	"errors"
	"log/slog"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// ErrNothingToRetry says that the upload of a letter is not failed, or was sent again.
var ErrNothingToRetry = errors.New("nothing is left to be retried")

// MaxRetries is the most dead letters that one request retries.
const MaxRetries = 200

// A Service takes the decisions of admins. Nobody else may ask for letters: they tell of internal faults.
type Service struct {
	DB       *storage.DB
	Queue    *queue.Queue
	Uploaded prometheus.Counter // uploads that are uploaded again
	Log      *slog.Logger
}

// List returns one page of the tenant's letters.
func (s *Service) List(ctx context.Context, p Page) (found []Letter, err error) {
	if _, err := tenant.RequireAdmin(ctx); err != nil {
		return nil, err
	}
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		found, err = list(ctx, tx, p)
		return err
	})
	return found, err
}

// Find returns one of the tenant's letters, or [storage.ErrNotFound].
func (s *Service) Find(ctx context.Context, id uuid.UUID) (l Letter, err error) {
	if _, err := tenant.RequireAdmin(ctx); err != nil {
		return l, err
	}
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		l, err = find(ctx, tx, id)
		return err
	})
	return l, err
}

// Retry has the upload of a letter processed again, with fresh attempts that go on at the step that failed, and returns the
// letter as it is then. The upload's batch is open again until the upload has ended; one that was cancelled stays so. A letter
// whose upload cannot be processed again is [ErrNothingToRetry].
func (s *Service) Retry(ctx context.Context, id uuid.UUID) (l Letter, err error) {
	if _, err := tenant.RequireAdmin(ctx); err != nil {
		return l, err
	}
	err = s.DB.InTenant(ctx, func(tx storage.Tx) error {
		u, err := lockUpload(ctx, tx, id)
		if err != nil {
			return err
		}
		retried, err := tx.Retry(ctx, []uuid.UUID{u.ID})
		if err != nil {
			return err
		}
		if len(retried) == 0 {
			return tenant.Refuse(ErrNothingToRetry, "The file was sent again since, as another upload.")
		}
		if err := MarkRetried(ctx, tx, u.ID); err != nil {
			return err
		}
		if err := s.Queue.Enqueue(ctx, tx, u.ID); err != nil {
			return err
		}
		if l, err = find(ctx, tx, id); err != nil {
			return err
		}
		return tx.Audit(ctx, l.audit(storage.AuditLetterRetry))
	})
	if err != nil {
		return Letter{}, err
	}
	s.Uploaded.Inc()
	s.Log.InfoContext(ctx, "dead letter retried", tenant.LogAttr(ctx), slog.String("upload_id", l.Upload.String()), slog.String("step", l.Step))
	return l, nil
}

// lockUpload locks the upload of a letter that can be retried. It reads the letter again under the lock: somebody else may have
// retried it while this transaction waited.
func lockUpload(ctx context.Context, tx storage.Tx, id uuid.UUID) (u storage.Upload, err error) {
	l, err := find(ctx, tx, id)
	if err != nil {
		return u, err
	}
	u, err = storage.LockFailedUpload(ctx, tx, l.Upload)
	switch {
	case errors.Is(err, storage.ErrWrongStatus):
		return u, tenant.Refuse(ErrNothingToRetry, "The upload of this dead letter is not failed any more, or was sent again.")
	case err != nil:
		return u, err
	}
	if l, err = find(ctx, tx, id); err != nil {
		return u, err
	}
	if l.State != Open && l.State != Discarded || *u.FailureReason != storage.ReasonDeadLettered {
		return u, tenant.Refuse(ErrNothingToRetry, "This dead letter is %s: nothing is left to be retried.", l.State)
	}
	return u, nil
}

// A NotRetried is a letter that was not retried.
type NotRetried struct {
	ID  uuid.UUID
	Err error // [storage.ErrNotFound] or [ErrNothingToRetry]
}

// RetryAll retries the letters named, each in a transaction of its own, and returns those that it retried and those that it
// could not. It ends at the first other error; the letters that it retried by then stay retried.
func (s *Service) RetryAll(ctx context.Context, ids []uuid.UUID) (retried []Letter, left []NotRetried, err error) {
	for _, id := range ids {
		l, err := s.Retry(ctx, id)
		switch {
		case errors.Is(err, storage.ErrNotFound), errors.Is(err, ErrNothingToRetry):
			left = append(left, NotRetried{id, err})
		case err != nil:
			return retried, left, err
		default:
			retried = append(retried, l)
		}
	}
	return retried, left, nil
}

// Discard records that nothing is to be done about a letter; its upload stays failed. A second time changes nothing.
func (s *Service) Discard(ctx context.Context, id uuid.UUID) error {
	if _, err := tenant.RequireAdmin(ctx); err != nil {
		return err
	}
	err := s.DB.InTenant(ctx, func(tx storage.Tx) error {
		l, err := discard(ctx, tx, id)
		if err != nil {
			return err
		}
		return tx.Audit(ctx, l.audit(storage.AuditLetterDiscard))
	})
	if errors.Is(err, storage.ErrWrongStatus) {
		return nil
	}
	return err
}

// audit is an entry about the upload, whose history it belongs to.
func (l Letter) audit(action string) storage.Audit {
	return storage.Audit{Action: action, Subject: l.Upload.String(), Detail: map[string]any{"dead_letter": l.ID, "step": l.Step}}
}
