package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A Kind is the role of an upload in a concatenation (tus 1.0.0, Concatenation).
type Kind string

// The kinds of uploads.
const (
	Single  Kind = "single"
	Partial Kind = "partial" // becomes part of a final upload; is neither processed nor listed
	Final   Kind = "final"   // gets its bytes from partial uploads
)

// A Failure says why an upload failed: Reason for machines, Detail for a person.
type Failure struct {
	Reason string // one of the Reason constants
	Detail string
}

// Why an upload can fail.
const (
	ReasonInfected         = "infected"
	ReasonUnscannable      = "unscannable"
	ReasonTooLargeToScan   = "too_large_to_scan"
	ReasonUnreadable       = "unreadable" // only of uploads that 0.1.0 processed: they are kept since
	ReasonTypeNotAllowed   = "type_not_allowed"
	ReasonTypeMismatch     = "type_mismatch"
	ReasonChecksumMismatch = "checksum_mismatch"
	ReasonDeadLettered     = "dead_lettered"
	ReasonLost             = "lost"
)

// An Upload is an upload with its offset, its facts and its latest scan.
type Upload struct {
	ID             uuid.UUID         `db:"id"`
	UserID         string            `db:"user_id"`
	ClientID       *string           `db:"client_id"`
	Project        string            `db:"project"`
	Batch          *string           `db:"batch"` // the client's name for it when it created the upload
	BatchID        *uuid.UUID        `db:"batch_id"`
	Filename       *string           `db:"filename"`
	DeclaredType   *string           `db:"declared_type"`
	DeclaredSHA256 []byte            `db:"declared_sha256"`
	Metadata       map[string]string `db:"metadata"`
	MetadataHeader *string           `db:"metadata_header"` // what Metadata was read from, as the client wrote it
	Size           int64             `db:"size"`            // bytes; 0 while deferred
	SizeDeferred   bool              `db:"size_deferred"`
	ChargedBytes   int64             `db:"charged_bytes"` // to the tenant's quota
	Received       int64             `db:"received"`
	Status         Status            `db:"status"`
	FailureReason  *string           `db:"failure_reason"`
	FailureDetail  *string           `db:"failure_detail"`
	DetectedType   *string           `db:"detected_type"`
	SHA256         []byte            `db:"sha256"`
	ObjectKey      *string           `db:"object_key"`
	CreatedAt      time.Time         `db:"created_at"`
	UpdatedAt      time.Time         `db:"updated_at"`
	TouchedAt      time.Time         `db:"touched_at"`  // when bytes last arrived, or the upload was created or its creation repeated
	UploadedAt     *time.Time        `db:"uploaded_at"` // when all bytes were safe, also of a partial upload
	CompletedAt    *time.Time        `db:"completed_at"`
	Kind           Kind              `db:"kind"`
	Partials       []uuid.UUID       `db:"partials"` // of a final upload, in order
	FinalID        *uuid.UUID        `db:"final_id"` // of a partial upload: the final upload that has taken it
	DeletedAt      *time.Time        `db:"deleted_at"`
	PurgeAt        *time.Time        `db:"purge_at"`      // until when a deleted upload can be restored
	TypeMismatch   bool              `db:"type_mismatch"` // the content is of another kind than its client declared
	Facts
	Document
	Drawn
	Scanned
}

// A ScanVerdict is what the virus scanner says of an upload.
type ScanVerdict string

// The verdicts.
const (
	ScanClean          ScanVerdict = "clean"
	ScanInfected       ScanVerdict = "infected"
	ScanUnscannable    ScanVerdict = "unscannable"     // it could not look inside
	ScanOversizePassed ScanVerdict = "oversize_passed" // it was not asked: the upload is larger than what it takes
)

// Scanned is what the row of an upload's latest scan says. A nil field is unknown, or has not come to pass.
type Scanned struct {
	ScanVerdict    *ScanVerdict `db:"scan_verdict" json:"verdict"`
	ScanSignature  *string      `db:"scan_signature" json:"signature"`
	ScannedAt      *time.Time   `db:"scanned_at" json:"scanned_at"`
	ScanEngine     *string      `db:"scan_engine" json:"engine"`
	ScanSignatures *int64       `db:"scan_signatures" json:"signatures"` // the version of the scanner's daily database
	ScanSignedAt   *time.Time   `db:"scan_signed_at" json:"signed_at"`
	ReleasedAt     *time.Time   `db:"released_at" json:"released_at"`
	ReleasedBy     *string      `db:"released_by" json:"-"` // who let it out of quarantine last
	ReleaseReason  *string      `db:"release_reason" json:"-"`
}

