package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// Why a batch is refused, besides the reasons of uploads.
var (
	ErrNoBatch        = errors.New("no such batch")
	ErrBatchCancelled = errors.New("batch was cancelled")
	ErrOtherProject   = errors.New("batch is of another project")
	ErrBadBatch       = errors.New("batch is not valid")
	ErrBadManifest    = errors.New("entries of the manifest are not valid")
	ErrTooMany        = errors.New("manifest has too many entries")
	ErrNotManager     = errors.New("role may not manage")
	ErrNothingToRetry = errors.New("upload has not failed")
	ErrNoRetry        = errors.New("upload may not be processed again")
	ErrKeyReused      = errors.New("idempotency key is another request's")
	ErrKeyBusy        = errors.New("a request with this idempotency key is running")
)

// Limits on a batch, in bytes.
const (
	maxBatchName = 255
	maxLabel     = 128
)

// BatchConfig shapes batches.
type BatchConfig struct {
	MaxUploads   int           `name:"max-batch" help:"Most uploads in one POST to /api/batches; 10000 or less."`
	StalledAfter time.Duration `name:"stalled-after" help:"How long an unfinished upload receives nothing until the API and batches show it as stuck."`
}

// DefaultBatchConfig is what is used for what is not said.
func DefaultBatchConfig() BatchConfig {
	return BatchConfig{MaxUploads: 1000, StalledAfter: 5 * time.Minute}
}

// Validate reports what is wrong with c.
func (c BatchConfig) Validate() error {
	var errs []error
	if c.MaxUploads < 1 || c.MaxUploads > 10_000 {
		errs = append(errs, fmt.Errorf("TRAMO_MAX_BATCH: %d is not between 1 and 10000", c.MaxUploads))
	}
	if c.StalledAfter < time.Second {
		errs = append(errs, fmt.Errorf("TRAMO_STALLED_AFTER: %s is less than 1s", c.StalledAfter))
	}
	return errors.Join(errs...)
}

// Batches make and manage batches.
type Batches struct {
	BatchConfig
	DB      *storage.DB
	Policy  Policy
	Queue   *queue.Queue
	Metrics *Metrics
	Log     *slog.Logger
}

// A Manifest is what a client says of a batch.
type Manifest struct {
	Project  string // "" for the default one
	Name     string
	ClientID string // the client's own name for it; "" for none
	Uploads  []ManifestEntry
}

// A ManifestEntry is what a client says of an upload in it.
type ManifestEntry struct {
	ClientID string
	Filename string
	Size     int64  // bytes
	Type     string // media type; "" for one that it does not know
	SHA256   string // in hexadecimal digits; "" for one that it does not know
}

// A ManifestError tells all that is wrong with a manifest, of which nothing was created.
type ManifestError struct{ Entries []EntryError }

func (*ManifestError) Error() string { return ErrBadManifest.Error() }

// Unwrap returns [ErrBadManifest].
func (*ManifestError) Unwrap() error { return ErrBadManifest }

// An EntryError says what is wrong with one entry; Err wraps one of this package's errors.
type EntryError struct {
	Index    int // from 0
	ClientID string
	Err      error
}

// Filed is what became of a manifest.
type Filed struct {
	Batch   storage.Batch `json:"batch"`
	Made    bool          `json:"made"` // the batch is new
	Uploads []FiledUpload `json:"uploads"`
}

// A FiledUpload is what became of an entry.
type FiledUpload struct {
	ID       uuid.UUID      `json:"id"`
	ClientID string         `json:"client_id"`
	Status   storage.Status `json:"status"`
	Offset   int64          `json:"offset"` // bytes, or [Untold]
	Existing bool           `json:"existing"`
}

