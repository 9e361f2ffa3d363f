package reconcile

import (
	"context"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// A drift is a tenant whose charged quota is not what its uploads come to.
type drift struct {
	Tenant  uuid.UUID `db:"id"`
	Charged int64     `db:"charged_bytes"`
	Uploads int64     `db:"uploads_bytes"` // the sum of what its uploads are charged
}

// findDrifts returns those of all tenants. It reads every upload.
func findDrifts(ctx context.Context, db *storage.DB) ([]drift, error) {
	rows, err := db.Pool().Query(ctx, `
		select t.id, t.charged_bytes, coalesce(u.bytes, 0) uploads_bytes
		from tenants t left join (select tenant_id, sum(charged_bytes)::bigint bytes from uploads group by tenant_id) u
			on u.tenant_id = t.id
		where t.charged_bytes <> coalesce(u.bytes, 0) order by t.id`)
	return storage.Collect[drift]("compare quotas", rows, err)
}

// settleQuota charges the tenant what its uploads come to. It returns [storage.ErrWrongStatus] if that is so already.
func settleQuota(ctx context.Context, tx storage.Tx) error {
	if err := tx.LockTenant(ctx); err != nil { // after which no charge can change before we commit
		return err
	}
	n, err := storage.Exec(ctx, tx, "settle quota", `
		update tenants set charged_bytes = s.bytes
		from (select coalesce(sum(charged_bytes), 0)::bigint bytes from uploads where tenant_id = $1) s
		where id = $1 and charged_bytes <> s.bytes`, tx.Tenant)
	if err == nil && n == 0 {
		err = storage.ErrWrongStatus
	}
	return err
}
