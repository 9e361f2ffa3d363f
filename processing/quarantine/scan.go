package quarantine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
)

// A Scan is one verdict on an upload, with what the scanner knew then. A zero field is unknown.
type Scan struct {
	Verdict    storage.ScanVerdict
	Signature  string // that was found
	Engine     string // such as ClamAV 1.4.3
	Signatures int64  // the version of the database of signatures
	SignedAt   time.Time
	At         time.Time // when the verdict was given
}

// Failure is why an upload fails that is not clean.
func (s Scan) Failure() storage.Failure {
	if s.Verdict == storage.ScanUnscannable {
		return storage.Failure{
			Reason: storage.ReasonUnscannable,
			Detail: fmt.Sprintf("This file cannot be checked for viruses (%s). Send it without a password, or unpacked.", s.Signature),
		}
	}
	return storage.Failure{
		Reason: storage.ReasonInfected,
		Detail: fmt.Sprintf("A virus was found in this file (%s). Nobody will be able to open it here.", s.Signature),
	}
}

// Record keeps the verdict, in the transaction that acts on it; nothing, if s is nil. Signatures in spite of which the upload was
// released stay released.
func Record(ctx context.Context, tx storage.Tx, upload uuid.UUID, s *Scan) error {
	if s == nil {
		return nil
	}
	_, err := tx.Exec(ctx, `
		insert into scans (tenant_id, upload_id, verdict, signature, engine, signatures, signed_at, scanned_at)
		values ($1, $2, $3, nullif($4, ''), nullif($5, ''), nullif($6::bigint, 0), $7, coalesce($8, now()))
		on conflict (tenant_id, upload_id) do update set verdict = excluded.verdict, signature = excluded.signature,
			engine = excluded.engine, signatures = excluded.signatures, signed_at = excluded.signed_at,
			scanned_at = excluded.scanned_at`,
		tx.Tenant, upload, s.Verdict, s.Signature, s.Engine, s.Signatures, storage.OrNull(s.SignedAt), storage.OrNull(s.At))
	if err != nil {
		return fmt.Errorf("record scan: %w", err)
	}
	return nil
}

// RecordRescan keeps the verdict on a completed upload that stays completed. Any other upload is [storage.ErrWrongStatus].
func RecordRescan(ctx context.Context, tx storage.Tx, upload uuid.UUID, s Scan) error {
	tag, err := tx.Exec(ctx, `
		select from uploads where tenant_id = $1 and id = $2 and status = 'completed' and deleted_at is null for no key update`,
		tx.Tenant, upload)
	switch {
	case err != nil:
		return fmt.Errorf("lock rescanned upload: %w", err)
	case tag.RowsAffected() == 0:
		return storage.ErrWrongStatus
	}
	return Record(ctx, tx, upload, &s)
}

// Released returns the signatures in spite of which an upload was released from quarantine.
func Released(ctx context.Context, tx storage.Tx, upload uuid.UUID) (signatures []string, err error) {
	err = tx.QueryRow(ctx, `select released_signatures from scans where tenant_id = $1 and upload_id = $2`,
		tx.Tenant, upload).Scan(&signatures)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("read released signatures: %w", err)
	}
	return signatures, nil
}
