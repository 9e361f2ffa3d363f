package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A Remain is an upload that has ended and of which S3 may still have bytes. It is charged for them until [Release].
type Remain struct {
	ID          uuid.UUID `db:"id"`
	Project     string    `db:"project"`
	ObjectKey   *string   `db:"object_key"`   // what its rows name of them
	MultipartID *string   `db:"multipart_id"` // the multipart upload under that key
}

// Remaining returns those of the uploads of which S3 may still have bytes. What is written under a lease that somebody holds may
// come after it.
func Remaining(ctx context.Context, tx Tx, ids []uuid.UUID) ([]Remain, error) {
	rows, err := tx.Query(ctx, `
		select u.id, u.project, c.object_key, c.multipart_id
		from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
		where u.tenant_id = $1 and u.id = any($2) and u.remains order by u.id`, tx.Tenant, ids)
	return Collect[Remain]("read what remains of uploads", rows, err)
}

// Release records that S3 has nothing more of uploads that have ended, and refunds what they were charged, once. The partial
// uploads that a final one had taken are free again. It returns how many it has released.
func Release(ctx context.Context, tx Tx, ids []uuid.UUID) (released int, err error) {
	if err := tx.lockToEnd(ctx, "u.id = any($2)", ids); err != nil {
		return 0, err
	}
	rows, err := tx.Query(ctx, `
		with old as (
			select u.id, u.charged_bytes from uploads u where u.tenant_id = $1 and u.id = any($2) and u.remains
		)
		update uploads u set remains = false, charged_bytes = 0 from old where u.tenant_id = $1 and u.id = old.id
		returning u.id, old.charged_bytes, false as remains`, tx.Tenant, ids)
	gone, err := Collect[Moved]("release uploads", rows, err)
	if err != nil || len(gone) == 0 {
		return 0, err
	}
	tx.dropTails(idsOf(gone)) // of requests that ran on
	Later(tx, "forget content", `
		update contents set stored = false, object_key = null, multipart_id = null
		where tenant_id = $1 and upload_id = any($2)`, tx.Tenant, idsOf(gone))
	return len(gone), tx.refundAll(ctx, gone)
}

// refundAll refunds what uploads were charged of which S3 has nothing, and sets the partial uploads free that they had taken.
func (tx Tx) refundAll(ctx context.Context, gone []Moved) error {
	if len(gone) == 0 {
		return nil
	}
	var sum int64
	for _, m := range gone {
		sum += m.Charged
	}
	var both pgx.Batch
	both.Queue(`
		update uploads p set final_id = null, updated_at = now() from uploads f
		where f.tenant_id = $1 and f.id = any($2) and p.tenant_id = $1 and p.id = any(f.partials) and p.final_id = f.id
		  and p.status <> 'concatenated'`, tx.Tenant, idsOf(gone))
	both.Queue(`update tenants set charged_bytes = charged_bytes - $2 where id = $1`, tx.Tenant, sum)
	if err := tx.SendBatch(ctx, &both).Close(); err != nil {
		return fmt.Errorf("refund uploads: %w", err)
	}
	return nil
}
