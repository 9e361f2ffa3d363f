// Package batch creates uploads together, from a manifest, and manages what was sent together: it lists batches, adds up their
// uploads, renames, cancels and retries. An upload that begins by itself enters its batch in package hooks; a batch ends with
// its last upload in package storage.
package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// Why a request is refused, besides the reasons of uploads in package hooks.
var (
	ErrBadBatch       = errors.New("batch is not valid")
	ErrBadManifest    = errors.New("entries of the manifest are not valid")
	ErrTooMany        = errors.New("manifest has too many entries")
	ErrNothingToRetry = errors.New("upload has not failed")
	ErrNoRetry        = errors.New("upload is infected and not processed again")
)

// maxName is the longest name of a batch, in bytes.
const maxName = 255

// Config bounds batches.
type Config struct {
	MaxUploads   int           `name:"max-batch" help:"Most uploads in the manifest of a batch; 10000 or less."`
	StalledAfter time.Duration `name:"stalled-after" help:"How long an unfinished upload must receive nothing before it is shown as stuck."`
}

// DefaultConfig is used where nothing is set.
func DefaultConfig() Config {
	return Config{MaxUploads: 1000, StalledAfter: 5 * time.Minute}
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if c.MaxUploads < 1 || c.MaxUploads > 10_000 {
		errs = append(errs, fmt.Errorf("TRAMO_MAX_BATCH: %d is not between 1 and 10000", c.MaxUploads))
	}
	if c.StalledAfter < time.Second {
		errs = append(errs, fmt.Errorf("TRAMO_STALLED_AFTER: %s is less than 1s", c.StalledAfter))
	}
	return errors.Join(errs...)
}

// Service creates and manages batches.
type Service struct {
	Config
	DB      *storage.DB
	Policy  hooks.Policy
	Queue   *queue.Queue
	Uploads *hooks.Uploads // removes what S3 has of cancelled uploads
	Metrics *hooks.Metrics
	Log     *slog.Logger
}

// A Manifest announces a batch and its uploads.
type Manifest struct {
	Project  string // "" for the default one
	Name     string
	ClientID string // the client's own name for it; "" for none
	Uploads  []Entry
}

// An Entry announces an upload.
type Entry struct {
	ClientID string
	Filename string
	Size     int64  // bytes
	Type     string // media type; "" if the client does not know it
	SHA256   string // in hexadecimal digits; "" if the client does not know it
}

// A ManifestError has all that is wrong with a manifest, of which nothing was created.
type ManifestError struct{ Entries []EntryError }

func (*ManifestError) Error() string { return ErrBadManifest.Error() }

// Unwrap returns [ErrBadManifest].
func (*ManifestError) Unwrap() error { return ErrBadManifest }

// An EntryError says what is wrong with one entry; Err wraps an error of this package or of package hooks.
type EntryError struct {
	Index    int // from 0
	ClientID string
	Err      error
}

// Created is the result of a manifest.
type Created struct {
	Batch   storage.Batch   `json:"batch"`
	Made    bool            `json:"made"` // the batch is new
	Uploads []CreatedUpload `json:"uploads"`
}

// A CreatedUpload is the result of an entry.
type CreatedUpload struct {
	ID       uuid.UUID      `json:"id"`
	ClientID string         `json:"client_id"`
	Status   storage.Status `json:"status"`
	Offset   int64          `json:"offset"` // bytes, or [hooks.Untold]
	Existing bool           `json:"existing"`
}

// Create makes a batch with the uploads of a manifest, or adds them to the batch that its client made before under the same
// client id. It creates all uploads or none: a [*ManifestError] has what is wrong with any of them. An entry whose client_id
// names an upload of this user stands for that upload.
func (s *Service) Create(ctx context.Context, m Manifest, k IdempotencyKey) (Created, error) {
	who, err := hooks.MayUpload(ctx)
	if err != nil {
		return Created{}, err
	}
	if m.Project == "" {
		m.Project = object.DefaultProject
	}
	if err := checkBatch(who, m); err != nil {
		return Created{}, err
	}
	n := storage.NewBatch{Project: m.Project, Name: m.Name, ClientID: m.ClientID, UserID: who.User, Manifest: true}
	if n.ID, err = uuid.NewV7(); err != nil {
		return Created{}, fmt.Errorf("make batch id: %w", err)
	}
	return s.add(ctx, who, m.Uploads, k, func(tx storage.Tx) (storage.Batch, bool, error) {
		batch, made, err := tx.MakeBatch(ctx, n)
		if !batch.Manifest {
			batch.Name = n.Name // its name was a label until now
		}
		return batch, made, err
	})
}

// Add adds uploads to a batch, which is open again if it had ended. A batch that this user does not see is
// [storage.ErrNotFound].
func (s *Service) Add(ctx context.Context, id uuid.UUID, entries []Entry, k IdempotencyKey) (Created, error) {
	who, err := hooks.MayUpload(ctx)
	if err != nil {
		return Created{}, err
	}
	return s.add(ctx, who, entries, k, func(tx storage.Tx) (storage.Batch, bool, error) {
		batch, err := Find(ctx, tx, id)
		return batch, false, err
	})
}

func checkBatch(who tenant.Identity, m Manifest) error {
	if err := checkName(m.Name); err != nil {
		return err
	}
	switch {
	case len(m.ClientID) > hooks.MaxLabel:
		return tenant.Refuse(ErrBadBatch, "client_id has %d bytes; the most is %d.", len(m.ClientID), hooks.MaxLabel)
	case !storage.IsText(m.ClientID):
		return tenant.Refuse(ErrBadBatch, "client_id must be UTF-8 text without NUL characters.")
	case !object.ValidProject(m.Project):
		return tenant.Refuse(ErrBadBatch, "project must match %s.", object.ProjectPattern)
	case !who.Sees(m.Project):
		return tenant.Refuse(hooks.ErrNotYourProject, "You have no project %s. Name one of yours, or ask your administrator for a token that covers it.", m.Project)
	}
	return nil
}

