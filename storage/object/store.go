package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/uuid"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/storage"
)

// The smallest part that S3 takes, save for the last, and the most parts that it takes (Amazon S3 User
// Guide, "Amazon S3 multipart upload limits").
const (
	MinPartSize = 5 << 20 // bytes
	MaxParts    = 10_000
)

// A Finisher is told, before the client is, that an upload's object is whole under key with the SHA-256
// sum. It may be told the same again, after a crash or a failure, and must then change nothing. Until it
// returns nil nobody hears that the upload is complete.
type Finisher interface {
	Finish(ctx context.Context, upload uuid.UUID, key string, sum []byte) error
}

// An Ender ends an upload in its rows. Both methods return [storage.ErrWrongStatus] for one that takes no
// more bytes.
type Ender interface {
	// Cancel ends an upload that its client takes back.
	Cancel(ctx context.Context, upload uuid.UUID) error
	// Lose ends an upload of which S3 no longer has what was stored.
	Lose(ctx context.Context, upload uuid.UUID) error
}

// Config shapes a Store.
type Config struct {
	PartSize int64 // bytes
}

// Validate reports what is wrong with c, given the largest upload in bytes.
func (c Config) Validate(maxUpload int64) error {
	switch {
	case c.PartSize < MinPartSize:
		return fmt.Errorf("part size: S3 takes no part smaller than %d bytes (5MiB)", MinPartSize)
	case maxUpload/c.PartSize >= MaxParts/2: // each attempt at a part uses up a number
		return fmt.Errorf("part size: an upload of %d bytes would have more than %d parts; at least %d bytes are needed",
			maxUpload, MaxParts/2, maxUpload/(MaxParts/2)+1)
	}
	return nil
}

// A Store is the tus data store: uploads as S3 objects, their state in Postgres. The offset that it tells
// is that of bytes which are durable in S3, in order and without holes; it follows them and never runs
// ahead.
type Store struct {
	db      *storage.DB
	bucket  *Bucket
	finish  Finisher
	end     Ender
	size    int64 // of a part
	buffers sync.Pool
	metrics *Metrics
	log     *slog.Logger
}

// NewStore makes a store over a bucket and its rows.
func NewStore(db *storage.DB, b *Bucket, f Finisher, e Ender, conf Config, m *Metrics, log *slog.Logger) *Store {
	return &Store{db: db, bucket: b, finish: f, end: e, size: conf.PartSize, metrics: m, log: log}
}

// What tusd is told when an upload cannot go on.
var (
	// ErrGone says that the upload has ended and takes no more bytes.
	ErrGone = handler.NewError("ERR_UPLOAD_GONE", "upload has ended and takes no more bytes", http.StatusGone)
	// ErrLost says that S3 no longer has what was stored there.
	ErrLost = handler.NewError("ERR_UPLOAD_LOST", "stored bytes of this upload are gone", http.StatusGone)
	// ErrBusy says that all bytes are safe, but the upload could not be finished just now.
	ErrBusy = handler.NewError("ERR_UPLOAD_NOT_SETTLED", "upload is being finished", http.StatusLocked)
	// ErrComplete says that the upload is past cancelling.
	ErrComplete = handler.NewError("ERR_UPLOAD_COMPLETE", "a complete upload cannot be cancelled", http.StatusConflict)
)

// NewUpload implements [handler.DataStore]. The rows are there already: admission made them.
func (s *Store) NewUpload(ctx context.Context, info handler.FileInfo) (handler.Upload, error) {
	id, err := uuid.Parse(info.ID)
	if err != nil {
		return nil, fmt.Errorf("new upload: id %q is not one of ours", info.ID)
	}
	return s.open(ctx, id)
}

// GetUpload implements [handler.DataStore]. tusd calls it under the upload's lease. An upload that has all
// its bytes but was never finished, because a server died or a dependency failed just then, is finished
// first, so that no client sees an offset equal to the size of an upload that is not complete.
func (s *Store) GetUpload(ctx context.Context, id string) (handler.Upload, error) {
	upload, err := uuid.Parse(id)
	if err != nil {
		return nil, handler.ErrNotFound
	}
	u, err := s.open(ctx, upload)
	if err != nil {
		return nil, err
	}
	if u.row.Status.Receiving() && u.content.Received == u.row.Size && u.fence != 0 {
		if err := u.FinishUpload(ctx); err != nil {
			s.log.ErrorContext(ctx, "upload has all its bytes but cannot be finished",
				slog.String("upload_id", id), slog.Any("err", err))
			var known handler.Error
			if errors.As(err, &known) {
				return nil, err
			}
			return nil, ErrBusy
		}
	}
	return u, nil
}

// AsTerminatableUpload implements [handler.TerminaterDataStore].
func (s *Store) AsTerminatableUpload(u handler.Upload) handler.TerminatableUpload { return u.(*upload) }

func (s *Store) open(ctx context.Context, id uuid.UUID) (*upload, error) {
	u := &upload{store: s, fence: fenceIn(ctx)}
	err := s.db.InTenant(ctx, func(tx storage.Tx) (err error) {
		if u.row, err = tx.Upload(ctx, id); err != nil {
			return err
		}
		u.content, err = tx.Content(ctx, id)
		u.keys = Keys{Tenant: tx.Tenant, Project: u.row.Project, Upload: id}
		return err
	})
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, handler.ErrNotFound
	case err != nil:
		return nil, err
	}
	switch u.row.Status {
	case storage.Cancelled, storage.Expired:
		return nil, ErrGone
	case storage.Failed:
		switch *u.row.FailureReason {
		case storage.ReasonChecksumMismatch, storage.ReasonLost:
			return nil, ErrGone // its bytes are not there any more
		}
	}
	return u, nil
}