// Create makes a batch with the uploads of a manifest, or adds them to the batch that its client made before under the
// same client id. All of them are there afterwards, or none: what is wrong with entries is told of all at once, as a
// [*ManifestError]. Entries whose client_id names an upload of this user's that is there already become that one.
func (b *Batches) Create(ctx context.Context, m Manifest, o storage.Once) (Filed, error) {
	who, err := b.writer(ctx)
	if err != nil {
		return Filed{}, err
	}
	if m.Project == "" {
		m.Project = object.DefaultProject
	}
	if err := checkBatch(who, m); err != nil {
		return Filed{}, err
	}
	n := storage.NewBatch{Project: m.Project, Name: m.Name, ClientID: m.ClientID, UserID: who.User, Manifest: true}
	if n.ID, err = uuid.NewV7(); err != nil {
		return Filed{}, fmt.Errorf("make batch id: %w", err)
	}
	return b.file(ctx, who, m.Uploads, o, func(tx storage.Tx) (storage.Batch, bool, error) {
		batch, made, err := tx.MakeBatch(ctx, n)
		if !batch.Manifest {
			batch.Name = n.Name // a label was all that it had for a name
		}
		return batch, made, err
	})
}

// Add adds uploads to a batch, which is open again if it had ended. A batch that this user does not see is
// [storage.ErrNotFound].
func (b *Batches) Add(ctx context.Context, id uuid.UUID, entries []ManifestEntry, o storage.Once) (Filed, error) {
	who, err := b.writer(ctx)
	if err != nil {
		return Filed{}, err
	}
	return b.file(ctx, who, entries, o, func(tx storage.Tx) (storage.Batch, bool, error) {
		batch, err := tx.Batch(ctx, id)
		return batch, false, err
	})
}

func (*Batches) writer(ctx context.Context) (tenant.Identity, error) {
	who, err := tenant.From(ctx)
	if err == nil && !who.Role.CanUpload() {
		err = ErrForbidden
	}
	return who, err
}

func checkBatch(who tenant.Identity, m Manifest) error {
	if err := checkName(m.Name); err != nil {
		return err
	}
	switch {
	case len(m.ClientID) > maxLabel:
		return refuse(ErrBadBatch, "client_id has %d bytes; the most is %d.", len(m.ClientID), maxLabel)
	case !isText(m.ClientID):
		return refuse(ErrBadBatch, "client_id must be UTF-8 text without NUL characters.")
	case !object.ValidProject(m.Project):
		return refuse(ErrBadBatch, "project must match %s.", object.ProjectPattern)
	case !who.Sees(m.Project):
		return refuse(ErrNotYourProject, "You have no project %s. Name one of yours, or ask your administrator for a token that covers it.", m.Project)
	}
	return nil
}

// isText reports whether Postgres text holds s.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// file puts entries into the batch that find returns, in one transaction.
func (b *Batches) file(ctx context.Context, who tenant.Identity, entries []ManifestEntry, o storage.Once,
	find func(storage.Tx) (storage.Batch, bool, error),
) (f Filed, err error) {
	if len(entries) > b.MaxUploads {
		return Filed{}, refuse(ErrTooMany, "The manifest has %d uploads; the most in one request is %d. Send the rest with POST /api/batches/{id}/uploads.",
			len(entries), b.MaxUploads)
	}
	var needed int64
	var answer []byte
	var again bool
	err = b.DB.InTenant(ctx, func(tx storage.Tx) error {
		answer, again, err = tx.Once(ctx, o, func() ([]byte, error) {
			batch, made, err := find(tx)
			if err != nil {
				return nil, err
			}
			f, needed, err = b.fill(ctx, tx, who, batch, entries)
			if err != nil {
				return nil, err
			}
			f.Made = made
			return json.Marshal(f)
		})
		return err
	})
	switch {
	case errors.Is(err, storage.ErrKeyReused):
		return Filed{}, refuse(ErrKeyReused, "You made another request with this Idempotency-Key. Use a new key for each request.")
	case errors.Is(err, storage.ErrKeyBusy):
		return Filed{}, refuse(ErrKeyBusy, "The same request is being worked on. Try again in a moment with the same Idempotency-Key.")
	case errors.Is(err, storage.ErrBatchCancelled):
		return Filed{}, errCancelledBatch()
	case errors.Is(err, storage.ErrQuotaExceeded):
		return Filed{}, b.explainNoRoom(ctx, needed)
	case err != nil:
		return Filed{}, err
	case again:
		f = Filed{}
		if err := json.Unmarshal(answer, &f); err != nil {
			return Filed{}, fmt.Errorf("read kept answer: %w", err)
		}
		return f, nil
	}
	b.Log.InfoContext(ctx, "batch filed", slog.String("tenant_id", who.Tenant.String()),
		slog.String("batch_id", f.Batch.ID.String()), slog.Int("uploads", len(f.Uploads)), slog.Int64("size", needed))
	return f, nil
}

