package live

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
)

// A version tells states of an upload apart. The offset moves without the time.
type version struct {
	UpdatedAt time.Time `db:"updated_at"`
	Offset    int64     `db:"received"`
}

func versionOf(u storage.Upload) version { return version{u.UpdatedAt, u.Received} }

// covers reports whether v is no older than w, a version of the same upload.
func (v version) covers(w version) bool {
	return !v.UpdatedAt.Before(w.UpdatedAt) && v.Offset >= w.Offset
}

// clock returns Postgres' time at the beginning of the transaction, which sees all that was committed before.
func clock(ctx context.Context, tx storage.Tx) (now time.Time, err error) {
	if err = tx.QueryRow(ctx, `select now()`).Scan(&now); err != nil {
		return now, fmt.Errorf("ask the clock: %w", err)
	}
	return now, nil
}

// moved is which uploads u with contents c have changed since $2.
const moved = `(u.updated_at > $2 or u.status in ('pending', 'uploading') and c.touched_at > $2)`

// movedSince returns the versions of the tenant's uploads that have changed since then by the time of their
// transaction's beginning, partial uploads left out. An upload that takes bytes no more has changed only if its status has.
func movedSince(ctx context.Context, tx storage.Tx, since time.Time) (map[uuid.UUID]version, error) {
	rows, err := tx.Query(ctx, `
		select u.id, u.updated_at, c.received from uploads u
		join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
		where u.tenant_id = $1 and u.kind <> 'partial' and u.updated_at > $2
		union
		select u.id, u.updated_at, c.received from uploads u
		join contents c on c.tenant_id = u.tenant_id and c.upload_id = u.id
		where u.tenant_id = $1 and u.kind <> 'partial' and u.status in ('pending', 'uploading') and c.touched_at > $2`,
		tx.Tenant, since)
	if err != nil {
		return nil, fmt.Errorf("look for changed uploads: %w", err)
	}
	found := make(map[uuid.UUID]version)
	var id uuid.UUID
	var v version
	_, err = pgx.ForEachRow(rows, []any{&id, &v.UpdatedAt, &v.Offset}, func() error {
		found[id] = v
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for changed uploads: %w", err)
	}
	return found, nil
}

// watched returns at most limit uploads of the filter that have changed since then, the latest, in the order of their
// change; and, if asked for, those that are not at an end, no matter since when.
func watched(ctx context.Context, tx storage.Tx, f filter, since time.Time, unfinished bool, limit int) ([]storage.Upload, error) {
	which := moved
	if unfinished {
		which = `(u.updated_at > $2 or u.status in ('pending', 'uploading') or u.status in ('uploaded', 'processing'))`
	}
	rows, err := tx.Query(ctx, `
		select * from (`+storage.SelectUpload+`
			where u.tenant_id = $1 and u.kind <> 'partial' and `+which+`
			  and ($3::uuid[] is null or u.id = any($3))
			  and ($4::uuid[] is null and $5::text[] is null or u.batch_id = any($4) or u.batch = any($5))
			  and ($6::text[] is null or u.project = any($6)) and ($7 = '' or u.user_id = $7)
			order by u.updated_at desc, u.id limit $8) latest
		order by updated_at, id`,
		tx.Tenant, since, f.uploads, f.batchIDs, f.batches, f.projects, f.user, limit)
	return storage.Collect[storage.Upload]("read watched uploads", rows, err)
}

// requireUploads returns [storage.ErrNotFound] unless the tenant has all of these uploads.
func requireUploads(ctx context.Context, tx storage.Tx, ids []uuid.UUID) error {
	var all bool
	err := tx.QueryRow(ctx, `
		select not exists (select from unnest($2::uuid[]) wanted
			where not exists (select from uploads u where u.tenant_id = $1 and u.id = wanted))`, tx.Tenant, ids).Scan(&all)
	if err != nil {
		return fmt.Errorf("look for uploads: %w", err)
	}
	if !all {
		return storage.ErrNotFound
	}
	return nil
}

// An announced is an announcement as listeners are sent it, and what its upload or batch is, if it is about one.
type announced struct {
	ID        uuid.UUID      `db:"id" json:"id"`
	Type      string         `db:"type" json:"type"`
	UploadID  *uuid.UUID     `db:"upload_id" json:"upload_id"`
	BatchID   *uuid.UUID     `db:"batch_id" json:"batch_id"`
	CreatedAt time.Time      `db:"created_at" json:"created_at"`
	Detail    map[string]any `db:"detail" json:"detail"`
	Project   *string        `db:"project" json:"-"` // null too where what it is about is not to be seen
	User      *string        `db:"user_id" json:"-"`
	Batch     *string        `db:"batch" json:"-"`
}

const selectAnnounced = `
	select a.id, a.type, a.upload_id, a.batch_id, a.detail, a.created_at, coalesce(u.project, b.project) as project,
		coalesce(u.user_id, b.user_id) as user_id, coalesce(u.batch, b.client_id, b.name) as batch
	from announcements a
	left join uploads u on u.tenant_id = a.tenant_id and u.id = a.upload_id
	left join batches b on b.tenant_id = a.tenant_id and b.id = a.batch_id`

// announcementsByID returns those of the announcements that the tenant has.
func announcementsByID(ctx context.Context, tx storage.Tx, ids []uuid.UUID) ([]announced, error) {
	return announcements(ctx, tx, selectAnnounced+` where a.tenant_id = $1 and a.id = any($2) order by a.created_at, a.id`, ids)
}

// announcementsSince returns the announcements of after that time, the oldest first, without those that only tell of
// an upload what its status does.
func announcementsSince(ctx context.Context, tx storage.Tx, since time.Time) ([]announced, error) {
	return announcements(ctx, tx, selectAnnounced+`
		where a.tenant_id = $1 and a.created_at > $2 and a.type not like 'upload.%' order by a.created_at, a.id`, since)
}

func announcements(ctx context.Context, tx storage.Tx, sql string, args ...any) ([]announced, error) {
	rows, err := tx.Query(ctx, sql, append([]any{tx.Tenant}, args...)...)
	return storage.Collect[announced]("read announcements", rows, err)
}

// watchedBatches returns at most limit batches of the filter that have changed since then, the latest, in the order of their
// change; those of changed, whatever became of the batch itself; and, if asked for, those that are open.
func watchedBatches(ctx context.Context, tx storage.Tx, f filter, since time.Time, changed []uuid.UUID, open bool, limit int) ([]storage.Batch, error) {
	bs, err := tx.FindBatches(ctx, `
		where b.tenant_id = $1 and (b.updated_at > $2 or b.id = any($3) or $4 and b.completed_at is null and b.cancelled_at is null)
		  and ($5::uuid[] is null and $6::text[] is null or b.id = any($5) or coalesce(b.client_id, b.name) = any($6))
		  and ($7::text[] is null or b.project = any($7)) and ($8 = '' or b.user_id = $8)
		order by b.updated_at desc, b.id limit $9`,
		since, changed, open, f.batchIDs, f.batches, f.projects, f.user, limit)
	slices.Reverse(bs)
	return bs, err
}
