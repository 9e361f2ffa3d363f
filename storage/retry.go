package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ErrSendAgain says that an upload which has ended badly has nothing left that could be processed again.
var ErrSendAgain = errors.New("upload must be sent again")

// EndedBadly returns the uploads of a batch that failed or expired and were not sent again, and locks the tenant and them.
func (tx Tx) EndedBadly(ctx context.Context, batch uuid.UUID) ([]Upload, error) {
	return tx.endedBadly(ctx, `u.batch_id = $2`, batch)
}

// EndedBadlyOne returns the upload if it failed or expired, and locks the tenant and it. Any other is [ErrWrongStatus],
// and what the tenant does not have [ErrNotFound].
func (tx Tx) EndedBadlyOne(ctx context.Context, id uuid.UUID) (Upload, error) {
	us, err := tx.endedBadly(ctx, `u.id = $2`, id)
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

func (tx Tx) endedBadly(ctx context.Context, which string, id uuid.UUID) ([]Upload, error) {
	if err := tx.LockTenant(ctx); err != nil { // nobody begins anew under the same client id meanwhile
		return nil, err
	}
	rows, err := tx.Query(ctx, SelectUpload+`
		where u.tenant_id = $1 and `+which+` and u.status in ('failed', 'expired') and u.replaced_by is null
		order by u.id for no key update of u`, tx.Tenant, id)
	if err != nil {
		return nil, fmt.Errorf("read what ended badly: %w", err)
	}
	us, err := pgx.CollectRows(rows, pgx.RowToStructByName[Upload])
	if err != nil {
		return nil, fmt.Errorf("read what ended badly: %w", err)
	}
	return us, nil
}

// Retry makes failed uploads, whose objects are there and which [Tx.EndedBadly] has locked, uploaded again. Whoever calls
// it enqueues their processing. It returns those that it did so with; the others were sent again meanwhile, under the same
// client ids.
func (tx Tx) Retry(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	moved, err := tx.MoveAll(ctx, "u.id = any($2)", ids, Transition{
		Move: MoveRetry, Set: "failure_reason = null, failure_detail = null", Detail: map[string]any{"retry": true},
		If: `u.object_key is not null and not exists (
			select from uploads o where o.tenant_id = $1 and o.user_id = u.user_id and o.client_id = u.client_id
			and o.status not in ('failed', 'expired', 'cancelled', 'concatenated') and o.deleted_at is null)`,
	})
	return idsOf(moved), err
}
