package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ErrBatchCancelled says that the batch was cancelled: nothing is added to it, and nothing in it begins again.
var ErrBatchCancelled = errors.New("batch was cancelled")

// A BatchState is a state in the life of a batch.
type BatchState string

// The states of a batch.
const (
	BatchOpen      BatchState = "open"      // something in it has not ended, or nothing is in it
	BatchCompleted BatchState = "completed" // all that is in it is completed, but for what was cancelled
	BatchFailed    BatchState = "failed"    // all that is in it has ended, and something failed or expired
	BatchCancelled BatchState = "cancelled" // an end: somebody who manages took it back
)

// Known reports whether s is one of the states.
func (s BatchState) Known() bool {
	switch s {
	case BatchOpen, BatchCompleted, BatchFailed, BatchCancelled:
		return true
	}
	return false
}

// A Batch is what is sent together: uploads of one project.
type Batch struct {
	ID          uuid.UUID  `db:"id"`
	Project     string     `db:"project"`
	Name        string     `db:"name"`
	ClientID    *string    `db:"client_id"` // the client's own name for it; one batch of a project has it
	UserID      string     `db:"user_id"`   // who made it
	Manifest    bool       `db:"manifest"`  // its client said what belongs to it
	CreatedAt   time.Time  `db:"created_at"`
	UpdatedAt   time.Time  `db:"updated_at"`   // when it was last added to, renamed, ended or opened again
	CompletedAt *time.Time `db:"completed_at"` // since when everything in it has ended
	Failed      bool       `db:"failed"`       // something in it failed or expired
	CancelledAt *time.Time `db:"cancelled_at"`
}

// State returns the batch's state.
func (b Batch) State() BatchState {
	switch {
	case b.CancelledAt != nil:
		return BatchCancelled
	case b.CompletedAt == nil:
		return BatchOpen
	case b.Failed:
		return BatchFailed
	}
	return BatchCompleted
}

// Label is what an upload in the batch says of it to those who know no ids: the client's own name, or else the name
// that the batch has now.
func (b Batch) Label() string {
	if b.ClientID != nil {
		return *b.ClientID
	}
	return b.Name
}

const selectBatch = `
	select b.id, b.project, b.name, b.client_id, b.user_id, b.manifest, b.created_at, b.updated_at, b.completed_at, b.failed,
		b.cancelled_at
	from batches b`

// Batch returns the batch, or [ErrNotFound].
func (tx Tx) Batch(ctx context.Context, id uuid.UUID) (Batch, error) {
	return tx.oneBatch(ctx, `where b.tenant_id = $1 and b.id = $2`, id)
}

func (tx Tx) oneBatch(ctx context.Context, where string, args ...any) (Batch, error) {
	bs, err := tx.batches(ctx, where, args...)
	switch {
	case err != nil:
		return Batch{}, err
	case len(bs) == 0:
		return Batch{}, fmt.Errorf("read batch: %w", ErrNotFound)
	}
	return bs[0], nil
}

