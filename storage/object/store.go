package object

import (
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"time"

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

// An Ender ends an upload in its rows. Cancel and Lose return [storage.ErrWrongStatus] for one that takes no
// more bytes.
type Ender interface {
	// Cancel ends an upload that its client takes back.
	Cancel(ctx context.Context, upload uuid.UUID) error
	// Delete makes one that takes no more bytes vanish. One that is part of another is [storage.ErrWrongStatus].
	Delete(ctx context.Context, upload uuid.UUID) error
	// Lose ends an upload of which S3 no longer has what was stored.
	Lose(ctx context.Context, upload uuid.UUID) error
}

// Config shapes a Store.
type Config struct {
	PartSize int64 `name:"part-size" type:"bytes" help:"Size of a part in S3; 5MiB or more."`

	// While a client is so slow that a part would not be full, or its upload not whole, within
	// CheckpointInterval, what it has brought becomes durable each time that is CheckpointBytes, and at the
	// latest after CheckpointInterval. A server that dies costs its clients no more than that.
	CheckpointBytes    int64         `name:"checkpoint-bytes" type:"bytes" help:"How many bytes a slow client sends until they are made durable. A server crash costs a client at most this."`
	CheckpointInterval time.Duration `name:"checkpoint-interval" help:"How long received bytes wait at most until they are made durable."`

	ExpiryConfig `embed:""`
	Buffers      BufferConfig `embed:""`
}

// DefaultConfig is what is used for what is not said.
func DefaultConfig() Config {
	return Config{
		PartSize:        8 << 20,
		CheckpointBytes: 1 << 20, CheckpointInterval: 2 * time.Second,
		ExpiryConfig: DefaultExpiryConfig(),
		Buffers:      BufferConfig{Memory: 64 << 20, Disk: 1 << 30},
	}
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	errs := []error{c.ExpiryConfig.Validate(), c.Buffers.Validate()}
	if c.PartSize < MinPartSize {
		errs = append(errs, fmt.Errorf("TRAMO_PART_SIZE: S3 takes no part smaller than %d bytes (5MiB)", MinPartSize))
	}
	if c.CheckpointBytes < blockSize {
		errs = append(errs, fmt.Errorf("TRAMO_CHECKPOINT_BYTES: %d bytes are less than %d (64KiB)", c.CheckpointBytes, blockSize))
	}
	if c.CheckpointInterval < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("TRAMO_CHECKPOINT_INTERVAL: %s is less than 100ms", c.CheckpointInterval))
	}
	return errors.Join(errs...)
}

// ValidateMaxUpload reports whether parts of this size are enough for an upload of so many bytes.
func (c Config) ValidateMaxUpload(bytes int64) error {
	if c.PartSize >= MinPartSize && bytes/c.PartSize >= MaxParts/2 { // each attempt at a part uses up a number
		return fmt.Errorf("TRAMO_PART_SIZE: an upload of TRAMO_MAX_UPLOAD_SIZE, %d bytes, would have more than %d parts; at least %d bytes are needed",
			bytes, MaxParts/2, bytes/(MaxParts/2)+1)
	}
	return nil
}

// A Store is the tus data store: uploads as S3 objects, their state in Postgres. The offset that it tells
// is that of bytes which are durable, in order and without holes; it follows them and never runs ahead.
type Store struct {
	db      *storage.DB
	bucket  *Bucket
	finish  Finisher
	end     Ender
	conf    Config
	buffers *buffers
	tails   chan struct{} // holds one for each tail being written, so that they leave connections to others
	joins   chan struct{} // holds one for each final upload being put together
	metrics *Metrics
	log     *slog.Logger
}

// tailsAtOnce is how many tails may be written at a time.
const tailsAtOnce = 8

