package batch

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
)

// A Page selects batches that are older than Before (the zero id: all). Empty filters match all.
type Page struct {
	Before   uuid.UUID
	Limit    int
	Project  string
	State    storage.BatchState
	From, To time.Time // created at From or later, and before To
}

// inState is [storage.Batch].State as a condition on a batch b.
var inState = map[storage.BatchState]string{
	"":                     `true`,
	storage.BatchOpen:      `b.completed_at is null and b.cancelled_at is null`,
	storage.BatchCompleted: `b.completed_at is not null and not b.failed`,
	storage.BatchFailed:    `b.completed_at is not null and b.failed`,
	storage.BatchCancelled: `b.cancelled_at is not null`,
}

// List returns one page, newest first. Ids are UUIDv7 (RFC 9562, section 5.7), so their order is that of creation.
func List(ctx context.Context, tx storage.Tx, p Page) ([]storage.Batch, error) {
	before := p.Before
	if before == uuid.Nil {
		before = uuid.Max
	}
	return tx.FindBatches(ctx, `
		where b.tenant_id = $1 and b.id < $2 and ($3 = '' or b.project = $3)
		  and ($4::timestamptz is null or b.created_at >= $4) and ($5::timestamptz is null or b.created_at < $5)
		  and `+inState[p.State]+`
		order by b.id desc limit $6`, before, p.Project, storage.OrNull(p.From), storage.OrNull(p.To), p.Limit)
}

// A Total adds up the uploads of a batch. An upload that was replaced does not count.
type Total struct {
	ByStatus map[storage.Status]int64
	Expected int64 // bytes, of all that were not cancelled; an upload of unknown size counts what has arrived
	Received int64 // bytes, of the same
	Safe     int64 // bytes, of uploads whose whole object is safe
}

// Totals adds up the uploads of batches that the user sees. It has a total for each batch.
func Totals(ctx context.Context, tx storage.Tx, ids ...uuid.UUID) (map[uuid.UUID]Total, error) {
	totals := make(map[uuid.UUID]Total, len(ids))
	for _, id := range ids {
		totals[id] = Total{ByStatus: make(map[storage.Status]int64)}
	}
	rows, err := tx.Query(ctx, `
		select u.batch_id, u.status, count(*), coalesce(sum(coalesce(u.size, c.received)), 0)::bigint, coalesce(sum(c.received), 0)::bigint
		from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
		where u.tenant_id = $1 and u.batch_id = any($2) and u.replaced_by is null and u.deleted_at is null
		group by u.batch_id, u.status`, tx.Tenant, ids)
	if err != nil {
		return nil, fmt.Errorf("count uploads of batches: %w", err)
	}
	var id uuid.UUID
	var status storage.Status
	var n, size, received int64
	_, err = pgx.ForEachRow(rows, []any{&id, &status, &n, &size, &received}, func() error {
		t := totals[id]
		t.ByStatus[status] = n
		if status != storage.Cancelled {
			t.Expected += size
			t.Received += received
		}
		if status == storage.Uploaded || status == storage.Processing || status == storage.Completed {
			t.Safe += size
		}
		totals[id] = t
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("count uploads of batches: %w", err)
	}
	return totals, nil
}

// Stuck returns at most limit unfinished uploads of a batch that have received nothing for the time given, and how many there
// are. Those that had begun come first, then those that have been idle longest.
func Stuck(ctx context.Context, tx storage.Tx, batch uuid.UUID, idle time.Duration, limit int) ([]storage.Upload, int64, error) {
	return uploads(ctx, tx, batch, `u.status in ('pending', 'uploading') and c.touched_at <= now() - $3::interval`,
		`u.status = 'pending', c.touched_at, u.id`, limit, idle)
}

// Failed returns at most limit uploads of a batch that failed or expired, the latest first, and how many there are.
func Failed(ctx context.Context, tx storage.Tx, batch uuid.UUID, limit int) ([]storage.Upload, int64, error) {
	return uploads(ctx, tx, batch, `u.status in ('failed', 'expired')`, `u.updated_at desc, u.id`, limit)
}

// uploads returns those of a batch that the condition, which has args from $3 on, is true of.
func uploads(ctx context.Context, tx storage.Tx, batch uuid.UUID, condition, order string, limit int, args ...any) (us []storage.Upload, n int64, err error) {
	where := ` where u.tenant_id = $1 and u.batch_id = $2 and u.replaced_by is null and ` + condition
	args = append([]any{tx.Tenant, batch}, args...)
	var both pgx.Batch // in one round trip
	both.Queue(`select count(*) from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id`+where,
		args...).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	both.Queue(fmt.Sprintf("%s%s order by %s limit $%d", storage.SelectUpload, where, order, len(args)+1),
		append(args, limit)...).Query(func(rows pgx.Rows) (err error) {
		us, err = pgx.CollectRows(rows, pgx.RowToStructByName[storage.Upload])
		return err
	})
	if err := tx.SendBatch(ctx, &both).Close(); err != nil {
		return nil, 0, fmt.Errorf("list uploads of batch: %w", err)
	}
	return us, n, nil
}
