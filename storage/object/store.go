package object

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
)

// The smallest part that S3 takes, save for the last, and the most parts that it takes (Amazon S3 User
// Guide, "Amazon S3 multipart upload limits").
const (
	MinPartSize = 5 << 20 // bytes
	MaxParts    = 10_000
)

// Config shapes a Store.
type Config struct {
	PartSize int64 `name:"part-size" type:"bytes" help:"Size of a part in S3; 5MiB or more."`

	// While a client is so slow that a part would not be full, or its upload not whole, within
	// CheckpointInterval, what it has brought becomes durable each time that is CheckpointBytes, and at the
	// latest after CheckpointInterval. A server that dies costs its clients no more than that.
	CheckpointBytes    int64         `name:"checkpoint-bytes" type:"bytes" help:"How many received bytes of a slow client are not yet durable, at most. A client sends these again after a crash of the server."`
	CheckpointInterval time.Duration `name:"checkpoint-interval" help:"How long received bytes are not yet durable, at most."`

	Buffers BufferConfig `embed:""`
}

// DefaultConfig is what is used for what is not said.
func DefaultConfig() Config {
	return Config{
		PartSize:        8 << 20,
		CheckpointBytes: 1 << 20, CheckpointInterval: 2 * time.Second,
		Buffers: BufferConfig{Memory: 64 << 20, Disk: 1 << 30},
	}
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	errs := []error{c.Buffers.Validate()}
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

// A Store keeps uploads as S3 objects, with their state in Postgres. The offset that it tells is that of bytes which are
// durable, in order and without holes; it follows them and never runs ahead.
type Store struct {
	db         *storage.DB
	bucket     *Bucket
	conf       Config
	buffers    *buffers
	tails      chan struct{} // holds one for each tail being written, so that they leave connections to others
	assemblies chan struct{} // holds one for each final upload being assembled
	metrics    *Metrics
	log        *slog.Logger
}

// tailsAtOnce is how many tails may be written at a time.
const tailsAtOnce = 8

// NewStore makes a store over a bucket and its rows.
func NewStore(db *storage.DB, b *Bucket, conf Config, m *Metrics, log *slog.Logger) (*Store, error) {
	buffers, err := newBuffers(conf.Buffers)
	if err != nil {
		return nil, err
	}
	return &Store{
		db: db, bucket: b, conf: conf, buffers: buffers,
		tails: make(chan struct{}, tailsAtOnce), assemblies: make(chan struct{}, assembliesAtOnce), metrics: m, log: log,
	}, nil
}

// Close gives the buffers back. No request may be running.
func (s *Store) Close() error { return s.buffers.close() }

// Unavailable reports whether S3 is given up on for the moment: what is sent now could not be kept.
func (s *Store) Unavailable() bool { return s.bucket.Unavailable() }

// Open reads an upload of the tenant in ctx, or returns [storage.ErrNotFound]. Whoever opens it decides what may be done
// with it; all writes show the fence of the lease. Without a lease (nil) nothing can be written.
func (s *Store) Open(ctx context.Context, id uuid.UUID, l *lease.Lease) (*Upload, error) {
	var u *Upload
	err := s.db.InTenant(ctx, func(tx storage.Tx) error {
		u = s.Read(tx, id)
		return nil
	}, storage.PlannedOnce)
	if err != nil {
		return nil, err
	}
	u.Hold(l)
	return u, nil
}

// Read is [Store.Open] in a transaction, and without a lease until [Upload.Hold]. The upload is read once the transaction's
// next answer is ([storage.Later]), which has the error.
func (s *Store) Read(tx storage.Tx, id uuid.UUID) *Upload {
	u := &Upload{store: s, tenant: tx.Tenant}
	storage.ReadContent(tx, id, &u.row, &u.content)
	return u
}
