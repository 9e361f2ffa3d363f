package hooks

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// requireManager returns [ErrNotManager] for a role that manages nothing.
func requireManager(ctx context.Context) error {
	who, err := tenant.From(ctx)
	if err == nil && !who.Role.CanManage() {
		err = ErrNotManager
	}
	return err
}

// Rename gives a batch another name. Its client's own name for it stays.
func (b *Batches) Rename(ctx context.Context, id uuid.UUID, name string) error {
	if err := requireManager(ctx); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	return b.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := tx.RenameBatch(ctx, id, name); err != nil {
			return err
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditBatchRename, Subject: id.String()})
	})
}

func checkName(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return refuse(ErrBadBatch, "name is missing. Say what a person calls this batch, such as the site and the day.")
	case len(name) > maxBatchName:
		return refuse(ErrBadBatch, "name has %d bytes; the most is %d.", len(name), maxBatchName)
	case !isText(name):
		return refuse(ErrBadBatch, "name must be UTF-8 text without NUL characters.")
	}
	return nil
}

// Cancel ends a batch, and in it what has not all its bytes: it is cancelled, its quota comes back, and requests that
// send to it end. What is safe already is processed and kept. What S3 has of the rest the reconciler removes. It returns
// how many uploads it ended. Saying it again is no change.
func (b *Batches) Cancel(ctx context.Context, id uuid.UUID) (ended int, err error) {
	if err := requireManager(ctx); err != nil {
		return 0, err
	}
	err = b.DB.InTenant(ctx, func(tx storage.Tx) error {
		uploads, err := tx.CancelBatch(ctx, id)
		if err != nil {
			return err
		}
		ended = len(uploads)
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditBatchCancel, Subject: id.String(), Detail: map[string]any{"uploads": ended}})
	})
	if errors.Is(err, storage.ErrBatchCancelled) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for range ended {
		b.Metrics.became(storage.Cancelled)
	}
	b.Log.InfoContext(ctx, "batch cancelled", tenant.LogAttr(ctx), slog.String("batch_id", id.String()), slog.Int("uploads", ended))
	return ended, nil
}

// Retried is what became of the uploads of a batch that had ended badly.
type Retried struct {
	Retried   []storage.Upload // are uploaded again, as they were before
	SendAgain []storage.Upload // have no bytes left: their client must send them again, under the same client id
	Refused   []storage.Upload // are not processed again: infected
}

// Retry has the failed uploads of a batch processed again whose objects are there. Those that it can do nothing for it
// tells. The batch is open again until they have ended.
func (b *Batches) Retry(ctx context.Context, id uuid.UUID) (r Retried, err error) {
	if err := requireManager(ctx); err != nil {
		return r, err
	}
	err = b.DB.InTenant(ctx, func(tx storage.Tx) error {
		batch, err := tx.Batch(ctx, id)
		if err != nil {
			return err
		}
		if batch.CancelledAt != nil {
			return errCancelledBatch()
		}
		us, err := tx.EndedBadly(ctx, id)
		if err != nil {
			return err
		}
		if r, err = b.retry(ctx, tx, us); err != nil {
			return err
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditBatchRetry, Subject: id.String(), Detail: map[string]any{
			"retried": len(r.Retried), "send_again": len(r.SendAgain), "refused": len(r.Refused),
		}})
	})
	return r, b.told(ctx, r, err)
}

// RetryUpload has one failed upload processed again. One that has nothing left to be processed is
// [storage.ErrSendAgain], one that is infected [ErrNoRetry], and any other [ErrNothingToRetry].
func (b *Batches) RetryUpload(ctx context.Context, id uuid.UUID) error {
	if err := requireManager(ctx); err != nil {
		return err
	}
	var r Retried
	err := b.DB.InTenant(ctx, func(tx storage.Tx) error {
		u, err := tx.EndedBadlyOne(ctx, id)
		if err != nil {
			return err
		}
		if r, err = b.retry(ctx, tx, []storage.Upload{u}); err != nil {
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
	return b.told(ctx, r, err)
}

func (b *Batches) told(ctx context.Context, r Retried, err error) error {
	if errors.Is(err, storage.ErrBatchCancelled) {
		return errCancelledBatch()
	}
	if err != nil {
		return err
	}
	for _, u := range r.Retried {
		b.Metrics.became(storage.Uploaded)
		b.Log.InfoContext(ctx, "upload retried", tenant.LogAttr(ctx), slog.String("upload_id", u.ID.String()))
	}
	return nil
}

// retry makes those of the uploads, which are locked and of one batch at most, uploaded again that can be.
func (b *Batches) retry(ctx context.Context, tx storage.Tx, us []storage.Upload) (r Retried, err error) {
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
	return r, b.Queue.Enqueue(ctx, tx, done...)
}
