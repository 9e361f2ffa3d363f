package storage

import (
	"context"
	"errors"

	"github.com/google/uuid"
)

// ErrSendAgain says that a failed or expired upload has no bytes in S3 that could be processed again.
var ErrSendAgain = errors.New("upload must be sent again")

// LockFailed locks the tenant and the uploads of a batch that failed or expired and were not replaced, and returns these.
func (tx Tx) LockFailed(ctx context.Context, batch uuid.UUID) ([]Upload, error) {
	return tx.lockFailed(ctx, `u.batch_id = $2`, batch)
}

// LockFailedUpload locks the tenant and an upload that failed or expired, and returns it. Any other is [ErrWrongStatus], and
// one that the tenant does not have is [ErrNotFound].
func (tx Tx) LockFailedUpload(ctx context.Context, id uuid.UUID) (Upload, error) {
	us, err := tx.lockFailed(ctx, `u.id = $2`, id)
	if err != nil {
		return Upload{}, err
	}
	if len(us) == 1 {
		return us[0], nil
	}
	if _, err := tx.Upload(ctx, id); err != nil {
		return Upload{}, err
	}
	return Upload{}, ErrWrongStatus
}

func (tx Tx) lockFailed(ctx context.Context, which string, id uuid.UUID) ([]Upload, error) {
	if err := tx.LockTenant(ctx); err != nil { // so that no upload of the same client id begins meanwhile
		return nil, err
	}
	return tx.FindUploads(ctx, `
		where u.tenant_id = $1 and `+which+` and u.status in ('failed', 'expired') and u.replaced_by is null
		order by u.id for no key update of u`, id)
}

// Retry moves failed uploads, which [Tx.LockFailed] has locked and whose objects are in S3, back to uploaded. The caller
// enqueues their processing. It returns those that it moved; the others were sent again meanwhile, under the same client ids.
func (tx Tx) Retry(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	moved, err := tx.MoveAll(ctx, "u.id = any($2)", ids, Transition{
		Move: MoveRetry, Set: "failure_reason = null, failure_detail = null", Detail: map[string]any{"retry": true},
		If: `u.object_key is not null and not exists (
			select from uploads o where o.tenant_id = $1 and o.user_id = u.user_id and o.client_id = u.client_id
			and o.status not in ('failed', 'expired', 'cancelled', 'concatenated') and o.deleted_at is null)`,
	})
	return idsOf(moved), err
}