func errCancelledBatch() error {
	return refuse(ErrBatchCancelled, "This batch was cancelled. Make a new one.")
}

// fill makes the entries uploads of the batch. needed is how many bytes of quota that takes.
func (b *Batches) fill(ctx context.Context, tx storage.Tx, who tenant.Identity, batch storage.Batch, entries []ManifestEntry) (f Filed, needed int64, err error) {
	if batch.CancelledAt != nil {
		return Filed{}, 0, storage.ErrBatchCancelled
	}
	policy := b.Policy
	t, err := account(ctx, tx)
	if err != nil {
		return Filed{}, 0, err
	}
	policy.MaxSize = t.MaxUpload(policy.MaxSize)
	wanted, wrong := policy.examineAll(who, batch, entries)
	if len(wrong) > 0 {
		return Filed{}, 0, &ManifestError{wrong}
	}
	p, err := b.plan(ctx, tx, batch, wanted)
	if err != nil {
		return Filed{}, 0, err
	}
	for _, n := range p.create {
		needed += n.Size
	}
	if err := p.carryOut(ctx, tx, batch); err != nil {
		return Filed{}, needed, err
	}
	f.Batch, err = tx.Batch(ctx, batch.ID)
	f.Uploads = p.filed
	return f, needed, err
}

// examineAll checks each entry as an upload that begins by itself is checked.
func (p Policy) examineAll(who tenant.Identity, batch storage.Batch, entries []ManifestEntry) (ns []storage.NewUpload, wrong []EntryError) {
	seen := make(map[string]bool, len(entries))
	for i, e := range entries {
		n, err := p.examine(who, Request{Size: e.Size, Metadata: e.metadata(batch)})
		switch {
		case err != nil:
		case e.ClientID == "":
			err = refuse(ErrBadMetadata, "client_id is missing. Give each file an id of your own, so that it is known again.")
		case seen[e.ClientID]:
			err = refuse(ErrClientIDTaken, "Two uploads of this manifest have this client_id. Use a new client_id for each file.")
		default:
			n.ID, err = uuid.NewV7()
		}
		if err != nil {
			wrong = append(wrong, EntryError{Index: i, ClientID: e.ClientID, Err: err})
		}
		seen[e.ClientID] = true
		n.Batch, n.BatchID = batch.Label(), batch.ID
		ns = append(ns, n)
	}
	return ns, wrong
}

// metadata is what the upload's client would have said of it if it had begun it itself. HEAD tells it.
func (e ManifestEntry) metadata(batch storage.Batch) map[string]string {
	meta := map[string]string{metaClientID: e.ClientID, metaProject: batch.Project, metaBatch: batch.ID.String()}
	for key, value := range map[string]string{metaFilename: e.Filename, metaFiletype: e.Type, metaSHA256: e.SHA256} {
		if value != "" {
			meta[key] = value
		}
	}
	return meta
}

// explainNoRoom is [Admission.explainRefusal] for many uploads.
func (b *Batches) explainNoRoom(ctx context.Context, needed int64) error {
	var t storage.Tenant
	err := b.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		t, err = account(ctx, tx)
		return err
	})
	if err != nil {
		return err
	}
	return noRoomFor(t, fmt.Sprintf("These files have %s and your company has %s left. Nothing was created. Send fewer, or ask your administrator for more room.",
		humanize.IBytes(uint64(needed)), humanize.IBytes(uint64(t.Remaining()))))
}
