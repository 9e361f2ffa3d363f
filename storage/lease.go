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
// caught by its fence, which no other will ever have ([nextFence]), so leases need not pay for durability.
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
// counts ([Tx.Advance]). The process stays a holder by a heartbeat; when that is missed for the time
// to live, others take its leases over.
type Leases struct {
	db      *DB
	replica string
	process uuid.UUID // this process, whichever its row
	ttl     time.Duration
	log     *slog.Logger

	mu      sync.Mutex
	holder  uuid.UUID                   // this process's row in lock_holders; the zero id before the first heartbeat
	changed chan struct{}               // closed when holder changes
	alive   time.Time                   // when the last heartbeat that succeeded was sent
	doom    *time.Timer                 // calls overdue
	held    map[uuid.UUID]*Lease        // by upload
	trying  map[uuid.UUID]chan struct{} // by upload: closed when this process's attempt at its row is over
	freed   map[uuid.UUID][]waiter      // by upload: who waits in this process

	errands sync.WaitGroup // what the heartbeat's goroutine must not wait for
	metrics leaseMetrics
}

// A waiter is told, without blocking, that it is worth asking again, and how it comes to be told.
type waiter chan string

// A Lease is the right to write one upload until it is released or lost.
type Lease struct {
	leases *Leases
	upload uuid.UUID
	tenant uuid.UUID
	holder uuid.UUID
	fence  int64
	letGo  func() // asks the holder to finish; does not block; safe to call more than once
}

// NewLeases makes a lease manager for a process named replica, with the time to live ttl. [Leases.Run]
// must run for leases to be had.
func NewLeases(db *DB, replica string, ttl time.Duration, log *slog.Logger) *Leases {
	ls := &Leases{
		db: db, replica: replica, process: uuid.New(), ttl: ttl, log: log,
		changed: make(chan struct{}),
		held:    make(map[uuid.UUID]*Lease),
		trying:  make(map[uuid.UUID]chan struct{}),
		freed:   make(map[uuid.UUID][]waiter),
	}
	ls.metrics = newLeaseMetrics(ls)
	ls.doom = time.AfterFunc(ttl, ls.overdue)
	ls.doom.Stop() // until there is something to lose
	return ls
}

// Fence returns the number that orders this lease among all of the upload's.
func (l *Lease) Fence() int64 { return l.fence }

// Acquire waits for the lease on an upload of the tenant in ctx until ctx is done, and then returns
// [ErrLeaseHeld]. An upload that this tenant does not have is [ErrNotFound], one that this user may not write
// [ErrNotYours], at once, and its holder hears nothing. letGo is called when another request wants the upload, or when the lease is lost; it must not
// block, and may be called more than once.
func (ls *Leases) Acquire(ctx context.Context, upload uuid.UUID, letGo func()) (*Lease, error) {
	id, err := tenant.From(ctx)
	if err != nil {
		return nil, err
	}
	retry := time.NewTimer(recheck)
	defer retry.Stop()
	wake := ls.wait(upload)
	defer ls.stopWaiting(upload, wake)
	began, woken := time.Now(), unwoken
	for {
		_, changed := ls.self()
		lease, err := ls.try(ctx, id.Tenant, upload, letGo, asking)
		switch {
		case err == nil:
			ls.metrics.wait.WithLabelValues(woken).Observe(time.Since(began).Seconds())
			return lease, nil
		case !errors.Is(err, ErrLeaseHeld):
			if ctx.Err() != nil {
				return nil, ErrLeaseHeld
			}
			return nil, err
		}
		retry.Reset(recheck)
		select {
		case woken = <-wake:
		case <-changed:
			woken = locally
		case <-retry.C:
			woken = rechecked
		case <-ctx.Done():
			return nil, ErrLeaseHeld
		}
	}
}

// Try takes the lease as [Leases.Acquire] does, but not from somebody living, who hears nothing: that is
// [ErrLeaseHeld] at once. It waits only for this process to have become a holder.
func (ls *Leases) Try(ctx context.Context, upload uuid.UUID, letGo func()) (*Lease, error) {
	id, err := tenant.From(ctx)
	if err != nil {
		return nil, err
	}
	for {
		me, changed := ls.self()
		if me != uuid.Nil {
			return ls.try(ctx, id.Tenant, upload, letGo, quietly)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ErrLeaseHeld
		}
	}
}

// A manner is how a lease is tried for that somebody holds.
type manner bool

const (
	quietly manner = false
	asking  manner = true // the holder is asked to let go
)

