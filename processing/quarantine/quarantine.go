// Package quarantine keeps infected uploads, and those that the virus scanner cannot look into, where no client can read them. It
// keeps the verdicts of scans, moves objects into quarantine and out of it, and takes the decisions of admins. The steps of
// processing decide what is scanned.
package quarantine

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
)

// ErrNotQuarantined says that an upload is not in quarantine.
var ErrNotQuarantined = errors.New("upload is not in quarantine")

// quarantined is the condition that an upload u is in quarantine.
const quarantined = `u.status = 'failed' and u.failure_reason in ('infected', 'unscannable') and u.deleted_at is null
	and exists (select from scans c where c.tenant_id = u.tenant_id and c.upload_id = u.id and c.verdict in ('infected', 'unscannable'))`

// Lock locks the tenant and an upload in quarantine, and returns the upload. Any other upload is [ErrNotQuarantined], and one
// that the tenant does not have [storage.ErrNotFound].
func Lock(ctx context.Context, tx storage.Tx, id uuid.UUID) (storage.Upload, error) {
	if err := tx.LockTenant(ctx); err != nil { // no other upload is created under the same client id meanwhile
		return storage.Upload{}, err
	}
	found, err := tx.FindUploads(ctx, `where u.tenant_id = $1 and u.id = $2 and `+quarantined+` for no key update of u`, id)
	if err != nil {
		return storage.Upload{}, err
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if _, err := tx.Upload(ctx, id); err != nil {
		return storage.Upload{}, err
	}
	return storage.Upload{}, ErrNotQuarantined
}

// release makes an upload that [Lock] has locked uploaded again, in spite of the signature that was found in it, for a reason.
// Whoever calls it enqueues its processing. If its client has sent it again since, it is [storage.ErrDuplicateClientID].
func release(ctx context.Context, tx storage.Tx, u storage.Upload, reason string) error {
	_, err := tx.Exec(ctx, `
		update scans set released_by = $3, released_at = now(), release_reason = $4,
			released_signatures = array_remove(released_signatures, signature) || signature
		where tenant_id = $1 and upload_id = $2`, tx.Tenant, u.ID, tx.Who.User, reason)
	if err != nil {
		return fmt.Errorf("release upload: %w", err)
	}
	tx.Append(ctx, u.ID, storage.Entry{Event: storage.EventReleased})
	retried, err := tx.Retry(ctx, []uuid.UUID{u.ID})
	switch {
	case err != nil:
		return err
	case len(retried) == 0:
		return storage.ErrDuplicateClientID
	}
	return tx.Audit(ctx, storage.Audit{Action: storage.AuditQuarantineRelease, Subject: u.ID.String(), Detail: map[string]any{
		"signature": u.ScanSignature, "signatures": u.ScanSignatures, "reason": reason,
	}})
}

// A Placement puts an upload whose object was copied into quarantine there.
type Placement struct {
	From     storage.Status // [storage.Processing], or [storage.Completed] if newer signatures found it
	Failure  storage.Failure
	Scan     Scan
	Fence    int64  // of the lease under which its object was copied
	Key, New string // of the object, and of its copy in quarantine
}

// Place fails the upload and returns the keys of its thumbnails, whose rows it deletes. An upload in any other status, or whose
// object is elsewhere by now, is [storage.ErrWrongStatus]; without the lease it is [storage.ErrFenced]. It is the only way from
// completed to failed for an upload whose bytes are there.
func Place(ctx context.Context, tx storage.Tx, id uuid.UUID, p Placement) (thumbnails []string, err error) {
	if err := tx.RequireLease(ctx, id, p.Fence); err != nil {
		return nil, err
	}
	t := storage.MoveQuarantine.Because(p.Failure)
	t.If = "u.status = $5 and u.object_key = $6"
	t.Set += ", object_key = $7, completed_at = null, placeholder = null"
	t.Args = append(t.Args, p.From, p.Key, p.New)
	if p.From == storage.Completed {
		t.Detail["rescan"] = true
	}
	t.Also = func([]storage.Moved) error {
		rows, err := tx.Query(ctx, `delete from thumbnails where tenant_id = $1 and upload_id = $2 returning object_key`, tx.Tenant, id)
		if err == nil {
			thumbnails, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			return fmt.Errorf("delete thumbnails: %w", err)
		}
		if err := Record(ctx, tx, id, &p.Scan); err != nil {
			return err
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditUploadQuarantine, Subject: id.String(), Detail: map[string]any{
			"verdict": p.Scan.Verdict, "signature": p.Scan.Signature, "signatures": storage.OrNull(p.Scan.Signatures),
		}})
	}
	err = tx.Move(ctx, id, t)
	return thumbnails, err
}
