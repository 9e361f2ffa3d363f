// Package hooks is the life of one upload: admission, finish, cancellation, concatenation, content and receipt. It decides who
// may do what, what is charged, and what is recorded in the same transaction. It knows nothing of HTTP.
package hooks

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"
	"golang.org/x/text/unicode/norm"

	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// Why an upload is refused. A [tenant.Refusal] wraps one of them.
var (
	ErrNotYourProject   = errors.New("token does not cover the project")
	ErrEmpty            = errors.New("upload has no content")
	ErrTooLarge         = errors.New("upload is too large")
	ErrTypeNotAllowed   = errors.New("type is not allowed")
	ErrBadMetadata      = errors.New("metadata is not valid")
	ErrNoRoom           = errors.New("tenant's quota is used up")
	ErrClientIDTaken    = errors.New("client id names another upload")
	ErrNoTenant         = errors.New("tenant does not exist")
	ErrChecksumMismatch = errors.New("content has another checksum than declared")
	ErrBusy             = errors.New("another request works on the upload")
	ErrNotPartial       = errors.New("upload cannot be concatenated")
	ErrPartialOpen      = errors.New("partial upload is not complete")
	ErrNoBatch          = errors.New("no such batch")
	ErrBatchCancelled   = errors.New("batch was cancelled")
	ErrOtherProject     = errors.New("batch is of another project")
	ErrPartialTaken     = errors.New("partial upload belongs to another upload")
)

// The metadata keys that Tramo uses. Others are stored and returned by HEAD.
const (
	MetaFilename = "filename"
	MetaFiletype = "filetype"
	MetaProject  = "project"
	MetaBatch    = "batch"
	MetaClientID = "client_id"
	MetaSHA256   = "sha256"
)

// Limits on metadata, in bytes.
const (
	maxGivenName = 765 // the longest of file systems: 255 characters of UTF-16, with three bytes each
	maxFilename  = 255 // of the name that is shown; the whole one stays in the metadata
	maxClientID  = 128
	MaxLabel     = 128     // a client's name for a batch
	maxMetadata  = 8 << 10 // all keys and values together

	maxMetadataHeader = 3 * maxMetadata // Base64 and separators make at most so much of it, without superfluous spaces
)

// Policy limits what may be uploaded.
type Policy struct {
	MaxSize int64            `name:"max-upload-size" type:"bytes" help:"Largest upload. A tenant can have a lower maximum."`
	Types   mediatype.Policy `embed:""`
}

// DefaultPolicy returns the defaults.
func DefaultPolicy() Policy { return Policy{MaxSize: 100 << 20, Types: mediatype.DefaultPolicy()} }

// Validate reports what is wrong with p.
func (p Policy) Validate() error {
	if p.MaxSize <= 0 {
		return errors.New("TRAMO_MAX_UPLOAD_SIZE: the largest upload must have at least one byte")
	}
	return nil
}

// Admission creates uploads.
type Admission struct {
	DB     *storage.DB
	Policy Policy
	Log    *slog.Logger
}

// An Admitted upload has its rows, and is charged to the tenant's quota.
type Admitted struct {
	ID       uuid.UUID
	Existing bool  // the client created it before and did not get the answer
	Offset   int64 // of an existing upload, or [Untold]
}

// Untold stands for the offset of an upload that has all its bytes but is not finished. A client would take the true offset
// for completion, and an offset must never go back.
const Untold = -1

// A Request is a client's request to create an upload.
type Request struct {
	Size         int64 // bytes; ignored for a final upload and for a deferred size
	SizeDeferred bool  // (tus 1.0.0, Creation With Defer Length)
	AtMost       int64 // most bytes that an upload of deferred size can have; 0 if unknown
	Metadata     map[string]string

	// MetadataHeader is the Upload-Metadata that Metadata comes from, to be returned as it is; "" for none.
	MetadataHeader string

	// tus 1.0.0, Concatenation
	Partial  bool
	Partials []string // of a final upload: the ids of its partial uploads, in order
}