// SelectUpload selects uploads u, with their contents c and scans s, for an [Upload].
var SelectUpload = `
	select u.id, u.user_id, u.client_id, u.project, u.batch, u.batch_id, u.filename, u.declared_type, u.declared_sha256,
	       u.metadata, u.metadata_header, coalesce(u.size, 0) as size, u.size is null as size_deferred, u.charged_bytes, c.received,
	       u.status, u.failure_reason, u.failure_detail, u.detected_type, u.sha256, u.object_key, u.created_at,
	       u.updated_at, c.touched_at, u.uploaded_at, u.completed_at, u.kind, u.partials, u.final_id, u.deleted_at, nullif(u.purge_at, '-infinity') as purge_at,
	       u.type_mismatch, ` + found() + `,
	       s.verdict as scan_verdict, s.signature as scan_signature, s.engine as scan_engine, s.signatures as scan_signatures,
	       s.signed_at as scan_signed_at, s.scanned_at, s.released_by, s.released_at, s.release_reason
	from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
	left join scans s on s.tenant_id = u.tenant_id and s.upload_id = u.id`

// found are the columns with results of processing.
func found() string {
	names, _ := columns(Facts{}, Document{}, Drawn{})
	return "u." + strings.Join(names, ", u.")
}

// A NewUpload is an upload to be created.
type NewUpload struct {
	ID             uuid.UUID
	UserID         string
	ClientID       string // "" for none
	Project        string
	Batch          string    // the client's name for the batch; "" for none
	BatchID        uuid.UUID // its batch, which must be of the same project; the zero id for none
	Filename       string    // "" for none
	DeclaredType   string    // "" for none
	DeclaredSHA256 []byte    // nil for none
	Metadata       map[string]string
	MetadataHeader string      // what Metadata was read from; "" for none
	Size           int64       // bytes; 0 if the client has not declared it yet
	MaxSize        int64       // bytes that an upload of unknown size may have and is charged
	Kind           Kind        // "" for [Single]
	Partials       []uuid.UUID // of a [Final] upload; [Tx.LockPartials] has locked them
}

// charge is what the upload is charged when it is created.
func (n NewUpload) charge() int64 {
	switch {
	case n.Kind == Final:
		return 0 // its partial uploads are charged until they are concatenated
	case n.Size == 0:
		return n.MaxSize
	}
	return n.Size
}

