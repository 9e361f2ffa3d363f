package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/tenant"
)

// ErrLeaseHeld says that somebody else held the upload for as long as the caller was ready to wait.
var ErrLeaseHeld = errors.New("upload is held by another request")

// lazily makes a commit not wait for its WAL to reach the disk. A lease lost to a crash of Postgres is
// caught by its fence, so leases need not pay for durability.
const lazily = "set local synchronous_commit = off; "

// recheck is how often a waiter asks again without having been told: it covers a lost notification and a
// holder that died.
const recheck = time.Second

// ValidateLeaseTTL reports what is wrong with a time to live for leases.
func ValidateLeaseTTL(ttl time.Duration) error {
	if ttl < time.Second || ttl > time.Minute {
		return fmt.Errorf("%s is not between 1s and 1m", ttl)
	}
	return nil
}

// Leases hands out the right to write an upload, to one holder at a time over all replicas. A lease is a
// row with a fence, a number that only grows; whoever writes shows its fence, in the transaction that
// counts ([Tx.SaveContent]). The process stays a holder by a heartbeat; when that is missed for the time
// to live, others take its leases over.
type Leases struct {
	db      *DB
	replica string
	ttl     time.Duration
	log     *slog.Logger

	mu     sync.Mutex
	holder uuid.UUID              // this process's row in lock_holders; the zero id before the first heartbeat
	alive  time.Time              // when the last heartbeat that succeeded was sent
	held   map[uuid.UUID]*Lease   // by upload
	freed  map[uuid.UUID][]waiter // by upload: who waits in this process
}

// A waiter is told, without blocking, that it is worth asking again.
type waiter chan struct{}

// A Lease is the right to write one upload until it is released or lost.
type Lease struct {
	leases *Leases
	upload uuid.UUID
	tenant uuid.UUID
	holder uuid.UUID
	fence  int64
	letGo  func() // asks the holder to finish; safe to call more than once
}

// NewLeases makes a lease manager for a process named replica, with the time to live ttl. [Leases.Run]
// must run for leases to be had.
func NewLeases(db *DB, replica string, ttl time.Duration, log *slog.Logger) *Leases {
	return &Leases{
		db: db, replica: replica, ttl: ttl, log: log,
		held:  make(map[uuid.UUID]*Lease),
		freed: make(map[uuid.UUID][]waiter),
	}
}

// Fence returns the number that orders this lease among all of the upload's.
func (l *Lease) Fence() int64 { return l.fence }

// Acquire waits for the lease on an upload of the tenant in ctx until ctx is done, and then returns
// [ErrLeaseHeld]. An upload that this tenant does not have is [ErrNotFound], at once, and its holder hears
// nothing. letGo is called when another request wants the upload, or when the lease is lost; it may be
// called more than once.
func (ls *Leases) Acquire(ctx context.Context, upload uuid.UUID, letGo func()) (*Lease, error) {
	id, err := tenant.From(ctx)
	if err != nil {
		return nil, err
	}
	retry := time.NewTimer(recheck)
	defer retry.Stop()
	wake := ls.wait(upload)
	defer ls.stopWaiting(upload, wake)
	for {
		lease, err := ls.try(ctx, id.Tenant, upload, letGo)
		switch {
		case err == nil:
			return lease, nil
		case !errors.Is(err, ErrLeaseHeld):
			if ctx.Err() != nil {
				return nil, ErrLeaseHeld
			}
			return nil, err
		}
		retry.Reset(recheck)
		select {
		case <-wake:
		case <-retry.C:
		case <-ctx.Done():
			return nil, ErrLeaseHeld
		}
	}
}

// try takes the lease, or leaves word that this process waits and tells the holder.
func (ls *Leases) try(ctx context.Context, owner, upload uuid.UUID, letGo func()) (*Lease, error) {
	me := ls.self()
	if me == uuid.Nil {
		return nil, ErrLeaseHeld // not yet, or no longer, a holder: the next heartbeat decides
	}
	var fence int64
	err := ls.db.inTenant(ctx, lazily, func(tx Tx) error {
		var err error
		fence, err = tx.takeLock(ctx, upload, me)
		if !errors.Is(err, ErrLeaseHeld) {
			return err
		}
		return tx.askForLock(ctx, upload, me)
	})
	if err != nil {
		return nil, err
	}
	if fence == 0 {
		ls.askLocally(upload)
		return nil, ErrLeaseHeld
	}
	lease := &Lease{leases: ls, upload: upload, tenant: owner, holder: me, fence: fence, letGo: letGo}
	if !ls.keep(lease) {
		return nil, ErrLeaseHeld // the holder's row changed meanwhile: this lease is already lost
	}
	return lease, nil
}

// Release gives the lease back and tells the process that waits. Its own process's waiters are told too.
func (l *Lease) Release(ctx context.Context) error {
	l.leases.forget(l)
	defer l.leases.wakeWaiters(l.upload)
	ctx = tenant.With(ctx, tenant.Identity{Tenant: l.tenant})
	err := l.leases.db.inTenant(ctx, lazily, func(tx Tx) error { return tx.releaseLock(ctx, l) })
	if err != nil {
		return fmt.Errorf("release lease on upload %s: %w", l.upload, err)
	}
	return nil
}

// takeLock returns the fence of a lock taken, [ErrLeaseHeld] when a living process holds it, or
// [ErrNotFound] when this tenant has no such upload.
func (tx Tx) takeLock(ctx context.Context, upload, me uuid.UUID) (fence int64, err error) {
	err = tx.QueryRow(ctx, `
		insert into upload_locks as l (tenant_id, upload_id, holder_id, fence)
		select u.tenant_id, u.id, $3, nextval('fences') from uploads u where u.tenant_id = $1 and u.id = $2
		on conflict (tenant_id, upload_id) do update
			set holder_id = excluded.holder_id, fence = excluded.fence, waiter = null
			where (select h.expires_at <= now() from lock_holders h where h.id = l.holder_id)
		returning fence`, tx.Tenant, upload, me).Scan(&fence)
	if err == nil {
		return fence, nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("take lease: %w", err)
	}
	var exists bool
	err = tx.QueryRow(ctx, `select exists (select from uploads where tenant_id = $1 and id = $2)`,
		tx.Tenant, upload).Scan(&exists)
	if err != nil {
		return 0, fmt.Errorf("look for upload: %w", err)
	}
	if !exists {
		return 0, ErrNotFound
	}
	return 0, ErrLeaseHeld
}

// askForLock leaves word on the lock that this process waits, and tells its holder.
func (tx Tx) askForLock(ctx context.Context, upload, me uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		with asked as (
			update upload_locks set waiter = $3 where tenant_id = $1 and upload_id = $2 returning holder_id
		)
		select pg_notify('tramo_lock_' || replace(holder_id::text, '-', ''), 'want ' || $2::text)
		from asked where holder_id <> $3`, tx.Tenant, upload, me)
	if err != nil {
		return fmt.Errorf("ask for lease: %w", err)
	}
	return nil
}

func (tx Tx) releaseLock(ctx context.Context, l *Lease) error {
	_, err := tx.Exec(ctx, `
		with gone as (
			delete from upload_locks where tenant_id = $1 and upload_id = $2 and holder_id = $3 and fence = $4
			returning waiter
		)
		select pg_notify('tramo_lock_' || replace(waiter::text, '-', ''), 'free ' || $2::text)
		from gone where waiter <> $3`, tx.Tenant, l.upload, l.holder, l.fence)
	return err
}
