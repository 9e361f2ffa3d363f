package storage

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ErrInUse says that a worker is at something just now, which has to end first.
var ErrInUse = errors.New("a job is running")

// Due yields the deleted uploads of all tenants whose time is over and that no erasure is about. It needs an operator's
// role.
func (db *DB) Due(ctx context.Context) iter.Seq2[UploadRef, error] {
	return Paged(func(after UploadRef) ([]UploadRef, error) {
		rows, err := db.pool.Query(ctx, `
			select u.tenant_id, u.id from uploads u
			where u.deleted_at is not null and u.purge_at <= now() and (u.tenant_id, u.id) > ($1, $2)
			  and not exists (select from erasures e where e.state = 'running' and `+covered+`)
			order by u.tenant_id, u.id limit $3`, after.Tenant, after.Upload, PageSize)
		return uploadRefs(rows, err)
	})
}

func uploadRefs(rows pgx.Rows, err error) (found []UploadRef, _ error) {
	if err == nil {
		found, err = pgx.CollectRows(rows, pgx.RowToStructByName[UploadRef])
	}
	if err != nil {
		return nil, fmt.Errorf("look for what is to be removed: %w", err)
	}
	return found, nil
}

const jobsOf = `args @> jsonb_build_object('tenant_id', $1::uuid, 'upload_id', $2::uuid)`

// Seal puts a deleted upload whose time is over past restoring and returns its project. One that was restored is
// [ErrWrongStatus]; one that a worker processes just now, and may still write pictures of, is [ErrInUse].
func (tx Tx) Seal(ctx context.Context, id uuid.UUID) (project string, err error) {
	var running bool
	err = tx.QueryRow(ctx, `
		with sealed as (
			update uploads set purge_at = '-infinity' where tenant_id = $1 and id = $2 and deleted_at is not null and purge_at <= now()
			returning project
		)
		select project, exists (select from river_job where state = 'running' and `+jobsOf+`) from sealed`,
		tx.Tenant, id).Scan(&project, &running)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", ErrWrongStatus
	case err != nil:
		return "", fmt.Errorf("seal upload: %w", err)
	case running:
		return project, ErrInUse
	}
	return project, nil
}

// Purge removes all rows of a sealed upload of which S3 has nothing more, and its jobs, and refunds its quota. The
// audit log keeps its id, so that what a late writer may yet leave in S3 is known for what it is.
func (tx Tx) Purge(ctx context.Context, id uuid.UUID, tables TenantTables) error {
	if err := tx.LockTenant(ctx); err != nil {
		return err
	}
	for _, t := range tables {
		if t.Upload {
			if _, err := tx.Exec(ctx, `delete from `+t.name()+` where tenant_id = $1 and upload_id = $2`, tx.Tenant, id); err != nil {
				return fmt.Errorf("purge %s: %w", t.Name, err)
			}
		}
	}
	if _, err := tx.Exec(ctx, `delete from river_job where state <> 'running' and `+jobsOf, tx.Tenant, id); err != nil {
		return fmt.Errorf("purge jobs: %w", err)
	}
	var charged int64
	err := tx.QueryRow(ctx, `
		delete from uploads where tenant_id = $1 and id = $2 and purge_at = '-infinity' returning charged_bytes`,
		tx.Tenant, id).Scan(&charged)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return ErrWrongStatus
	case err != nil:
		return fmt.Errorf("purge upload: %w", err)
	}
	if err := tx.Refund(ctx, charged); err != nil {
		return err
	}
	return tx.Audit(ctx, Audit{Action: AuditUploadPurge, Subject: id.String()})
}

// Purged reports whether the upload was there once and was removed for good, by itself or with its tenant. It needs
// an operator's role.
func (db *DB) Purged(ctx context.Context, ref UploadRef) (purged bool, err error) {
	err = db.pool.QueryRow(ctx, `
		select exists (select from audit where tenant_id = $1 and action = 'upload.purge' and subject = $2::uuid::text)
			or exists (select from tenants where id = $1 and erased_at is not null)`, ref.Tenant, ref.Upload).Scan(&purged)
	if err != nil {
		return false, fmt.Errorf("ask whether an upload was removed: %w", err)
	}
	return purged, nil
}

// A TenantTable is a table that has rows of tenants'.
type TenantTable struct {
	Name    string `db:"name"`
	Upload  bool   `db:"upload"`   // its rows are of uploads, upload_id
	User    bool   `db:"user"`     // its rows are of users, user_id
	UserKey bool   `db:"user_key"` // and each is one user's own: the user is part of its key
}

func (t TenantTable) name() string { return pgx.Identifier{t.Name}.Sanitize() }

// TenantTables are all tables with rows of tenants', those first that others do not refer to: in this order they can be
// emptied. Not among them are the audit log and the erasures, which stay.
type TenantTables []TenantTable

// TenantTables asks the catalog, so that a table that somebody adds is erased with the others unless somebody decides
// against it. It needs an operator's role.
func (db *DB) TenantTables(ctx context.Context) (TenantTables, error) {
	rows, err := db.pool.Query(ctx, `
		with columns as (
			select c.oid, c.relname::text as name, a.attname, a.attnum = any(k.indkey) as in_key
			from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
			left join pg_index k on k.indrelid = c.oid and k.indisprimary
			where c.relkind in ('r', 'p') and not c.relispartition and c.relnamespace = current_schema()::regnamespace
		)
		select name, bool_or(attname = 'upload_id') as upload, bool_or(attname = 'user_id') as "user",
			bool_or(attname = 'user_id' and in_key) is true as user_key
		from columns group by oid, name
		having bool_or(attname = 'tenant_id') and name not in ('audit', 'erasures') order by name`)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByName[TenantTable])
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	type reference struct {
		From string `db:"from"`
		To   string `db:"to"`
	}
	rows, err = db.pool.Query(ctx, `
		select distinct f.relname::text as from, t.relname::text as to from pg_constraint c
		join pg_class f on f.oid = c.conrelid join pg_class t on t.oid = c.confrelid
		where c.contype = 'f' and c.conrelid <> c.confrelid and f.relnamespace = current_schema()::regnamespace`)
	if err != nil {
		return nil, fmt.Errorf("list references: %w", err)
	}
	references, err := pgx.CollectRows(rows, pgx.RowToStructByName[reference])
	if err != nil {
		return nil, fmt.Errorf("list references: %w", err)
	}
	var sorted TenantTables
	for len(tables) > 0 {
		free := slices.IndexFunc(tables, func(t TenantTable) bool {
			return !slices.ContainsFunc(references, func(r reference) bool {
				return r.To == t.Name && slices.ContainsFunc(tables, func(o TenantTable) bool { return o.Name == r.From })
			})
		})
		if free < 0 {
			return nil, fmt.Errorf("tables refer to each other in a circle: %v", tables)
		}
		sorted = append(sorted, tables[free])
		tables = slices.Delete(tables, free, free+1)
	}
	return sorted, nil
}
