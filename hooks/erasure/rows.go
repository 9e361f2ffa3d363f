package erasure

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
)

// covered is the condition that an erasure e removes an upload u. An upload goes with its partial uploads, and a user loses
// the uploads that were there when the erasure was requested.
const covered = `e.tenant_id = u.tenant_id and (e.kind = 'tenant'
	or e.kind = 'user' and e.subject = u.user_id and u.created_at <= e.requested_at
	or e.kind = 'upload' and e.subject in (u.id::text, u.final_id::text))`

// hide hides all uploads that the erasure removes and puts them past restoring, a page of them in each transaction.
func hide(ctx context.Context, db *storage.DB, e Erasure) error {
	for after := uuid.Nil; ; {
		err := db.InTenant(ctx, func(tx storage.Tx) error {
			return tx.QueryRow(ctx, `
				with theirs as (
					select u.id from uploads u join erasures e on `+covered+`
					where u.tenant_id = $1 and e.id = $2 and u.id > $3 and u.purge_at is distinct from '-infinity'
					order by u.id limit $4 for update of u
				), gone as (
					update uploads u set deleted_at = coalesce(deleted_at, now()), purge_at = '-infinity'
					from theirs where u.tenant_id = $1 and u.id = theirs.id
				)
				select id from theirs order by id desc limit 1`, tx.Tenant, e.ID, after, storage.PageSize).Scan(&after)
		})
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil
		case err != nil:
			return fmt.Errorf("hide uploads: %w", err)
		}
	}
}

// remaining returns a page of the uploads that the erasure removes and that are still there, after the one named; of a
// tenant's erasure, only those that somebody may be writing.
func remaining(ctx context.Context, tx storage.Tx, e Erasure, after uuid.UUID) ([]storage.UploadRef, error) {
	rows, err := tx.Query(ctx, `
		select u.tenant_id, u.id from uploads u join erasures e on `+covered+`
		where u.tenant_id = $1 and e.id = $2 and u.id > $3 and u.purge_at = '-infinity'
		  and (e.kind <> 'tenant' or u.status in ('pending', 'uploading') or `+storage.LeaseHeld+`)
		order by u.id limit $4`, tx.Tenant, e.ID, after, storage.PageSize)
	return storage.Collect[storage.UploadRef]("look for what is to be removed", rows, err)
}

// countErased adds to the numbers of uploads and objects that the erasure has removed.
func countErased(ctx context.Context, tx storage.Tx, id uuid.UUID, uploads, objects int) error {
	_, err := storage.Exec(ctx, tx, "count what was erased", `
		update erasures set uploads = uploads + $3, objects = objects + $4 where tenant_id = $1 and id = $2`,
		tx.Tenant, id, uploads, objects)
	return err
}

// eraseRows is how many rows of one table go in a transaction.
const eraseRows = 1000

// eraseTenantRows removes a number of the tenant's rows from the first table that has any. It returns false if none has: then
// only the tenant's own row, its audit log and its erasures are left.
func eraseTenantRows(ctx context.Context, tx storage.Tx, e Erasure, tables []table) (more bool, err error) {
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
			return true, countErased(ctx, tx, e.ID, n, 0)
		}
		return true, nil
	}
	return false, nil
}

// eraseUserRows removes what other tables than uploads have of a user. It deletes rows that are the user's own, and takes the
// user's id out of rows that others need as well.
func eraseUserRows(ctx context.Context, tx storage.Tx, e Erasure, tables []table) error {
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

// finish records that all is gone; if anything is left, it is [storage.ErrWrongStatus]. A tenant's row stays, without its
// name.
func finish(ctx context.Context, tx storage.Tx, e Erasure, tables []table) error {
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
		return storage.ErrWrongStatus
	}
	if e.Kind == OfTenant {
		more, err := eraseTenantRows(ctx, tx, e, tables)
		switch {
		case err != nil:
			return err
		case more:
			return storage.ErrWrongStatus
		}
		_, err = tx.Exec(ctx, `
			update tenants set name = 'erased ' || id::text, quota_bytes = 0, charged_bytes = 0, erased_at = now() where id = $1`, tx.Tenant)
		if err != nil {
			return fmt.Errorf("make the tenant a tombstone: %w", err)
		}
	}
	tag, err := tx.Exec(ctx, `
		update erasures set state = 'done', ended_at = now() where tenant_id = $1 and id = $2 and state = 'running'`, tx.Tenant, e.ID)
	if err != nil {
		return fmt.Errorf("finish erasure: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return storage.ErrWrongStatus
	}
	return tx.Audit(ctx, storage.Audit{Action: storage.AuditErasureDone, Subject: e.ID.String()})
}