// An upload is one request's view of an upload, under that request's lease.
type upload struct {
	store   *Store
	row     storage.Upload
	content storage.Content
	keys    Keys
	fence   int64 // of the request's lease
}

// GetInfo implements [handler.Upload].
func (u *upload) GetInfo(context.Context) (handler.FileInfo, error) {
	return handler.FileInfo{
		ID:       u.row.ID.String(),
		Size:     u.row.Size,
		Offset:   u.content.Received,
		MetaData: u.row.Metadata,
	}, nil
}

// GetReader implements [handler.Upload] by refusing: an upload is never read before it is scanned, and
// then by a presigned link.
func (u *upload) GetReader(context.Context) (io.ReadCloser, error) {
	return nil, handler.ErrNotImplemented
}

// FinishUpload implements [handler.Upload]: the object is made whole, then the finisher is told. It can be
// repeated from any point at which it was cut off.
func (u *upload) FinishUpload(ctx context.Context) error {
	if !u.content.Stored {
		if err := u.assemble(ctx); err != nil {
			return err
		}
	}
	hash, err := resumeHash(u.content.HashState)
	if err != nil {
		return err
	}
	return u.store.finish.Finish(ctx, u.row.ID, *u.content.ObjectKey, hash.Sum(nil))
}

// assemble completes the multipart upload and records that the object is stored.
func (u *upload) assemble(ctx context.Context) error {
	if u.content.MultipartID == nil {
		return fmt.Errorf("assemble upload %s: all bytes are there, but no part is", u.row.ID)
	}
	var parts []storage.Part
	err := u.store.db.InTenant(ctx, func(tx storage.Tx) (err error) {
		parts, err = tx.Parts(ctx, u.row.ID)
		return err
	})
	if err != nil {
		return err
	}
	done := make([]types.CompletedPart, len(parts))
	for i, p := range parts {
		done[i] = types.CompletedPart{PartNumber: aws.Int32(p.Number), ETag: aws.String(p.ETag)}
	}
	b := u.store.bucket
	_, err = b.s3.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &b.name, Key: u.content.ObjectKey, UploadId: u.content.MultipartID,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: done},
	})
	if isAbsent(err) {
		// Either it was completed before, and the answer or our commit was lost, or somebody aborted it.
		err = u.checkAssembled(ctx)
	}
	if err != nil {
		return fmt.Errorf("assemble upload %s: %w", u.row.ID, err)
	}
	return u.save(ctx, func(to *storage.Content) { to.Stored = true }, nil)
}

func (u *upload) checkAssembled(ctx context.Context) error {
	size, err := u.store.bucket.Size(ctx, *u.content.ObjectKey)
	switch {
	case err != nil && !errors.Is(err, ErrNoObject):
		return err
	case err != nil || size != u.row.Size:
		return u.lost(ctx)
	}
	return nil
}

// lost ends an upload whose acknowledged bytes S3 no longer has: its client must begin a new one, under the
// same client id if it likes.
func (u *upload) lost(ctx context.Context) error {
	err := u.store.end.Lose(context.WithoutCancel(ctx), u.row.ID)
	switch {
	case err == nil:
		u.store.metrics.offsetsLost.Inc()
		u.store.log.ErrorContext(ctx, "acknowledged bytes are gone from S3",
			slog.String("upload_id", u.row.ID.String()), slog.Int64("offset", u.content.Received))
	case !errors.Is(err, storage.ErrWrongStatus):
		return fmt.Errorf("end lost upload %s: %w", u.row.ID, err)
	}
	return ErrLost
}

// save commits a change to where the upload's bytes are, together with the part that makes it true, if
// there is one. The view changes only if the commit succeeds.
func (u *upload) save(ctx context.Context, change func(*storage.Content), part *storage.Part) error {
	to := u.content
	change(&to)
	err := u.store.db.InTenant(ctx, func(tx storage.Tx) error {
		if part != nil {
			if err := tx.AddPart(ctx, u.row.ID, *part); err != nil {
				return err
			}
		}
		return tx.SaveContent(ctx, u.row.ID, u.fence, u.content, to)
	})
	if errors.Is(err, storage.ErrFenced) {
		return handler.ErrFileLocked
	}
	if err != nil {
		return err
	}
	u.content = to
	return nil
}

// Terminate implements [handler.TerminatableUpload] (tus 1.0.0, Termination). The rows decide; what S3
// still holds afterwards belongs to nobody, so a failure there is only logged.
func (u *upload) Terminate(ctx context.Context) error {
	err := u.store.end.Cancel(ctx, u.row.ID)
	if errors.Is(err, storage.ErrWrongStatus) {
		return ErrComplete
	}
	if err != nil {
		return err
	}
	b := u.store.bucket
	var errs []error
	if u.content.MultipartID != nil {
		_, err := b.s3.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
			Bucket: &b.name, Key: u.content.ObjectKey, UploadId: u.content.MultipartID,
		})
		if !isAbsent(err) {
			errs = append(errs, err)
		}
	} else if u.content.ObjectKey != nil {
		errs = append(errs, b.Delete(ctx, *u.content.ObjectKey))
	}
	if u.content.TailKey != nil {
		errs = append(errs, b.Delete(ctx, *u.content.TailKey))
	}
	if err := errors.Join(errs...); err != nil {
		u.store.log.WarnContext(ctx, "cancelled upload left something in S3",
			slog.String("upload_id", u.row.ID.String()), slog.Any("err", err))
	}
	return nil
}
