package storage

import (
	"context"
	"errors"

	"github.com/google/uuid"
)

// ErrSendAgain says that nothing of a failed or expired upload is left that could be processed again.
var ErrSendAgain = errors.New("upload must be sent again")

// LockFailed returns the uploads of a batch that failed or expired and were not sent again. It locks the tenant and them.
func LockFailed(ctx context.Context, tx Tx, batch uuid.UUID) ([]Upload, error) {
	return lockFailed(ctx, tx, `u.batch_id = $2`, batch)
}

// LockFailedUpload returns the upload if it failed or expired and was not sent again, and locks the tenant and it. Any other
// upload is [ErrWrongStatus], and one that the tenant does not have [ErrNotFound].
func LockFailedUpload(ctx context.Context, tx Tx, id uuid.UUID) (Upload, error) {
	us, err := lockFailed(ctx, tx, `u.id = $2`, id)
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

func lockFailed(ctx context.Context, tx Tx, which string, id uuid.UUID) ([]Upload, error) {
	if err := tx.LockTenant(ctx); err != nil { // so that no upload is created with one of their client ids meanwhile
		return nil, err
	}
	return tx.FindUploads(ctx, `
		where u.tenant_id = $1 and `+which+` and u.status in ('failed', 'expired') and u.replaced_by is null
		order by u.id for no key update of u`, id)
}

// Retry makes [MoveRetry] with failed uploads that [LockFailed] has locked and that have objects. The caller enqueues their
// processing. It returns the uploads that it moved; the others were sent again meanwhile under the same client ids.
func (tx Tx) Retry(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	moved, err := tx.MoveAll(ctx, "u.id = any($2)", ids, Transition{
		Move: MoveRetry, Set: "failure_reason = null, failure_detail = null", Detail: map[string]any{"retry": true},
		If: `u.object_key is not null and not exists (
			select from uploads o where o.tenant_id = $1 and o.user_id = u.user_id and o.client_id = u.client_id
			and o.status not in ('failed', 'expired', 'cancelled', 'concatenated') and o.deleted_at is null)`,
	})
	return idsOf(moved), err
}
