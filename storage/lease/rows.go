package lease

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

const anyFence = 0

// giveBack deletes a holder's lock and tells those who wait for it, if there are any.
func (m *Manager) giveBack(ctx context.Context, owner, upload, holder uuid.UUID, fence int64) error {
	ctx = tenant.With(ctx, tenant.Identity{Tenant: owner})
	return m.db.InTenantLazily(ctx, func(tx storage.Tx) error {
		_, err := tx.Exec(ctx, `
			with gone as (
				delete from upload_leases
				where tenant_id = $1 and upload_id = $2 and holder_id = $3 and ($4::bigint = 0 or fence = $4)
				returning waiter
			)
			select pg_notify('`+locksChannel+`', 'free ' || $1::text || ' ' || $2::text)
			from gone where waiter is not null`, tx.Tenant, upload, holder, fence)
		return err
	})
}

// nextFence is a fence that is above all before and that nobody else ever has: objects in S3 carry it in their
// keys. The sequence alone would not do. Its WAL is written lazily too, so that after a crash of Postgres it
// hands out the last numbers again; the clock, in milliseconds, has gone on by then.
const nextFence = `(floor(extract(epoch from clock_timestamp()) * 1000)::bigint << 20) | (nextval('fences') & 1048575)`

// takeRow returns the fence of a lock taken, [ErrHeld] when another living process holds it, or
// [storage.ErrNotFound] when this tenant has no such upload. The caller knows that nobody in this process holds it:
// if the row says so, the answer to a commit got lost, and the row is free.
func takeRow(ctx context.Context, tx storage.Tx, upload, me uuid.UUID) (fence int64, err error) {
	if !tx.Who.Role.CanUpload() {
		return 0, whyNotTaken(ctx, tx, upload)
	}
	var both pgx.Batch // in one round trip
	// A heartbeat under way holds its row, and dead waits for it and then looks again: no holder's lease is taken
	// over that has been told that it is alive.
	both.Queue(`
		with dead as (
			select h.id from upload_leases l join lease_holders h on h.id = l.holder_id
			where l.tenant_id = $1 and l.upload_id = $2 and h.expires_at <= clock_timestamp()
			for share of h
		)
		insert into upload_leases as l (tenant_id, upload_id, holder_id, fence)
		select u.tenant_id, u.id, $3, 0 from uploads u where u.tenant_id = $1 and u.id = $2 and ($4::text is null or u.user_id = $4)
		on conflict (tenant_id, upload_id) do update
			set holder_id = excluded.holder_id, waiter = null
			where l.holder_id = excluded.holder_id or l.holder_id in (select id from dead)`,
		tx.Tenant, upload, me, writesOnlyOf(tx.Who))
	// The insert can wait for another's row. A fence drawn before that would be below those handed out meanwhile.
	both.Queue(`
		update upload_leases set fence = `+nextFence+`
		where tenant_id = $1 and upload_id = $2 and holder_id = $3 returning fence`,
		tx.Tenant, upload, me).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&fence)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	if err := tx.SendBatch(ctx, &both).Close(); err != nil {
		return 0, fmt.Errorf("take lease: %w", err)
	}
	if fence != 0 {
		return fence, nil
	}
	return 0, whyNotTaken(ctx, tx, upload)
}

// writesOnlyOf returns the user whose uploads alone the transaction may write, or nil.
func writesOnlyOf(who tenant.Identity) *string {
	if who.Role.CanManage() {
		return nil
	}
	return &who.User
}

func whyNotTaken(ctx context.Context, tx storage.Tx, upload uuid.UUID) error {
	var owner string
	err := tx.QueryRow(ctx, `select user_id from uploads where tenant_id = $1 and id = $2`, tx.Tenant, upload).Scan(&owner)
	switch {
	case err != nil:
		return fmt.Errorf("look for upload: %w", storage.OrNotFound(err))
	case !tx.Who.MayWrite(owner):
		return storage.ErrNotYours
	}
	return ErrHeld
}

// askForLock leaves word on the lock that this process waits, and tells its holder.
func ask(ctx context.Context, tx storage.Tx, upload, me uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		with asked as (
			update upload_leases set waiter = $3 where tenant_id = $1 and upload_id = $2 returning holder_id
		)
		select pg_notify('tramo_lease_' || replace(holder_id::text, '-', ''), 'want ' || $1::text || ' ' || $2::text)
		from asked`, tx.Tenant, upload, me)
	if err != nil {
		return fmt.Errorf("ask for lease: %w", err)
	}
	return nil
}

// Want asks the holders of uploads' leases to let go, once the transaction is committed.
func Want(ctx context.Context, tx storage.Tx, uploads []uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		select pg_notify('tramo_lease_' || replace(holder_id::text, '-', ''), 'want ' || tenant_id::text || ' ' || upload_id::text)
		from upload_leases where tenant_id = $1 and upload_id = any($2)`, tx.Tenant, uploads)
	if err != nil {
		return fmt.Errorf("ask for leases: %w", err)
	}
	return nil
}
