package lease

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

const anyFence = 0

// giveBack deletes a holder's row and notifies those who wait for it, if there are any.
func (m *Manager) giveBack(ctx context.Context, owner, upload, holder uuid.UUID, fence int64) error {
	ctx = tenant.With(ctx, tenant.Identity{Tenant: owner})
	return m.db.InTenant(ctx, func(tx storage.Tx) error {
		giveBackRow(tx, upload, holder, fence)
		return nil
	}, storage.Lazily, storage.PlannedOnce)
}

func giveBackRow(tx storage.Tx, upload, holder uuid.UUID, fence int64) {
	storage.Later(tx, "give lease back", `
		with gone as (
			delete from upload_leases
			where tenant_id = $1 and upload_id = $2 and holder_id = $3 and ($4::bigint = 0 or fence = $4)
			returning waiter
		)
		select pg_notify('`+leasesChannel+`', 'free ' || $1::text || ' ' || $2::text)
		from gone where waiter is not null`, tx.Tenant, upload, holder, fence)
}

// takeNewRow inserts the row of a lease on an upload that tx has created, and stores its fence.
func takeNewRow(tx storage.Tx, upload, me uuid.UUID, fence *int64) {
	storage.Later(tx, "take lease of a new upload", `
		insert into upload_leases (tenant_id, upload_id, holder_id, fence) values ($1, $2, $3, `+nextFence+`)
		returning fence`, tx.Tenant, upload, me).Read(storage.Into(fence))
}

// Free stores whether nobody has a lease on the upload, not even a process that has died. The answer comes with that of the
// transaction's next statement.
func Free(tx storage.Tx, upload uuid.UUID, free *bool) {
	storage.ReadLater(tx, "look for lease", storage.Into(free), `
		select not exists (select from upload_leases where tenant_id = $1 and upload_id = $2)`, tx.Tenant, upload)
}

// nextFence is above all fences before it and is given once only: keys in S3 contain it. The sequence alone would not do.
// Its WAL is written lazily too, so that after a crash of Postgres it returns the last numbers again; by then the clock,
// in milliseconds, is ahead.
const nextFence = `(floor(extract(epoch from clock_timestamp()) * 1000)::bigint << 20) | (nextval('fences') & 1048575)`

// takeRow takes the row of a lease, and stores its fence; 0 if another live process has it, or the user in tx may not write
// the upload: then [whyNotTaken] says why. The answer comes with that of the transaction's next statement. The caller knows
// that nobody in this process holds the lease: a row of this process is free, because the answer to a commit was lost.
func takeRow(tx storage.Tx, upload, me uuid.UUID, fence *int64) {
	// A heartbeat in progress has locked its row; dead waits for it and reads the row again. So no lease is taken over from
	// a process whose heartbeat succeeds.
	storage.Later(tx, "take lease", `
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
	// The insert can wait for the row of another. A fence drawn before that would be below those given meanwhile.
	storage.Later(tx, "draw fence", `
		update upload_leases set fence = `+nextFence+`
		where tenant_id = $1 and upload_id = $2 and holder_id = $3 returning fence`,
		tx.Tenant, upload, me).Read(storage.Into(fence))
}

// writesOnlyOf returns the only user whose uploads who may write, or nil for all users.
func writesOnlyOf(who tenant.Identity) *string {
	if who.Role.CanManage() {
		return nil
	}
	return &who.User
}

// whyNotTaken returns [storage.ErrNotFound], [storage.ErrNotYours] or [ErrHeld].
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

// askHolder records that this process waits for the lease, and notifies its holder, once the transaction is committed.
func askHolder(tx storage.Tx, upload, me uuid.UUID) {
	storage.Later(tx, "ask for lease", `
		with asked as (
			update upload_leases set waiter = $3 where tenant_id = $1 and upload_id = $2 returning holder_id
		)
		select pg_notify('tramo_lease_' || replace(holder_id::text, '-', ''), 'want ' || $1::text || ' ' || $2::text)
		from asked`, tx.Tenant, upload, me)
}

// Want asks the holders of uploads' leases to let go, once the transaction is committed.
func Want(ctx context.Context, tx storage.Tx, uploads []uuid.UUID) error {
	_, err := storage.Exec(ctx, tx, "ask for leases", `
		select pg_notify('tramo_lease_' || replace(holder_id::text, '-', ''), 'want ' || tenant_id::text || ' ' || upload_id::text)
		from upload_leases where tenant_id = $1 and upload_id = any($2)`, tx.Tenant, uploads)
	return err
}