// add puts entries into the batch that find returns, in one transaction.
func (s *Service) add(ctx context.Context, who tenant.Identity, entries []Entry, k IdempotencyKey,
	find func(storage.Tx) (storage.Batch, bool, error),
) (f Created, err error) {
	if len(entries) > s.MaxUploads {
		return Created{}, tenant.Refuse(ErrTooMany, "The manifest has %d uploads; the most in one request is %d. Send the rest with POST /api/batches/{id}/uploads.",
			len(entries), s.MaxUploads)
	}
	var needed int64
	var answer []byte
	var again bool
	err = s.DB.InTenant(ctx, func(tx storage.Tx) error {
		answer, again, err = once(ctx, tx, k, func() ([]byte, error) {
			batch, made, err := find(tx)
			if err != nil {
				return nil, err
			}
			f, needed, err = s.fill(ctx, tx, who, batch, entries)
			if err != nil {
				return nil, err
			}
			f.Made = made
			return json.Marshal(f)
		})
		return err
	})
	switch {
	case errors.Is(err, ErrKeyReused):
		return Created{}, tenant.Refuse(ErrKeyReused, "You made another request with this Idempotency-Key. Use a new key for each request.")
	case errors.Is(err, ErrKeyBusy):
		return Created{}, tenant.Refuse(ErrKeyBusy, "The same request is running. Try again in a moment with the same Idempotency-Key.")
	case errors.Is(err, storage.ErrBatchCancelled):
		return Created{}, hooks.CancelledBatch()
	case errors.Is(err, storage.ErrQuotaExceeded):
		return Created{}, s.explainNoRoom(ctx, needed)
	case err != nil:
		return Created{}, err
	case again:
		f = Created{}
		if err := json.Unmarshal(answer, &f); err != nil {
			return Created{}, fmt.Errorf("read the answer to the first request: %w", err)
		}
		return f, nil
	}
	s.Log.InfoContext(ctx, "uploads added to batch", slog.String("tenant_id", who.Tenant.String()),
		slog.String("batch_id", f.Batch.ID.String()), slog.Int("uploads", len(f.Uploads)), slog.Int64("size", needed))
	return f, nil
}

// fill makes the entries uploads of the batch. needed is how many bytes of quota that takes.
func (s *Service) fill(ctx context.Context, tx storage.Tx, who tenant.Identity, batch storage.Batch, entries []Entry) (f Created, needed int64, err error) {
	if batch.CancelledAt != nil {
		return Created{}, 0, storage.ErrBatchCancelled
	}
	policy := s.Policy
	t, err := hooks.Account(ctx, tx)
	if err != nil {
		return Created{}, 0, err
	}
	policy.MaxSize = t.MaxUpload(policy.MaxSize)
	wanted, wrong := examine(policy, who, batch, entries)
	if len(wrong) > 0 {
		return Created{}, 0, &ManifestError{wrong}
	}
	p, err := s.plan(ctx, tx, batch, wanted)
	if err != nil {
		return Created{}, 0, err
	}
	for _, n := range p.create {
		needed += n.Size
	}
	if err := p.carryOut(ctx, tx, batch); err != nil {
		return Created{}, needed, err
	}
	f.Batch, err = Find(ctx, tx, batch.ID)
	f.Uploads = p.uploads
	return f, needed, err
}

// examine checks each entry like an upload that begins by itself.
func examine(p hooks.Policy, who tenant.Identity, batch storage.Batch, entries []Entry) (ns []storage.NewUpload, wrong []EntryError) {
	seen := make(map[string]bool, len(entries))
	for i, e := range entries {
		n, err := p.Examine(who, hooks.Request{Size: e.Size, Metadata: e.metadata(batch)})
		switch {
		case err != nil:
		case e.ClientID == "":
			err = tenant.Refuse(hooks.ErrBadMetadata, "client_id is missing. Give each file an id of your own, by which it is recognized when it is sent again.")
		case seen[e.ClientID]:
			err = tenant.Refuse(hooks.ErrClientIDTaken, "Two uploads of this manifest have this client_id. Use a new client_id for each file.")
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

// metadata is what the client would have sent if it had begun the upload by itself. HEAD returns it.
func (e Entry) metadata(batch storage.Batch) map[string]string {
	meta := map[string]string{hooks.MetaClientID: e.ClientID, hooks.MetaProject: batch.Project, hooks.MetaBatch: batch.ID.String()}
	for key, value := range map[string]string{hooks.MetaFilename: e.Filename, hooks.MetaFiletype: e.Type, hooks.MetaSHA256: e.SHA256} {
		if value != "" {
			meta[key] = value
		}
	}
	return meta
}

// explainNoRoom refuses uploads for which the quota has no room.
func (s *Service) explainNoRoom(ctx context.Context, needed int64) error {
	t, err := storage.InTenant(ctx, s.DB, func(tx storage.Tx) (storage.Tenant, error) { return hooks.Account(ctx, tx) })
	if err != nil {
		return err
	}
	return hooks.NoRoom(t, fmt.Sprintf("These files have %s and your company has %s left. Nothing was created. Send fewer, or ask your administrator for more room.",
		humanize.IBytes(uint64(needed)), humanize.IBytes(uint64(t.Remaining()))))
}
