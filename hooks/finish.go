package hooks

import (
	"bytes"
	"context"
	"errors"
	"log/slog"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Record records, in one transaction, that the upload's object is complete, settles its quota, enqueues its processing and
// writes its timeline. Only after it has returned nil may the client be told that the upload is complete. A repeated call
// changes nothing. If the content does not have the declared checksum, the upload fails, with its partial uploads if it is a
// final one, their objects are deleted, their quota is refunded, and Record returns [ErrChecksumMismatch]. The processing of a
// partial upload is not enqueued: it waits for its final one. What is to be recorded before, in the same transaction, before
// records.
func (s *Uploads) Record(ctx context.Context, u storage.Upload, key string, sum []byte, before ...func(storage.Tx) error) error {
	mismatch, first := u.DeclaredSHA256 != nil && !bytes.Equal(u.DeclaredSHA256, sum), false
	err := s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		for _, record := range before {
			if err := record(tx); err != nil {
				return err
			}
		}
		if mismatch {
			return reject(ctx, tx, u)
		}
		waiting := queue.CountWaiting(tx)
		first, err = tx.MarkUploaded(ctx, u.ID, key, sum)
		if err != nil || !first || u.Kind == storage.Partial {
			return err
		}
		return s.Queue.EnqueueBehind(ctx, tx, *waiting+1, u.ID) // it was counted before
	}, storage.PlannedOnce)
	switch {
	case mismatch && (err == nil || errors.Is(err, storage.ErrWrongStatus)):
		s.Metrics.became(storage.Failed)
		s.release(ctx, append(u.Partials, u.ID)...)
		return &tenant.Refusal{Cause: ErrChecksumMismatch, Detail: mismatchDetail}
	case err != nil:
		return err
	}
	if first && u.Kind != storage.Partial {
		s.Metrics.became(storage.Uploaded)
		s.Log.InfoContext(ctx, "upload complete", slog.String("upload_id", u.ID.String()), tenant.LogAttr(ctx))
	}
	return nil
}

const mismatchDetail = "What arrived is not what the sender announced (SHA-256). Nothing was kept; send the file again."

// reject fails an upload whose checksum is wrong, with all that it was made of.
func reject(ctx context.Context, tx storage.Tx, u storage.Upload) error {
	failure := storage.Failure{Reason: storage.ReasonChecksumMismatch, Detail: mismatchDetail}
	if err := tx.Move(ctx, u.ID, storage.MoveReject.Because(failure)); err != nil {
		return err
	}
	for _, id := range u.Partials {
		if err := tx.Move(ctx, id, storage.MoveReject.Because(failure)); err != nil {
			return err
		}
	}
	return nil
}

// end ends an upload by a move, if held, which is called first in the transaction, allows it.
func (s *Uploads) end(ctx context.Context, upload uuid.UUID, t storage.Transition, held func(context.Context, storage.Tx) error) error {
	return s.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := held(ctx, tx); err != nil {
			return err
		}
		return tx.Move(ctx, upload, t)
	})
}

// held returns [storage.ErrFenced] unless the upload's lease is still held, until the transaction ends. Without the lease,
// another request may have acknowledged bytes since the upload was opened. A lease that was given back was so by the finish: then
// it is [storage.ErrWrongStatus].
func (u *Upload) held(ctx context.Context, tx storage.Tx) error {
	if u.lease.Ended() {
		return storage.ErrWrongStatus
	}
	if err := tx.LockTenant(ctx); err != nil { // before the lease, as everywhere
		return err
	}
	return tx.RequireLease(ctx, u.Row().ID, u.lease.Fence())
}

// cancel cancels an unfinished upload. One that has all its bytes is [storage.ErrWrongStatus].
func (s *Uploads) cancel(ctx context.Context, upload uuid.UUID, held func(context.Context, storage.Tx) error) error {
	if err := s.end(ctx, upload, storage.Transition{Move: storage.MoveCancel}, held); err != nil {
		return err
	}
	s.Metrics.became(storage.Cancelled)
	s.Log.InfoContext(ctx, "upload cancelled", slog.String("upload_id", upload.String()), tenant.LogAttr(ctx))
	return nil
}

// LostDetail tells the user of an upload whose object is gone what to do.
const LostDetail = "What had been stored of this file is gone. Send it again."

// lose ends an upload of which S3 no longer has what was stored.
func (s *Uploads) lose(ctx context.Context, upload uuid.UUID, held func(context.Context, storage.Tx) error) error {
	err := s.end(ctx, upload, storage.MoveReject.Because(storage.Failure{Reason: storage.ReasonLost, Detail: LostDetail}), held)
	if err == nil {
		s.Metrics.became(storage.Failed)
	}
	return err
}