// Admit creates an upload for the user in ctx, or returns a [*tenant.Refusal]. A user that repeats a creation with
// the same client_id, or of a final upload with the same partial ones, gets the same upload. An upload of deferred size is
// charged for the largest allowed one until the size is declared. Partial uploads of other users are [storage.ErrNotFound].
// then are called last in the transaction that creates the upload.
func (a *Admission) Admit(ctx context.Context, r Request, then ...func(tx storage.Tx, upload uuid.UUID) error) (Admitted, error) {
	return a.admit(ctx, r, then, 2)
}

func (a *Admission) admit(ctx context.Context, r Request, then []func(storage.Tx, uuid.UUID) error, tries int) (Admitted, error) {
	who, err := tenant.From(ctx)
	if err != nil {
		return Admitted{}, err
	}
	n, err := a.Policy.Examine(who, r)
	if err != nil {
		return Admitted{}, err
	}
	if n.ID, err = uuid.NewV7(); err != nil {
		return Admitted{}, fmt.Errorf("make upload id: %w", err)
	}
	var old uuid.UUID
	err = a.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if err := enterBatch(ctx, tx, &n); err != nil {
			return err
		}
		if n.Kind == storage.Final {
			if old, err = a.Policy.checkPartials(ctx, tx, &n); err != nil || old != uuid.Nil {
				return err
			}
		}
		if err := tx.CreateUpload(ctx, n); err != nil {
			return err
		}
		for _, do := range then {
			if err := do(tx, n.ID); err != nil {
				return err
			}
		}
		return nil
	}, storage.PlannedOnce)
	switch {
	case errors.Is(err, storage.ErrDuplicateClientID):
		old, err := a.findExisting(ctx, n)
		switch {
		case errors.Is(err, storage.ErrNotFound) && tries > 0:
			return a.admit(ctx, r, then, tries-1) // it has ended meanwhile, and its client id is free
		case errors.Is(err, storage.ErrNotFound): // it is in a project that this token does not cover
			return Admitted{}, tenant.Refuse(ErrClientIDTaken, "Another upload of yours has this client_id. Use a new client_id for each file.")
		}
		return old, err
	case errors.Is(err, storage.ErrQuotaExceeded), errors.Is(err, storage.ErrTooLarge):
		// The upload itself may be what uses up the quota, and the limit may have been higher when it was created.
		if old, err := a.findExisting(ctx, n); !errors.Is(err, storage.ErrNotFound) {
			return old, err
		}
		return Admitted{}, a.explainRefusal(ctx, n)
	case errors.Is(err, storage.ErrBatchCancelled):
		return Admitted{}, CancelledBatch()
	case err != nil:
		return Admitted{}, err
	case old != uuid.Nil:
		return Admitted{ID: old, Existing: true}, nil
	}
	a.Log.InfoContext(ctx, "upload created", slog.String("tenant_id", who.Tenant.String()),
		slog.String("upload_id", n.ID.String()), slog.Int64("size", n.Size))
	return Admitted{ID: n.ID}, nil
}

// findExisting returns the upload of a client that did not get the answer to its creation.
func (a *Admission) findExisting(ctx context.Context, n storage.NewUpload) (Admitted, error) {
	old, err := storage.InTenant(ctx, a.DB, func(tx storage.Tx) (storage.Upload, error) {
		old, err := tx.UploadByClientID(ctx, n.UserID, n.ClientID)
		if err == nil { // its retention begins anew, even if it is over and the reconciler has not expired the upload yet
			_, err = tx.Exec(ctx, `update contents set touched_at = now() where tenant_id = $1 and upload_id = $2`, tx.Tenant, old.ID)
		}
		return old, err
	})
	if err != nil {
		return Admitted{}, err
	}
	if !Same(n, old) {
		return Admitted{}, ClientIDTaken()
	}
	if old.SizeDeferred && n.Size > 0 {
		// The client will not declare it again.
		err := a.DB.InTenant(ctx, func(tx storage.Tx) error { return DeclareLength(ctx, tx, old, n.Size) })
		if err != nil {
			return Admitted{}, err
		}
		old.Size, old.SizeDeferred = n.Size, false
	}
	return Admitted{ID: old.ID, Existing: true, Offset: ToldOffset(old)}, nil
}