// NewStore makes a store over a bucket and its rows.
func NewStore(db *storage.DB, b *Bucket, f Finisher, e Ender, conf Config, m *Metrics, log *slog.Logger) (*Store, error) {
	buffers, err := newBuffers(conf.Buffers)
	if err != nil {
		return nil, err
	}
	return &Store{
		db: db, bucket: b, finish: f, end: e, conf: conf, buffers: buffers,
		tails: make(chan struct{}, tailsAtOnce), joins: make(chan struct{}, joinsAtOnce), metrics: m, log: log,
	}, nil
}

// Close gives the buffers back. No request may be running.
func (s *Store) Close() error { return s.buffers.close() }

// What tusd is told when an upload cannot go on.
var (
	// ErrGone says that the upload has ended and takes no more bytes.
	ErrGone = handler.NewError("ERR_UPLOAD_GONE", "upload has ended and takes no more bytes", http.StatusGone)
	// ErrLost says that S3 no longer has what was stored there.
	ErrLost = handler.NewError("ERR_UPLOAD_LOST", "stored bytes of this upload are gone", http.StatusGone)
	// ErrBusy says that all bytes are safe, but the upload could not be finished just now.
	ErrBusy = handler.NewError("ERR_UPLOAD_NOT_SETTLED", "upload is being finished", http.StatusLocked)
	// ErrComplete says that the upload is part of another one, or just becoming that.
	ErrComplete = handler.NewError("ERR_UPLOAD_COMPLETE", "part of another upload cannot be cancelled", http.StatusConflict)
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
// first, so that no client sees an offset equal to the size of an upload that is not complete. So is a final
// upload: its bytes are all there from the beginning (tus 1.0.0, Concatenation).
func (s *Store) GetUpload(ctx context.Context, id string) (handler.Upload, error) {
	upload, err := uuid.Parse(id)
	if err != nil {
		return nil, handler.ErrNotFound
	}
	u, err := s.open(ctx, upload)
	if err != nil {
		return nil, err
	}
	if u.unfinished() && u.fence != 0 {
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

// unfinished reports whether the upload has all that it takes to be finished, and is not.
func (u *upload) unfinished() bool {
	return u.row.Status.Receiving() && u.row.UploadedAt == nil && !u.row.SizeDeferred &&
		(u.content.Received == u.row.Size || u.row.Kind == storage.Final)
}

// AsTerminatableUpload implements [handler.TerminaterDataStore].
func (s *Store) AsTerminatableUpload(u handler.Upload) handler.TerminatableUpload { return u.(*upload) }

func (s *Store) open(ctx context.Context, id uuid.UUID) (*upload, error) {
	u := &upload{store: s, fence: fenceIn(ctx)}
	err := s.db.InTenant(ctx, func(tx storage.Tx) (err error) {
		if u.row, u.content, err = tx.Whole(ctx, id); err != nil {
			return err
		}
		if !tx.Who.MayWrite(u.row.UserID) {
			return storage.ErrNotYours
		}
		u.keys = Keys{Tenant: tx.Tenant, Project: u.row.Project, Upload: id}
		return nil
	})
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, handler.ErrNotFound
	case err != nil:
		return nil, err
	}
	if s.expired(u.row) {
		return nil, ErrExpired
	}
	switch u.row.Status {
	case storage.Cancelled:
		return nil, ErrGone
	case storage.Failed:
		if terminating(ctx) {
			return u, nil
		}
		switch *u.row.FailureReason {
		case storage.ReasonChecksumMismatch, storage.ReasonLost:
			return nil, ErrGone // its bytes are not there any more
		}
	}
	return u, nil
}

type terminationKey struct{}

// ForTermination prepares ctx for a request that is to end an upload: also one that has failed can be opened by it.
func ForTermination(ctx context.Context) context.Context {
	return context.WithValue(ctx, terminationKey{}, true)
}

func terminating(ctx context.Context) bool {
	yes, _ := ctx.Value(terminationKey{}).(bool)
	return yes
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
	partials := make([]string, len(u.row.Partials))
	for i, id := range u.row.Partials {
		partials[i] = id.String()
	}
	return handler.FileInfo{
		ID:             u.row.ID.String(),
		IsPartial:      u.row.Kind == storage.Partial,
		IsFinal:        u.row.Kind == storage.Final,
		PartialUploads: partials,
		Size:           u.row.Size,
		SizeIsDeferred: u.row.SizeDeferred,
		Offset:         u.content.Received,
		MetaData:       u.row.Metadata,
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
	if u.row.Kind == storage.Final && u.content.Received < u.row.Size {
		u.takeFence(ctx)
		if err := u.join(ctx); err != nil {
			return err
		}
	}
	if !u.content.Stored {
		if err := u.assemble(ctx); err != nil {
			return err
		}
	}
	hash, err := resumeHash(u.content.HashState)
	if err != nil {
		return err
	}
	err = u.store.finish.Finish(ctx, u.row.ID, *u.content.ObjectKey, hash.Sum(nil))
	switch {
	case errors.Is(err, storage.ErrWrongStatus):
		return ErrGone // its batch was cancelled while the last bytes came, which asks for no lease
	case err != nil:
		return err
	}
	if u.row.Kind == storage.Final {
		u.removePartials(ctx)
	}
	return nil
}

// assemble makes the object of what is durable, and records that it is there.
func (u *upload) assemble(ctx context.Context) error {
	if u.content.TailSize > 0 { // the last bytes came before their client said that they were the last
		w, err := u.newWriter(ctx, nil)
		if err != nil {
			return err
		}
		if err := w.close(nil); err != nil || u.content.Stored {
			return err
		}
	}
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
	err = u.store.bucket.completeMultipart(ctx, *u.content.ObjectKey, *u.content.MultipartID, parts)
	if errors.Is(err, ErrNoObject) {
		// Either it was completed before, and the answer or our commit was lost, or somebody aborted it.
		err = u.checkAssembled(ctx)
	}
	if err != nil {
		return fmt.Errorf("assemble upload %s: %w", u.row.ID, err)
	}
	return u.advance(ctx, storage.Progress{
		From: u.row.Size, To: u.row.Size, HashState: u.content.HashState, Object: *u.content.ObjectKey,
	}, nil)
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
	case err == nil && u.row.Kind != storage.Final: // whose bytes are its partial uploads'
		u.store.metrics.offsetsLost.Inc()
		u.store.log.ErrorContext(ctx, "acknowledged bytes are gone from S3",
			slog.String("upload_id", u.row.ID.String()), slog.Int64("offset", u.content.Received))
	case err != nil && !errors.Is(err, storage.ErrWrongStatus):
		return fmt.Errorf("end lost upload %s: %w", u.row.ID, err)
	}
	return ErrLost
}

// Terminate implements [handler.TerminatableUpload] (tus 1.0.0, Termination). The rows decide; what S3
// still holds afterwards belongs to nobody, so a failure there is only logged. An upload that takes no more bytes
// is deleted, and keeps what it has for a while.
func (u *upload) Terminate(ctx context.Context) error {
	err := u.store.end.Cancel(ctx, u.row.ID)
	if errors.Is(err, storage.ErrWrongStatus) {
		if err = u.store.end.Delete(ctx, u.row.ID); errors.Is(err, storage.ErrWrongStatus) {
			return ErrComplete
		}
		return err
	}
	if err != nil {
		return err
	}
	b := u.store.bucket
	if u.content.MultipartID != nil && !u.content.Stored {
		err = b.abortMultipart(ctx, *u.content.ObjectKey, *u.content.MultipartID)
	} else if u.content.ObjectKey != nil {
		err = b.Delete(ctx, *u.content.ObjectKey)
	}
	if err != nil {
		u.store.log.WarnContext(ctx, "cancelled upload left something in S3",
			slog.String("upload_id", u.row.ID.String()), slog.Any("err", err))
	}
	return nil
}

// resumeHash continues the SHA-256 that was saved as state; nil begins one.
func resumeHash(state []byte) (hash.Hash, error) {
	h := sha256.New()
	if state == nil {
		return h, nil
	}
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return nil, fmt.Errorf("resume hash: %w", err)
	}
	return h, nil
}