// CreateUpload charges the tenant's quota and inserts the upload in one statement, so that concurrent creations never exceed
// the quota. It opens the batch of the upload, in which the upload replaces failed ones with its client id. It returns
// [ErrQuotaExceeded], [ErrTooLarge] for an upload above the tenant's limit, [ErrBatchCancelled], or [ErrDuplicateClientID],
// which aborts the transaction.
func (tx Tx) CreateUpload(ctx context.Context, n NewUpload) error {
	if n.Kind == "" {
		n.Kind = Single
	}
	if n.Partials == nil {
		n.Partials = []uuid.UUID{}
	}
	// An upload of unknown size is charged the tenant's limit.
	const bytes = `(case when $16 then least($12::bigint, coalesce(max_upload_bytes, $12)) else $12 end)`
	var c charge
	var opened int
	// The batch is always locked, and last: a transaction that settles it meanwhile does not see this upload.
	err := tx.QueryRow(ctx, `
		with charged as (
			update tenants set charged_bytes = charged_bytes + `+bytes+`
			where id = $1 and erasing_at is null and (charged_bytes + `+bytes+` <= quota_bytes or $12 = 0)
			  and ($16 or $11 <= coalesce(max_upload_bytes, $11))
			returning id, `+bytes+` as bytes, charged_bytes, quota_bytes
		), created as (
			insert into uploads (tenant_id, id, user_id, client_id, project, batch, filename, declared_type,
			                     declared_sha256, metadata, size, charged_bytes, kind, partials, batch_id, metadata_header)
			select id, $2, $3, nullif($4, ''), $5, nullif($6, ''), nullif($7, ''), nullif($8, ''), $9, $10,
			       nullif($11, 0), bytes, $13, $14, $15, nullif($17, '')
			from charged
			returning tenant_id, id
		), content as (
			insert into contents (tenant_id, upload_id) select tenant_id, id from created
		), replaced as (
			update uploads o set replaced_by = n.id from created n
			where o.tenant_id = $1 and o.batch_id = $15 and o.client_id = $4 and o.user_id = $3 and o.id <> n.id
			returning o.id
		), opened as (
			update batches b set completed_at = null, failed = false, updated_at = now()
			from (select count(*) n from created) c, (select count(*) from replaced) r
			where b.tenant_id = $1 and b.id = $15 and b.cancelled_at is null and c.n > 0
			returning b.id
		)
		select bytes, charged_bytes, quota_bytes, (select count(*) from opened) from charged`,
		tx.Tenant, n.ID, n.UserID, n.ClientID, n.Project, n.Batch, n.Filename, n.DeclaredType,
		n.DeclaredSHA256, n.Metadata, n.Size, n.charge(), n.Kind, n.Partials, OrNull(n.BatchID), n.Size == 0, n.MetadataHeader).
		Scan(&c.bytes, &c.charged, &c.quota, &opened)
	switch {
	case IsUniqueViolation(err, "uploads_client_id"):
		return ErrDuplicateClientID
	case errors.Is(err, pgx.ErrNoRows):
		return tx.explainRefusal(ctx, n.Size)
	case err != nil:
		return fmt.Errorf("create upload: %w", err)
	case opened == 0 && n.BatchID != uuid.Nil:
		return ErrBatchCancelled
	}
	if err := tx.warn(ctx, c); err != nil {
		return err
	}
	if n.Kind == Final {
		if err := tx.take(ctx, n.ID, n.Partials); err != nil {
			return err
		}
	}
	tx.follow(ctx, MoveCreate, []uuid.UUID{n.ID}, []Entry{n.entry()})
	return nil
}

// explainRefusal says why the tenant was not charged for uploads, of which the largest has so many bytes.
func (tx Tx) explainRefusal(ctx context.Context, largest int64) error {
	t, err := tx.Account(ctx)
	switch {
	case errors.Is(err, ErrNotFound):
		return ErrQuotaExceeded // the tenant does not exist
	case err != nil:
		return err
	case largest > t.MaxUpload(largest):
		return ErrTooLarge
	}
	return ErrQuotaExceeded
}

// entry is the timeline's entry of the creation.
func (n NewUpload) entry() Entry {
	d := map[string]any{"size": OrNull(n.Size)}
	if n.Kind == Partial || n.Kind == Final {
		d["kind"] = n.Kind
	}
	return Entry{Offset: new(int64(0)), Detail: d}
}

// Upload returns the upload, or [ErrNotFound].
func (tx Tx) Upload(ctx context.Context, id uuid.UUID) (Upload, error) {
	return tx.oneUpload(ctx, `where u.tenant_id = $1 and u.id = $2`, id)
}

// UploadByClientID returns the user's upload with the client id, or [ErrNotFound]. An upload that has ended without being
// completed does not occupy its client id.
func (tx Tx) UploadByClientID(ctx context.Context, user, clientID string) (Upload, error) {
	return tx.oneUpload(ctx, `where u.tenant_id = $1 and u.user_id = $2 and u.client_id = $3
		and u.status not in ('failed', 'expired', 'cancelled', 'concatenated') and u.deleted_at is null`, user, clientID)
}

func (tx Tx) oneUpload(ctx context.Context, where string, args ...any) (Upload, error) {
	us, err := tx.FindUploads(ctx, where, args...)
	switch {
	case err != nil:
		return Upload{}, err
	case len(us) == 0:
		return Upload{}, fmt.Errorf("read upload: %w", ErrNotFound)
	}
	return us[0], nil
}