// ToldOffset is the offset that a client gets for its upload, or [Untold].
func ToldOffset(u storage.Upload) int64 {
	if !u.SizeDeferred && u.Received == u.Size && u.UploadedAt == nil {
		return Untold
	}
	return u.Received
}

// Same reports whether a request repeats the creation of an upload. An unknown size of one of them is no difference.
func Same(n storage.NewUpload, old storage.Upload) bool {
	name := ""
	if old.Filename != nil {
		name = norm.NFC.String(*old.Filename) // of the previous release
	}
	return n.Kind == old.Kind && name == n.Filename &&
		(old.Size == n.Size || n.Size == 0 || old.SizeDeferred) &&
		!differ(n.DeclaredSHA256, old.DeclaredSHA256) && !differ(n.DeclaredSHA256, old.SHA256)
}

// DeclareLength is [storage.Tx.DeclareLength] for a request that has no lease, with a [*tenant.Refusal].
func DeclareLength(ctx context.Context, tx storage.Tx, u storage.Upload, size int64) error {
	err := tx.DeclareLength(ctx, u.ID, storage.NoFence, size)
	switch {
	case errors.Is(err, storage.ErrTooLarge):
		return tooLarge(size, u.ChargedBytes)
	case errors.Is(err, storage.ErrFenced):
		return tenant.Refuse(ErrBusy, "Another request sends this upload, whose length was not known, just now. Try again in a moment.")
	case errors.Is(err, storage.ErrBadLength), errors.Is(err, storage.ErrWrongStatus):
		return tenant.Refuse(ErrClientIDTaken,
			"Another upload of yours has this client_id and more bytes than this one. Use a new client_id for each file.")
	}
	return err
}

// differ reports whether two checksums are known and different.
func differ(a, b []byte) bool { return a != nil && b != nil && !bytes.Equal(a, b) }

// explainRefusal says whether the quota is used up, the upload is above the tenant's limit, or the tenant does not exist.
func (a *Admission) explainRefusal(ctx context.Context, n storage.NewUpload) error {
	t, err := storage.InTenant(ctx, a.DB, func(tx storage.Tx) (storage.Tenant, error) { return Account(ctx, tx) })
	if err != nil {
		return err
	}
	if most := t.MaxUpload(n.MaxSize); n.Size > most {
		return tooLarge(n.Size, most)
	}
	if n.Size == 0 && n.MaxSize < a.Policy.MaxSize { // the client has declared a maximum
		return noRoom(t, n.MaxSize, n.MaxSize)
	}
	return noRoom(t, n.Size, t.MaxUpload(n.MaxSize))
}

// Account returns the tenant of the transaction, if it may have new uploads.
func Account(ctx context.Context, tx storage.Tx) (storage.Tenant, error) {
	t, err := tx.Account(ctx)
	if errors.Is(err, storage.ErrNotFound) || err == nil && t.ErasingAt != nil {
		return t, tenant.Refuse(ErrNoTenant, "The token names a tenant that does not exist. Ask your administrator for a new one.")
	}
	return t, err
}

// noRoom refuses an upload of size bytes, or of unknown size (0) with at most so many bytes.
func noRoom(t storage.Tenant, size, most int64) error {
	left := humanize.IBytes(uint64(t.Remaining()))
	if size == 0 {
		return NoRoom(t, fmt.Sprintf("An upload without a length needs room for %s and your company has %s left. Send Upload-Length, or ask your administrator for more room.",
			humanize.IBytes(uint64(most)), left))
	}
	return NoRoom(t, fmt.Sprintf("This file has %s and your company has %s left. Ask your administrator for more room.",
		humanize.IBytes(uint64(size)), left))
}

// NoRoom refuses with the numbers of the quota, for programs.
func NoRoom(t storage.Tenant, detail string) error {
	return &tenant.Refusal{Cause: ErrNoRoom, Detail: detail, Facts: map[string]any{
		"quota_bytes": t.QuotaBytes, "charged_bytes": t.ChargedBytes, "remaining_bytes": t.Remaining(),
	}}
}