func (tx Tx) batches(ctx context.Context, where string, args ...any) ([]Batch, error) {
	rows, err := tx.Query(ctx, selectBatch+" "+where, append([]any{tx.Tenant}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("read batches: %w", err)
	}
	bs, err := pgx.CollectRows(rows, pgx.RowToStructByName[Batch])
	if err != nil {
		return nil, fmt.Errorf("read batches: %w", err)
	}
	return bs, nil
}

// A BatchPage asks for batches, newest first, that are older than Before (the zero id: from the newest). Empty filters
// match all.
type BatchPage struct {
	Before   uuid.UUID
	Limit    int
	Project  string
	State    BatchState
	From, To time.Time // made at From or later, and before To
}

// stateCondition is Batch.State as a condition on a batch b.
var stateCondition = map[BatchState]string{
	"":             `true`,
	BatchOpen:      `b.completed_at is null and b.cancelled_at is null`,
	BatchCompleted: `b.completed_at is not null and not b.failed`,
	BatchFailed:    `b.completed_at is not null and b.failed`,
	BatchCancelled: `b.cancelled_at is not null`,
}

// Batches returns one page. Ids are UUIDv7 (RFC 9562, section 5.7), so their order is that of creation.
func (tx Tx) Batches(ctx context.Context, p BatchPage) ([]Batch, error) {
	before := p.Before
	if before == uuid.Nil {
		before = uuid.Max
	}
	return tx.batches(ctx, `
		where b.tenant_id = $1 and b.id < $2 and ($3 = '' or b.project = $3)
		  and ($4::timestamptz is null or b.created_at >= $4) and ($5::timestamptz is null or b.created_at < $5)
		  and `+stateCondition[p.State]+`
		order by b.id desc limit $6`, before, p.Project, OrNull(p.From), OrNull(p.To), p.Limit)
}

// A BatchTotal is what the uploads of a batch come to. Those that were sent again count as what they were sent again as.
type BatchTotal struct {
	ByStatus map[Status]int64
	Expected int64 // bytes, of all but what was cancelled; an upload whose size nobody knows has what has arrived
	Received int64 // bytes, of the same
	Safe     int64 // bytes, of uploads that are uploaded, or have come further
}

// BatchTotals counts the uploads of batches that the user sees. It has a total for each batch.
func (tx Tx) BatchTotals(ctx context.Context, ids ...uuid.UUID) (map[uuid.UUID]BatchTotal, error) {
	totals := make(map[uuid.UUID]BatchTotal, len(ids))
	for _, id := range ids {
		totals[id] = BatchTotal{ByStatus: make(map[Status]int64)}
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
	var status Status
	var n, size, received int64
	_, err = pgx.ForEachRow(rows, []any{&id, &status, &n, &size, &received}, func() error {
		t := totals[id]
		t.ByStatus[status] = n
		if status != Cancelled {
			t.Expected += size
			t.Received += received
		}
		if status == Uploaded || status == Processing || status == Completed {
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

// StuckUploads returns at most limit uploads of a batch that have not all their bytes and of which none has arrived for
// the time given, and how many there are. Those that had begun come first, the longest silent first.
func (tx Tx) StuckUploads(ctx context.Context, batch uuid.UUID, silent time.Duration, limit int) ([]Upload, int64, error) {
	return tx.uploadsOfBatch(ctx, batch, `u.status in ('pending', 'uploading') and c.touched_at <= now() - $3::interval`,
		`u.status = 'pending', c.touched_at, u.id`, limit, silent)
}

// FailedUploads returns at most limit uploads of a batch that failed or expired, the latest first, and how many there are.
func (tx Tx) FailedUploads(ctx context.Context, batch uuid.UUID, limit int) ([]Upload, int64, error) {
	return tx.uploadsOfBatch(ctx, batch, `u.status in ('failed', 'expired')`, `u.updated_at desc, u.id`, limit)
}

// uploadsOfBatch returns those that condition, which has args from $3 on, holds for.
func (tx Tx) uploadsOfBatch(ctx context.Context, batch uuid.UUID, condition, order string, limit int, args ...any) (us []Upload, n int64, err error) {
	where := ` where u.tenant_id = $1 and u.batch_id = $2 and u.replaced_by is null and ` + condition
	args = append([]any{tx.Tenant, batch}, args...)
	var both pgx.Batch // in one round trip
	both.Queue(`select count(*) from uploads u join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id`+where,
		args...).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	both.Queue(fmt.Sprintf("%s%s order by %s limit $%d", SelectUpload, where, order, len(args)+1),
		append(args, limit)...).Query(func(rows pgx.Rows) (err error) {
		us, err = pgx.CollectRows(rows, pgx.RowToStructByName[Upload])
		return err
	})
	if err := tx.SendBatch(ctx, &both).Close(); err != nil {
		return nil, 0, fmt.Errorf("list uploads of batch: %w", err)
	}
	return us, n, nil
}

// A NewBatch is what is known of a batch when it is made.
type NewBatch struct {
	ID       uuid.UUID
	Project  string
	Name     string
	ClientID string // "" for none
	UserID   string
	Manifest bool // its client says what belongs to it
}

// FindBatch returns the batch that a client names, or [ErrNotFound]: the one with that id, in whatever project, or else
// the one of the project that has that client id.
func (tx Tx) FindBatch(ctx context.Context, id uuid.UUID, project, clientID string) (Batch, error) {
	return tx.oneBatch(ctx, `
		where b.tenant_id = $1 and (b.id = $2 or (b.project = $3 and b.client_id = $4))
		order by b.id = $2 desc limit 1`, id, project, OrNull(clientID))
}

// MakeBatch makes a batch; made is false if the project has one with that client id already, which it returns. It comes
// before anything is locked: it may wait for somebody who makes the same batch, and who locks the tenant next. A tenant
// that is not there has no room for anything: [ErrQuotaExceeded].
func (tx Tx) MakeBatch(ctx context.Context, n NewBatch) (b Batch, made bool, err error) {
	tag, err := tx.Exec(ctx, `
		insert into batches (tenant_id, id, project, name, client_id, user_id, manifest)
		select id, $2, $3, $4, nullif($5, ''), $6, $7 from tenants where id = $1
		on conflict (tenant_id, project, client_id) where client_id is not null do nothing`,
		tx.Tenant, n.ID, n.Project, n.Name, n.ClientID, n.UserID, n.Manifest)
	if err != nil {
		return Batch{}, false, fmt.Errorf("make batch: %w", err)
	}
	b, err = tx.FindBatch(ctx, n.ID, n.Project, n.ClientID)
	if errors.Is(err, ErrNotFound) {
		return Batch{}, false, ErrQuotaExceeded
	}
	if tag.RowsAffected() == 1 {
		tx.Changed(BatchChanged, n.ID)
	}
	return b, tag.RowsAffected() == 1, err
}

// A Watch says which uploads somebody wants to know of. Empty fields match all.
type Watch struct {
	Uploads  []uuid.UUID
	Batches  []uuid.UUID
	Labels   []string // of batches, as their clients call them; what has either matches
	Projects []string
	User     string
}

// WatchedBatches returns at most limit batches of the watch that have changed since then, the latest, in the order of
// their change; those of changed, whatever became of the batch itself; and, if asked for, those that are open.
func (tx Tx) WatchedBatches(ctx context.Context, w Watch, since time.Time, changed []uuid.UUID, open bool, limit int) ([]Batch, error) {
	bs, err := tx.batches(ctx, `
		where b.tenant_id = $1 and (b.updated_at > $2 or b.id = any($3) or $4 and `+stateCondition[BatchOpen]+`)
		  and ($5::uuid[] is null and $6::text[] is null or b.id = any($5) or coalesce(b.client_id, b.name) = any($6))
		  and ($7::text[] is null or b.project = any($7)) and ($8 = '' or b.user_id = $8)
		order by b.updated_at desc, b.id limit $9`,
		since, changed, open, w.Batches, w.Labels, w.Projects, w.User, limit)
	slices.Reverse(bs)
	return bs, err
}

// BatchesByID returns those of the batches that the tenant has.
func (tx Tx) BatchesByID(ctx context.Context, ids []uuid.UUID) ([]Batch, error) {
	return tx.batches(ctx, `where b.tenant_id = $1 and b.id = any($2) order by b.updated_at, b.id`, ids)
}
