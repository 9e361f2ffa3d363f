package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// EraseLock is held by the one process that removes what is to go.
const EraseLock = migrationLock + 1400

// covered is the condition that an erasure e is about an upload u: with its partial ones, and of a user what it had when
// the erasure was asked for.
const covered = `e.tenant_id = u.tenant_id and (e.kind = 'tenant'
	or e.kind = 'user' and e.subject = u.user_id and u.created_at <= e.requested_at
	or e.kind = 'upload' and e.subject in (u.id::text, u.final_id::text))`

// Condemn makes all uploads that the erasure is about vanish, and puts them past restoring: a page of them in each
// transaction.
func (db *DB) Condemn(ctx context.Context, e Erasure) error {
	for after := uuid.Nil; ; {
		err := db.InTenant(ctx, func(tx Tx) error {
			return tx.QueryRow(ctx, `
				with theirs as (
					select u.id from uploads u join erasures e on `+covered+`
					where u.tenant_id = $1 and e.id = $2 and u.id > $3 and u.purge_at is distinct from '-infinity'
					order by u.id limit $4 for update of u
				), gone as (
					update uploads u set deleted_at = coalesce(deleted_at, now()), purge_at = '-infinity'
					from theirs where u.tenant_id = $1 and u.id = theirs.id
				)
				select id from theirs order by id desc limit 1`, tx.Tenant, e.ID, after, PageSize).Scan(&after)
		})
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil
		case err != nil:
			return fmt.Errorf("condemn uploads: %w", err)
		}
	}
}

// Condemned returns a page of the uploads that the erasure is about and that are still there, after the one named; of a
// tenant's, only those that somebody may be writing.
func (tx Tx) Condemned(ctx context.Context, e Erasure, after uuid.UUID) ([]UploadRef, error) {
	return uploadRefs(tx.Query(ctx, `
		select u.tenant_id, u.id from uploads u join erasures e on `+covered+`
		where u.tenant_id = $1 and e.id = $2 and u.id > $3 and u.purge_at = '-infinity'
		  and (e.kind <> 'tenant' or u.status in ('pending', 'uploading') or `+LeaseHeld+`)
		order by u.id limit $4`, tx.Tenant, e.ID, after, PageSize))
}

// CountErased adds to what the erasure has removed.
func (tx Tx) CountErased(ctx context.Context, id uuid.UUID, uploads, objects int) error {
	_, err := tx.Exec(ctx, `
		update erasures set uploads = uploads + $3, objects = objects + $4 where tenant_id = $1 and id = $2`,
		tx.Tenant, id, uploads, objects)
	if err != nil {
		return fmt.Errorf("count what was erased: %w", err)
	}
	return nil
}

// DropJobs removes all jobs that name the tenant. While one of them runs it is [ErrInUse], and the others are removed.
func (db *DB) DropJobs(ctx context.Context, tenant uuid.UUID) error {
	const theirs = `args @> jsonb_build_object('tenant_id', $1::uuid)`
	if _, err := db.pool.Exec(ctx, `delete from river_job where state <> 'running' and `+theirs, tenant); err != nil {
		return fmt.Errorf("drop jobs: %w", err)
	}
	var running bool
	if err := db.pool.QueryRow(ctx, `select exists (select from river_job where `+theirs+`)`, tenant).Scan(&running); err != nil {
		return fmt.Errorf("look for jobs: %w", err)
	}
	if running {
		return ErrInUse
	}
	return nil
}

// eraseRows is how many rows of one table go in a transaction.
const eraseRows = 1000

// EraseRows removes a number of the tenant's rows from the first of the tables that has any. It returns false once none
// has: then only the tenant's own row is left, its audit log and its erasures.
func (tx Tx) EraseRows(ctx context.Context, e Erasure, tables TenantTables) (more bool, err error) {
	for _, t := range tables {
		tag, err := tx.Exec(ctx, `
			delete from `+t.name()+` where ctid = any (array(select ctid from `+t.name()+` where tenant_id = $1 limit $2))`,
			tx.Tenant, eraseRows)
		if err != nil {
			return false, fmt.Errorf("erase %s: %w", t.Name, err)
		}
		n := int(tag.RowsAffected())
		if n == 0 {
			continue
		}
		if t.Name == "uploads" {
			return true, tx.CountErased(ctx, e.ID, n, 0)
		}
		return true, nil
	}
	return false, nil
}

// EraseUserRows removes what other tables than uploads have of a user. A row that is the user's own goes; another, which
// others need too, is nobody's from then on.
func (tx Tx) EraseUserRows(ctx context.Context, e Erasure, tables TenantTables) error {
	for _, t := range tables {
		if !t.User || t.Name == "uploads" {
			continue
		}
		sql := `update ` + t.name() + ` set user_id = 'erased' where tenant_id = $1 and user_id = $2`
		if t.UserKey {
			sql = `delete from ` + t.name() + ` where tenant_id = $1 and user_id = $2`
		}
		if _, err := tx.Exec(ctx, sql, tx.Tenant, e.Subject); err != nil {
			return fmt.Errorf("erase user from %s: %w", t.Name, err)
		}
	}
	return nil
}

// FinishErasure records that all is gone; should there be anything after all, it is [ErrWrongStatus]. Of a tenant its row
// stays, without its name.
func (tx Tx) FinishErasure(ctx context.Context, e Erasure, tables TenantTables) error {
	if err := tx.LockTenant(ctx); err != nil { // after which no upload can begin before we commit
		return err
	}
	var left bool
	err := tx.QueryRow(ctx, `select exists (select from uploads u join erasures e on `+covered+`
		where u.tenant_id = $1 and e.id = $2)`, tx.Tenant, e.ID).Scan(&left)
	switch {
	case err != nil:
		return fmt.Errorf("look for what is left: %w", err)
	case left:
		return ErrWrongStatus
	}
	if e.Kind == EraseTenant {
		if more, err := tx.EraseRows(ctx, e, tables); err != nil || more {
			return orWrongStatus(err)
		}
		_, err := tx.Exec(ctx, `
			update tenants set name = 'erased ' || id::text, quota_bytes = 0, charged_bytes = 0, erased_at = now() where id = $1`, tx.Tenant)
		if err != nil {
			return fmt.Errorf("make a tombstone of the tenant: %w", err)
		}
	}
	tag, err := tx.Exec(ctx, `
		update erasures set state = 'done', ended_at = now() where tenant_id = $1 and id = $2 and state = 'running'`, tx.Tenant, e.ID)
	if err != nil {
		return fmt.Errorf("finish erasure: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrWrongStatus
	}
	return tx.Audit(ctx, Audit{Action: AuditErasureDone, Subject: e.ID.String()})
}

func orWrongStatus(err error) error {
	if err != nil {
		return err
	}
	return ErrWrongStatus
}
