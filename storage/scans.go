package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A ScanVerdict is what the virus scanner says of an upload.
type ScanVerdict string

// The verdicts.
const (
	ScanClean          ScanVerdict = "clean"
	ScanInfected       ScanVerdict = "infected"
	ScanUnscannable    ScanVerdict = "unscannable"     // it could not look inside
	ScanOversizePassed ScanVerdict = "oversize_passed" // it was not asked: the upload is larger than what it takes
)

// A Scan is one verdict on an upload, with what the scanner knew then. A zero field is unknown.
type Scan struct {
	Verdict    ScanVerdict
	Signature  string // the name of what was found
	Engine     string // such as ClamAV 1.4.3
	Signatures int64  // the version of the database of signatures
	SignedAt   time.Time
	At         time.Time // when the verdict was given
}

// Scanned is what the row of an upload's latest scan says. A nil field is unknown, or has not come to pass.
type Scanned struct {
	ScanVerdict    *ScanVerdict `db:"scan_verdict"`
	ScanSignature  *string      `db:"scan_signature"`
	ScanEngine     *string      `db:"scan_engine"`
	ScanSignatures *int64       `db:"scan_signatures"`
	ScanSignedAt   *time.Time   `db:"scan_signed_at"`
	ScannedAt      *time.Time   `db:"scanned_at"`
	ReleasedBy     *string      `db:"released_by"` // who let it out of quarantine last
	ReleasedAt     *time.Time   `db:"released_at"`
	ReleaseReason  *string      `db:"release_reason"`
}

// recordScan is part of the transaction that acts on the verdict. What was released stays so.
func (tx Tx) recordScan(ctx context.Context, id uuid.UUID, s *Scan) error {
	if s == nil {
		return nil
	}
	_, err := tx.Exec(ctx, `
		insert into scans (tenant_id, upload_id, verdict, signature, engine, signatures, signed_at, scanned_at)
		values ($1, $2, $3, nullif($4, ''), nullif($5, ''), nullif($6::bigint, 0), $7, coalesce($8, now()))
		on conflict (tenant_id, upload_id) do update set verdict = excluded.verdict, signature = excluded.signature,
			engine = excluded.engine, signatures = excluded.signatures, signed_at = excluded.signed_at,
			scanned_at = excluded.scanned_at`,
		tx.Tenant, id, s.Verdict, s.Signature, s.Engine, s.Signatures, OrNull(s.SignedAt), OrNull(s.At))
	if err != nil {
		return fmt.Errorf("record scan: %w", err)
	}
	return nil
}

// Rescanned records what a completed upload was found to be by newer signatures, and that it stays what it is. Any other
// upload is [ErrWrongStatus].
func (tx Tx) Rescanned(ctx context.Context, id uuid.UUID, s Scan) error {
	tag, err := tx.Exec(ctx, `
		select from uploads where tenant_id = $1 and id = $2 and status = 'completed' and deleted_at is null for no key update`,
		tx.Tenant, id)
	switch {
	case err != nil:
		return fmt.Errorf("lock rescanned upload: %w", err)
	case tag.RowsAffected() == 0:
		return ErrWrongStatus
	}
	return tx.recordScan(ctx, id, &s)
}

// Released returns the names of what an upload was found to be and was let out of quarantine in spite of.
func (tx Tx) Released(ctx context.Context, id uuid.UUID) (signatures []string, err error) {
	err = tx.QueryRow(ctx, `select released_signatures from scans where tenant_id = $1 and upload_id = $2`,
		tx.Tenant, id).Scan(&signatures)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read what was released: %w", err)
	}
	return signatures, nil
}

// A Rescan says which completed uploads are to be scanned again.
type Rescan struct {
	Since      time.Time // those that were completed then or later
	Until      time.Time // and before; the zero time for all since
	Signatures int64     // only those that were scanned with older signatures than these, or nobody knows which; 0 for all
}

// ToRescan returns at most limit of the tenant's uploads that r is about, behind the one named in the order of their ids,
// but those whose rescan waits already. It needs an operator's role.
func (tx Tx) ToRescan(ctx context.Context, r Rescan, behind uuid.UUID, limit int) ([]uuid.UUID, error) {
	rows, err := tx.Query(ctx, `
		select u.id from uploads u left join scans s on s.tenant_id = u.tenant_id and s.upload_id = u.id
		where u.tenant_id = $1 and u.id > $2 and u.status = 'completed' and u.deleted_at is null
		  and u.completed_at >= $3 and ($4::timestamptz is null or u.completed_at < $4)
		  and ($5::bigint = 0 or s.signatures is null or s.signatures < $5)
		  and not exists (select from river_job j where j.kind = 'rescan_upload' and j.state not in ('completed', 'cancelled', 'discarded')
			and j.args @> jsonb_build_object('tenant_id', u.tenant_id, 'upload_id', u.id))
		order by u.id limit $6`, tx.Tenant, behind, r.Since, OrNull(r.Until), r.Signatures, limit)
	if err != nil {
		return nil, fmt.Errorf("look for what is to be scanned again: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("look for what is to be scanned again: %w", err)
	}
	return ids, nil
}