// Uploads returns one page, without partial uploads. Ids are UUIDv7 (RFC 9562, section 5.7), so they are ordered by creation.
func (tx Tx) Uploads(ctx context.Context, p Page) (us []Upload, err error) {
	where, args := p.where()
	args["tenant"] = tx.Tenant
	read := func() (err error) {
		// This mode plans for the values of each query. The best index depends on how many rows match: a generic plan
		// reads all uploads of the tenant.
		rows, err := tx.Query(ctx, SelectUpload+` where `+where+` order by u.id desc limit @limit`, pgx.QueryExecModeCacheDescribe, args)
		if err == nil {
			us, err = pgx.CollectRows(rows, pgx.RowToStructByName[Upload])
		}
		return err
	}
	if p.Deleted {
		err = tx.AmongDeleted(ctx, read)
	} else {
		err = read()
	}
	if err != nil {
		return nil, fmt.Errorf("list uploads: %w", err)
	}
	return us, nil
}

// AmongDeleted runs fn while the transaction sees deleted uploads as well, which the row-level security policy "undeleted"
// hides from servers.
func (tx Tx) AmongDeleted(ctx context.Context, fn func() error) error {
	if _, err := tx.Exec(ctx, `select set_config('app.deleted', 'yes', true)`); err != nil {
		return fmt.Errorf("show deleted uploads: %w", err)
	}
	if err := fn(); err != nil {
		return err
	}
	_, err := Exec(ctx, tx, "hide deleted uploads", `select set_config('app.deleted', '', true)`)
	return err
}

// MarkUploaded makes [MoveFinish]: it records that the whole object is stored under the key, and adjusts the quota to the
// stored size. A final upload, which was charged nothing before, takes over its partial ones. It returns false if that was recorded before,
// and [ErrWrongStatus] for an upload that has ended without it.
func (tx Tx) MarkUploaded(ctx context.Context, id uuid.UUID, key string, sha256 []byte) (bool, error) {
	var size, charged int64
	var kind Kind
	// A change of quota locks the tenant before the upload, everywhere. Most uploads have the declared size and change
	// nothing, so they need not wait for each other.
	err := tx.QueryRow(ctx, `
		with settled as (
			select t.id from tenants t join uploads u on u.tenant_id = t.id
			where u.tenant_id = $1 and u.id = $2 and u.charged_bytes <> u.size for no key update of t
		), old as (
			select u.charged_bytes from uploads u, (select count(*) from settled) locked
			where u.tenant_id = $1 and u.id = $2 and `+MoveFinish.from()+` and u.uploaded_at is null for update of u
		)
		update uploads u set `+MoveFinish.to()+`, object_key = $3, sha256 = $4, charged_bytes = size, uploaded_at = now()
		from old where tenant_id = $1 and id = $2
		returning size, old.charged_bytes, kind`, tx.Tenant, id, key, sha256).Scan(&size, &charged, &kind)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, tx.requireUploaded(ctx, id)
	}
	if err != nil {
		return false, fmt.Errorf("mark uploaded: %w", err)
	}
	if kind == Final {
		if err := tx.concatenate(ctx, id); err != nil {
			return false, err
		}
	}
	if err := tx.Refund(ctx, charged-size); err != nil {
		return false, err
	}
	tx.follow(ctx, MoveFinish, []uuid.UUID{id}, []Entry{{Offset: &size}})
	return true, nil
}

// requireUploaded returns [ErrWrongStatus] unless the upload was recorded as uploaded before.
func (tx Tx) requireUploaded(ctx context.Context, id uuid.UUID) error {
	var once bool
	err := tx.QueryRow(ctx, `select uploaded_at is not null from uploads where tenant_id = $1 and id = $2`,
		tx.Tenant, id).Scan(&once)
	switch {
	case err != nil:
		return fmt.Errorf("mark uploaded: %w", OrNotFound(err))
	case !once:
		return ErrWrongStatus
	}
	return nil
}

// MarkProcessing records that a worker begins an attempt, numbered from 1. Repeating it adds no entry to the timeline.
func (tx Tx) MarkProcessing(ctx context.Context, id uuid.UUID, attempt int) error {
	return tx.Move(ctx, id, Transition{Move: MoveProcess, Detail: map[string]any{"attempt": attempt}, Once: true})
}