func tooLarge(size, most int64) error {
	return &tenant.Refusal{
		Cause:  ErrTooLarge,
		Detail: fmt.Sprintf("The file has %s; the most is %s.", humanize.IBytes(uint64(size)), humanize.IBytes(uint64(most))),
		Facts:  map[string]any{"max_bytes": most},
	}
}

// Examine validates a request and turns it into a row.
func (p Policy) Examine(who tenant.Identity, r Request) (storage.NewUpload, error) {
	meta := r.Metadata
	if meta == nil {
		meta = map[string]string{} // null is not a JSON object
	}
	n := storage.NewUpload{
		UserID:         who.User,
		ClientID:       meta[MetaClientID],
		Project:        meta[MetaProject],
		Batch:          meta[MetaBatch],
		Filename:       norm.NFC.String(baseName(meta[MetaFilename])), // macOS decomposes letters, others do not
		Metadata:       meta,
		MetadataHeader: r.MetadataHeader,
		Size:           r.Size,
		MaxSize:        p.MaxSize,
		Kind:           storage.Single,
	}
	if !who.Role.CanUpload() {
		return n, tenant.ErrForbidden
	}
	switch {
	case len(r.Partials) > 0:
		n.Kind, n.Size = storage.Final, 0 // known from the partial uploads
		if err := parsePartials(&n, r.Partials); err != nil {
			return n, err
		}
	case r.Partial:
		n.Kind = storage.Partial
	}
	if r.SizeDeferred {
		n.Size = 0
		if r.AtMost > 0 {
			n.MaxSize = min(n.MaxSize, r.AtMost)
		}
	} else if n.Kind != storage.Final {
		if err := p.checkSize(n.Size); err != nil {
			return n, err
		}
	}
	if err := checkMetadata(&n, meta); err != nil {
		return n, err
	}
	if !who.Sees(n.Project) {
		return n, tenant.Refuse(ErrNotYourProject, "You have no project %s. Name one of yours, or ask your administrator for a token that covers it.", n.Project)
	}
	declared, err := p.declaredType(meta[MetaFiletype])
	n.DeclaredType = declared
	return n, err
}

func (p Policy) checkSize(size int64) error {
	switch {
	case size <= 0:
		return tenant.Refuse(ErrEmpty, "The file is empty. Choose it again, or take the photo again.")
	case size > p.MaxSize:
		return tooLarge(size, p.MaxSize)
	}
	return nil
}

func checkMetadata(n *storage.NewUpload, meta map[string]string) error {
	total := 0
	for k, v := range meta {
		total += len(k) + len(v)
		// Postgres text and jsonb hold neither.
		if !utf8.ValidString(k) || !utf8.ValidString(v) || strings.ContainsRune(k+v, 0) {
			return tenant.Refuse(ErrBadMetadata, "The metadata %q is not valid UTF-8 text without NUL characters.", strings.ToValidUTF8(k, "?"))
		}
	}
	if n.Project == "" {
		n.Project = object.DefaultProject
	}
	switch {
	case total > maxMetadata:
		return tenant.Refuse(ErrBadMetadata, "The metadata has %d bytes; the most is %d.", total, maxMetadata)
	case len(n.MetadataHeader) > maxMetadataHeader:
		return tenant.Refuse(ErrBadMetadata, "Upload-Metadata has %d bytes; the most is %d.", len(n.MetadataHeader), maxMetadataHeader)
	case len(n.Filename) > maxGivenName:
		return tenant.Refuse(ErrBadMetadata, "filename has %d bytes; the most is %d.", len(n.Filename), maxGivenName)
	case len(n.Batch) > MaxLabel:
		return tenant.Refuse(ErrBadMetadata, "batch has %d bytes; the most is %d.", len(n.Batch), MaxLabel)
	case len(n.ClientID) > maxClientID:
		return tenant.Refuse(ErrBadMetadata, "client_id has %d bytes; the most is %d.", len(n.ClientID), maxClientID)
	case !object.ValidProject(n.Project):
		return tenant.Refuse(ErrBadMetadata, "project must match %s.", object.ProjectPattern)
	}
	n.Filename = shorten(n.Filename)
	if s := meta[MetaSHA256]; s != "" {
		sum, err := hex.DecodeString(s)
		if err != nil || len(sum) != 32 {
			return tenant.Refuse(ErrBadMetadata, "sha256 must be the SHA-256 of the file as 64 hexadecimal digits.")
		}
		n.DeclaredSHA256 = sum
	}
	return nil
}

