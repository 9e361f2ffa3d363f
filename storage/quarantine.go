package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A Quarantining takes an upload out of use, because of what the scanner found.
type Quarantining struct {
	Status  Status // what the upload is until then: [Processing], or [Completed] if newer signatures found it
	Failure Failure
	Scan    Scan
	Fence   int64  // of the lease under which its object was copied
	From    string // the object's key
	To      string // and that of its copy in quarantine
}

// Quarantine fails an upload whose object has been copied into quarantine and returns the keys of its pictures, of which
// there are rows no more. An upload in any other status, or whose object is elsewhere by now, is [ErrWrongStatus]; without
// the lease it is [ErrFenced]. It is the only way from completed to failed for an upload whose bytes are there.
func (tx Tx) Quarantine(ctx context.Context, id uuid.UUID, q Quarantining) (pictures []string, err error) {
	if q.Status != Processing && q.Status != Completed {
		return nil, fmt.Errorf("quarantine: no upload that is %s is scanned", q.Status)
	}
	if err := tx.RequireLease(ctx, id, q.Fence); err != nil {
		return nil, err
	}
	t := MoveQuarantine.Because(q.Failure)
	t.If = "u.status = $5 and u.object_key = $6"
	t.Set += ", object_key = $7, completed_at = null, placeholder = null"
	t.Args = append(t.Args, q.Status, q.From, q.To)
	if q.Status == Completed {
		t.Detail["rescan"] = true
	}
	t.Also = func([]Moved) error {
		rows, err := tx.Query(ctx, `delete from thumbnails where tenant_id = $1 and upload_id = $2 returning object_key`, tx.Tenant, id)
		if err == nil {
			pictures, err = pgx.CollectRows(rows, pgx.RowTo[string])
		}
		if err != nil {
			return fmt.Errorf("quarantine pictures: %w", err)
		}
		if err := tx.recordScan(ctx, id, &q.Scan); err != nil {
			return err
		}
		detail := map[string]any{"verdict": q.Scan.Verdict, "signature": q.Scan.Signature, "signatures": OrNull(q.Scan.Signatures)}
		return tx.Audit(ctx, Audit{Action: AuditUploadQuarantine, Subject: id.String(), Detail: detail})
	}
	err = tx.Move(ctx, id, t)
	return pictures, err
}

// MoveObject records that the object of an upload that is being processed is at another key. Without the lease it is
// [ErrFenced]; if the object is elsewhere by now, or the upload has ended, [ErrWrongStatus].
func (tx Tx) MoveObject(ctx context.Context, id uuid.UUID, fence int64, from, to string) error {
	if err := tx.RequireLease(ctx, id, fence); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, `
		update uploads set object_key = $4 where tenant_id = $1 and id = $2 and status = 'processing' and object_key = $3
			and deleted_at is null`, tx.Tenant, id, from, to)
	if err != nil {
		return fmt.Errorf("move object: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrWrongStatus
	}
	return nil
}

// condemned is the condition that an upload u is in quarantine.
const condemned = `u.status = 'failed' and u.failure_reason in ('infected', 'unscannable') and u.deleted_at is null
	and exists (select from scans c where c.tenant_id = u.tenant_id and c.upload_id = u.id and c.verdict in ('infected', 'unscannable'))`

// InQuarantine returns at most limit uploads, newest first, that are older than before (the zero id: from the newest).
func (tx Tx) InQuarantine(ctx context.Context, before uuid.UUID, limit int) ([]Upload, error) {
	if before == uuid.Nil {
		before = uuid.Max
	}
	rows, err := tx.Query(ctx, SelectUpload+` where u.tenant_id = $1 and u.id < $2 and `+condemned+` order by u.id desc limit $3`,
		tx.Tenant, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list quarantine: %w", err)
	}
	us, err := pgx.CollectRows(rows, pgx.RowToStructByName[Upload])
	if err != nil {
		return nil, fmt.Errorf("list quarantine: %w", err)
	}
	return us, nil
}

// ErrNotQuarantined says that an upload is not in quarantine.
var ErrNotQuarantined = errors.New("upload is not in quarantine")

// LockQuarantined locks the tenant and an upload in quarantine, and returns that. Any other upload is [ErrNotQuarantined], and
// what the tenant does not have [ErrNotFound].
func (tx Tx) LockQuarantined(ctx context.Context, id uuid.UUID) (u Upload, err error) {
	if err := tx.LockTenant(ctx); err != nil { // nobody begins anew under the same client id meanwhile
		return u, err
	}
	u, err = tx.oneUpload(ctx, `where u.tenant_id = $1 and u.id = $2 and `+condemned+` for no key update of u`, id)
	if errors.Is(err, ErrNotFound) {
		if _, err := tx.Upload(ctx, id); err != nil {
			return u, err
		}
		return u, ErrNotQuarantined
	}
	return u, err
}

// Release lets an upload that [Tx.LockQuarantined] has locked out of quarantine, in spite of what it was found to be, for
// a reason: it is uploaded again. Whoever calls it enqueues its processing. If its client has sent it again since, it is
// [ErrDuplicateClientID].
func (tx Tx) Release(ctx context.Context, u Upload, reason string) error {
	_, err := tx.Exec(ctx, `
		update scans set released_by = $3, released_at = now(), release_reason = $4,
			released_signatures = array_remove(released_signatures, signature) || signature
		where tenant_id = $1 and upload_id = $2`, tx.Tenant, u.ID, tx.Who.User, reason)
	if err != nil {
		return fmt.Errorf("release upload: %w", err)
	}
	if err := tx.Append(ctx, u.ID, Entry{Event: EventReleased}); err != nil {
		return err
	}
	done, err := tx.Retry(ctx, []uuid.UUID{u.ID})
	switch {
	case err != nil:
		return err
	case len(done) == 0:
		return ErrDuplicateClientID
	}
	if u.BatchID != nil {
		if err := tx.OpenBatch(ctx, *u.BatchID); err != nil && !errors.Is(err, ErrBatchCancelled) {
			return err
		}
	}
	return tx.Audit(ctx, Audit{Action: AuditQuarantineRelease, Subject: u.ID.String(), Detail: map[string]any{
		"signature": u.ScanSignature, "signatures": u.ScanSignatures, "reason": reason,
	}})
}
