package hooks

import (
	"bytes"
	"context"
	"errors"
	"log/slog"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Record records, in one transaction, that the upload's object is complete, settles its quota, enqueues its processing and
// writes its timeline. Only after it has returned nil may the client be told that the upload is complete. A repeated call
// changes nothing. If the content does not have the declared checksum, its object is deleted, the upload fails, with its
// partial uploads if it is a final one, and Record returns [ErrChecksumMismatch]. The processing of a partial upload is not
// enqueued: it waits for its final one.
func (s *Uploads) Record(ctx context.Context, upload uuid.UUID, key string, sum []byte) error {
	var mismatch, first bool
	var u storage.Upload
	wrong := []string{key}
	err := s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if u, err = tx.Upload(ctx, upload); err != nil {
			return err
		}
		if u.DeclaredSHA256 != nil && !bytes.Equal(u.DeclaredSHA256, sum) {
			mismatch = true
			more, err := reject(ctx, tx, u)
			wrong = append(wrong, more...)
			return err
		}
		first, err = tx.MarkUploaded(ctx, upload, key, sum)
		if err != nil || !first || u.Kind == storage.Partial {
			return err
		}
		return s.Queue.Enqueue(ctx, tx, upload)
	})
	switch {
	case mismatch && (err == nil || errors.Is(err, storage.ErrWrongStatus)):
		return s.discard(ctx, upload, wrong)
	case err != nil:
		return err
	}
	if first && u.Kind != storage.Partial {
		s.Metrics.became(storage.Uploaded)
		s.Log.InfoContext(ctx, "upload complete", slog.String("upload_id", upload.String()), tenant.LogAttr(ctx))
	}
	return nil
}

const mismatchDetail = "What arrived is not what the sender announced (SHA-256). Nothing was kept; send the file again."

// reject fails an upload whose checksum is wrong, with all that it was made of, and returns the keys of that.
func reject(ctx context.Context, tx storage.Tx, u storage.Upload) (keys []string, err error) {
	failure := storage.Failure{Reason: storage.ReasonChecksumMismatch, Detail: mismatchDetail}
	if err := tx.Move(ctx, u.ID, storage.MoveReject.Because(failure)); err != nil {
		return nil, err
	}
	partials, err := tx.FindUploads(ctx, `where u.tenant_id = $1 and u.id = any($2)`, u.Partials)
	if err != nil {
		return nil, err
	}
	for _, p := range partials {
		if err := tx.Move(ctx, p.ID, storage.MoveReject.Because(failure)); err != nil {
			return nil, err
		}
		keys = append(keys, *p.ObjectKey)
	}
	return keys, nil
}

// discard deletes the objects of an upload whose checksum is wrong. Its row says so already.
func (s *Uploads) discard(ctx context.Context, upload uuid.UUID, keys []string) error {
	s.Metrics.became(storage.Failed)
	for _, key := range keys {
		if err := s.Bucket.Delete(ctx, key); err != nil {
			s.Log.WarnContext(ctx, "rejected object not deleted", slog.String("upload_id", upload.String()), slog.Any("err", err))
		}
	}
	return &tenant.Refusal{Cause: ErrChecksumMismatch, Detail: mismatchDetail}
}

// cancel cancels an unfinished upload and refunds its quota. One that has all its bytes is [storage.ErrWrongStatus].
func (s *Uploads) cancel(ctx context.Context, upload uuid.UUID) error {
	if err := s.DB.InTenant(ctx, func(tx storage.Tx) error { return tx.Move(ctx, upload, storage.Transition{Move: storage.MoveCancel}) }); err != nil {
		return err
	}
	s.Metrics.became(storage.Cancelled)
	s.Log.InfoContext(ctx, "upload cancelled", slog.String("upload_id", upload.String()), tenant.LogAttr(ctx))
	return nil
}

// LostDetail tells the user of an upload whose object is gone what to do.
const LostDetail = "What had been stored of this file is gone. Send it again."

// lose ends an upload of which S3 no longer has what was stored, and refunds its quota.
func (s *Uploads) lose(ctx context.Context, upload uuid.UUID) error {
	err := s.DB.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, upload, storage.MoveReject.Because(storage.Failure{Reason: storage.ReasonLost, Detail: LostDetail}))
	})
	if err == nil {
		s.Metrics.became(storage.Failed)
	}
	return err
}