// declaredType returns the media type without its parameters. The worker detects the real one.
func (p Policy) declaredType(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	t, _, err := mime.ParseMediaType(s)
	if err != nil || !strings.Contains(t, "/") {
		return "", tenant.Refuse(ErrBadMetadata, "filetype %q is not a media type such as image/jpeg; leave it out when it is not known.", s)
	}
	switch {
	case strings.HasSuffix(t, "/*"):
		return mediatype.Unknown, nil
	case t == mediatype.Unknown, p.Types.Allows(t):
		return t, nil
	case slices.Contains(saysNothing, t):
		return mediatype.Unknown, nil
	}
	return "", tenant.Refuse(ErrTypeNotAllowed, "Files of type %s are not accepted here.", t)
}

// saysNothing are types that clients declare which do not know the type: those of the request, of a download, and names of MP4
// that do not tell what it holds. The content decides.
var saysNothing = []string{
	"binary/octet-stream", "multipart/form-data", "application/x-www-form-urlencoded", "application/mp4", "video/x-m4v",
	"application/unknown", "application/x-unknown", "application/download", "application/x-download", "application/force-download",
}

// shorten cuts a file name to [maxFilename] bytes, and keeps its extension.
func shorten(name string) string {
	if len(name) <= maxFilename {
		return name
	}
	extension := path.Ext(name)
	if len(extension) > 16 { // it is none
		extension = ""
	}
	stem := name[:maxFilename-len(extension)]
	for !utf8.ValidString(stem) { // a character was cut
		stem = stem[:len(stem)-1]
	}
	return stem + extension
}

// baseName drops directories, which some clients send.
func baseName(name string) string {
	if name = path.Base(strings.ReplaceAll(name, `\`, "/")); name == "." || name == "/" || name == ".." {
		return ""
	}
	return name
}

// enterBatch finds the batch of an upload by its id or by the client's name for it, and creates one for a new name. Partial
// uploads are in no batch; their final upload is.
func enterBatch(ctx context.Context, tx storage.Tx, n *storage.NewUpload) error {
	if n.Batch == "" || n.Kind == storage.Partial {
		return nil
	}
	named := storage.BatchID(n.Batch)
	b, err := tx.FindBatch(ctx, named, n.Project, n.Batch)
	switch {
	case errors.Is(err, storage.ErrNotFound) && named.Version() == 7:
		// A UUIDv7 can only be the id of a batch. A wrong one must not create a batch of that name. The answer is the same
		// if another tenant has the batch.
		return tenant.Refuse(ErrNoBatch, "You have no batch %s. Name one by the id that POST /api/batches told, or by a name of your own, which is no UUIDv7.", named)
	case errors.Is(err, storage.ErrNotFound):
		made := storage.NewBatch{Project: n.Project, Name: n.Batch, ClientID: n.Batch, UserID: n.UserID}
		if made.ID, err = uuid.NewV7(); err != nil {
			return err
		}
		b, _, err = tx.MakeBatch(ctx, made)
	}
	switch {
	case err != nil:
		return err
	case b.Project != n.Project:
		return tenant.Refuse(ErrOtherProject, "The batch %s is of the project %s. Name that as the upload's project, or another batch.", b.ID, b.Project)
	case b.CancelledAt != nil:
		return storage.ErrBatchCancelled
	}
	n.BatchID, n.Batch = b.ID, b.Label()
	return nil
}

// CancelledBatch refuses an upload in a batch that was cancelled.
func CancelledBatch() error {
	return tenant.Refuse(ErrBatchCancelled, "This batch was cancelled. Make a new one.")
}

// ClientIDTaken refuses an upload whose client id names another upload.
func ClientIDTaken() error {
	return tenant.Refuse(ErrClientIDTaken,
		"Another upload of yours has this client_id with a different size, name or sha256. Use a new client_id for each file.")
}