// try takes the lease, or leaves word that this process waits and tells the holder, if that is the manner.
func (ls *Leases) try(ctx context.Context, owner, upload uuid.UUID, letGo func(), how manner) (*Lease, error) {
	leave, err := ls.enter(ctx, upload)
	if err != nil {
		return nil, err
	}
	defer leave()
	if ls.holdsLocally(owner, upload, quietly) {
		if how == asking {
			return nil, ls.askLocally(ctx, owner, upload)
		}
		return nil, ErrLeaseHeld
	}
	me, _ := ls.self()
	if me == uuid.Nil {
		return nil, ErrLeaseHeld // not yet, or no longer, a holder: the next heartbeat decides
	}
	var fence int64
	err = ls.db.inTenant(ctx, lazily, func(tx Tx) error {
		var err error
		fence, err = tx.takeLock(ctx, upload, me)
		if how == quietly || !errors.Is(err, ErrLeaseHeld) {
			return err
		}
		return tx.askForLock(ctx, upload, me)
	})
	if err != nil {
		return nil, err
	}
	if fence == 0 {
		return nil, ErrLeaseHeld
	}
	lease := &Lease{leases: ls, upload: upload, tenant: owner, holder: me, fence: fence, letGo: letGo}
	if !ls.keep(lease) {
		return nil, ErrLeaseHeld // the holder's row changed meanwhile: this lease is already lost
	}
	return lease, nil
}

// askLocally asks this process's holder to let go, unless who asks may not write the upload.
func (ls *Leases) askLocally(ctx context.Context, owner, upload uuid.UUID) error {
	err := ls.db.inTenant(ctx, lazily, func(tx Tx) error { return tx.whyNotLocked(ctx, upload) })
	if errors.Is(err, ErrLeaseHeld) {
		ls.holdsLocally(owner, upload, asking)
	}
	return err
}

// Release gives the lease back and tells the processes that wait. Its own process's waiters are told even if
// Postgres does not answer.
func (l *Lease) Release(ctx context.Context) error {
	ls := l.leases
	defer ls.wakeWaiters(l.upload, locally)
	defer ls.forget(l)
	if err := ls.giveBack(ctx, l.tenant, l.upload, l.holder, l.fence); err != nil {
		return fmt.Errorf("release lease on upload %s: %w", l.upload, err)
	}
	return nil
}

const anyFence = 0

// giveBack deletes a holder's lock and tells those who wait for it, if there are any.
func (ls *Leases) giveBack(ctx context.Context, owner, upload, holder uuid.UUID, fence int64) error {
	ctx = tenant.With(ctx, tenant.Identity{Tenant: owner})
	return ls.db.inTenant(ctx, lazily, func(tx Tx) error {
		_, err := tx.Exec(ctx, `
			with gone as (
				delete from upload_locks
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

// takeLock returns the fence of a lock taken, [ErrLeaseHeld] when another living process holds it, or
// [ErrNotFound] when this tenant has no such upload. The caller knows that nobody in this process holds it:
// if the row says so, the answer to a commit got lost, and the row is free.
func (tx Tx) takeLock(ctx context.Context, upload, me uuid.UUID) (fence int64, err error) {
	if !tx.Who.Role.CanUpload() {
		return 0, tx.whyNotLocked(ctx, upload)
	}
	var both pgx.Batch // in one round trip
	// A heartbeat under way holds its row, and dead waits for it and then looks again: no holder's lease is taken
	// over that has been told that it is alive.
	both.Queue(`
		with dead as (
			select h.id from upload_locks l join lock_holders h on h.id = l.holder_id
			where l.tenant_id = $1 and l.upload_id = $2 and h.expires_at <= clock_timestamp()
			for share of h
		)
		insert into upload_locks as l (tenant_id, upload_id, holder_id, fence)
		select u.tenant_id, u.id, $3, 0 from uploads u where u.tenant_id = $1 and u.id = $2 and ($4::text is null or u.user_id = $4)
		on conflict (tenant_id, upload_id) do update
			set holder_id = excluded.holder_id, waiter = null
			where l.holder_id = excluded.holder_id or l.holder_id in (select id from dead)`,
		tx.Tenant, upload, me, tx.writesOnlyOf())
	// The insert can wait for another's row. A fence drawn before that would be below those handed out meanwhile.
	both.Queue(`
		update upload_locks set fence = `+nextFence+`
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
	return 0, tx.whyNotLocked(ctx, upload)
}

// writesOnlyOf returns the user whose uploads alone the transaction may write, or nil.
func (tx Tx) writesOnlyOf() *string {
	if tx.Who.Role.CanManage() {
		return nil
	}
	return &tx.Who.User
}

func (tx Tx) whyNotLocked(ctx context.Context, upload uuid.UUID) error {
	var owner string
	err := tx.QueryRow(ctx, `select user_id from uploads where tenant_id = $1 and id = $2`, tx.Tenant, upload).Scan(&owner)
	switch {
	case err != nil:
		return fmt.Errorf("look for upload: %w", OrNotFound(err))
	case !tx.Who.MayWrite(owner):
		return ErrNotYours
	}
	return ErrLeaseHeld
}

// askForLock leaves word on the lock that this process waits, and tells its holder.
func (tx Tx) askForLock(ctx context.Context, upload, me uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		with asked as (
			update upload_locks set waiter = $3 where tenant_id = $1 and upload_id = $2 returning holder_id
		)
		select pg_notify('tramo_lock_' || replace(holder_id::text, '-', ''), 'want ' || $1::text || ' ' || $2::text)
		from asked`, tx.Tenant, upload, me)
	if err != nil {
		return fmt.Errorf("ask for lease: %w", err)
	}
	return nil
}
