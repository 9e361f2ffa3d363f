package batch

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Rename gives a batch another name. Its client id stays.
func (s *Service) Rename(ctx context.Context, id uuid.UUID, name string) error {
	if _, err := tenant.RequireManager(ctx); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	return s.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := rename(ctx, tx, id, name); err != nil {
			return err
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditBatchRename, Subject: id.String()})
	})
}

func checkName(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return tenant.Refuse(ErrBadBatch, "name is missing. Name the batch for people, for example after the site and the day.")
	case len(name) > maxName:
		return tenant.Refuse(ErrBadBatch, "name has %d bytes; the most is %d.", len(name), maxName)
	case !storage.IsText(name):
		return tenant.Refuse(ErrBadBatch, "name must be UTF-8 text without NUL characters.")
	}
	return nil
}

// Cancel ends a batch and cancels its uploads that still take bytes: requests that send to them end, what S3 has of them is
// removed, and then their quota is refunded. What cannot be removed now stays charged, and the reconciler removes it. Uploads
// that have all their bytes are processed and kept. Cancel returns how many uploads it cancelled. A batch that was cancelled
// before does not change.
func (s *Service) Cancel(ctx context.Context, id uuid.UUID) (ended int, err error) {
	if _, err := tenant.RequireManager(ctx); err != nil {
		return 0, err
	}
	var remaining []uuid.UUID
	err = s.DB.InTenant(ctx, func(tx storage.Tx) error {
		uploads, err := cancel(ctx, tx, id)
		if err != nil {
			return err
		}
		ended = len(uploads)
		for _, u := range uploads {
			if u.Remains {
				remaining = append(remaining, u.ID)
			}
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditBatchCancel, Subject: id.String(), Detail: map[string]any{"uploads": ended}})
	})
	if errors.Is(err, storage.ErrBatchCancelled) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for range ended {
		s.Metrics.Into(storage.Cancelled).Inc()
	}
	s.Log.InfoContext(ctx, "batch cancelled", tenant.LogAttr(ctx), slog.String("batch_id", id.String()), slog.Int("uploads", ended))
	s.Uploads.ReleaseEach(ctx, remaining)
	return ended, nil
}

// Retried are the failed and expired uploads of a batch after a retry.
type Retried struct {
	Retried   []storage.Upload // are uploaded and will be processed again
	SendAgain []storage.Upload // have no bytes in S3: their client must send them again, under the same client id
	Refused   []storage.Upload // are not processed again: infected
}

// Retry processes the failed uploads of a batch again whose objects are in S3, and returns the others as well. The batch is
// open until they have ended.
func (s *Service) Retry(ctx context.Context, id uuid.UUID) (r Retried, err error) {
	if _, err := tenant.RequireManager(ctx); err != nil {
		return r, err
	}
	err = s.DB.InTenant(ctx, func(tx storage.Tx) error {
		batch, err := Find(ctx, tx, id)
		if err != nil {
			return err
		}
		if batch.CancelledAt != nil {
			return hooks.CancelledBatch()
		}
		us, err := storage.LockFailed(ctx, tx, id)
		if err != nil {
			return err
		}
		if r, err = s.retry(ctx, tx, us); err != nil {
			return err
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditBatchRetry, Subject: id.String(), Detail: map[string]any{
			"retried": len(r.Retried), "send_again": len(r.SendAgain), "refused": len(r.Refused),
		}})
	})
	return r, s.logRetried(ctx, r, err)
}

// RetryUpload processes one failed upload again. One that has no bytes in S3 is [storage.ErrSendAgain], one that is infected
// is [ErrNoRetry], and any other [ErrNothingToRetry].
func (s *Service) RetryUpload(ctx context.Context, id uuid.UUID) error {
	if _, err := tenant.RequireManager(ctx); err != nil {
		return err
	}
	var r Retried
	err := s.DB.InTenant(ctx, func(tx storage.Tx) error {
		u, err := storage.LockFailedUpload(ctx, tx, id)
		if err != nil {
			return err
		}
		if r, err = s.retry(ctx, tx, []storage.Upload{u}); err != nil {
			return err
		}
		switch {
		case len(r.SendAgain) > 0:
			return storage.ErrSendAgain
		case len(r.Refused) > 0:
			return ErrNoRetry
		case len(r.Retried) == 0:
			return ErrNothingToRetry // it was sent again
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditUploadRetry, Subject: id.String()})
	})
	if errors.Is(err, storage.ErrWrongStatus) {
		return ErrNothingToRetry
	}
	return s.logRetried(ctx, r, err)
}

func (s *Service) logRetried(ctx context.Context, r Retried, err error) error {
	if errors.Is(err, storage.ErrBatchCancelled) {
		return hooks.CancelledBatch()
	}
	if err != nil {
		return err
	}
	for _, u := range r.Retried {
		s.Metrics.Into(storage.Uploaded).Inc()
		s.Log.InfoContext(ctx, "upload retried", tenant.LogAttr(ctx), slog.String("upload_id", u.ID.String()))
	}
	return nil
}

// retry processes those of the uploads again that can be. They are locked, and of one batch at most.
func (s *Service) retry(ctx context.Context, tx storage.Tx, us []storage.Upload) (r Retried, err error) {
	var ids []uuid.UUID
	for _, u := range us {
		switch {
		case u.Status != storage.Failed || u.ObjectKey == nil || *u.FailureReason == storage.ReasonLost:
			r.SendAgain = append(r.SendAgain, u)
		case *u.FailureReason == storage.ReasonInfected:
			r.Refused = append(r.Refused, u)
		default:
			ids = append(ids, u.ID)
			r.Retried = append(r.Retried, u)
		}
	}
	if len(ids) == 0 {
		return r, nil
	}
	done, err := tx.Retry(ctx, ids)
	if err == nil {
		err = deadletter.MarkRetried(ctx, tx, done...)
	}
	if err != nil || len(done) == 0 {
		return Retried{SendAgain: r.SendAgain, Refused: r.Refused}, err
	}
	r.Retried = slices.DeleteFunc(r.Retried, func(u storage.Upload) bool { return !slices.Contains(done, u.ID) })
	if batch := r.Retried[0].BatchID; batch != nil {
		if err := tx.OpenBatch(ctx, *batch); err != nil {
			return r, err
		}
	}
	return r, s.Queue.Enqueue(ctx, tx, done...)
}
