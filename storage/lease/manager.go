// Package lease gives the right to write an upload to one process at a time, over all replicas. A lease is a row with a
// fence, a number that only grows; a process holds its leases for as long as its heartbeat is unbroken. What is written
// under a lease is not its business: whoever writes shows the fence in the transaction that counts.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// ErrHeld says that somebody else held the upload for as long as the caller was ready to wait.
var ErrHeld = errors.New("upload is held by another request")

// recheck is how often a waiter asks again without having been told: it covers a lost notification and a
// holder that died.
const recheck = time.Second

// Config names a process that takes leases, and says how long they live without it.
type Config struct {
	Replica string        `name:"replica" placeholder:"NAME" help:"Name of this process in timelines and leases. Default: the host's name."`
	TTL     time.Duration `name:"lease-ttl" help:"How long after the last heartbeat of a process others may take over its uploads. All programs need the same value."`
}

// DefaultConfig is used where nothing is set.
func DefaultConfig() Config { return Config{TTL: 5 * time.Second} }

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	if c.TTL < time.Second || c.TTL > time.Minute {
		return fmt.Errorf("TRAMO_LEASE_TTL: %s is not between 1s and 1m", c.TTL)
	}
	return nil
}

// A Manager hands out the right to write an upload, to one holder at a time over all replicas. A lease is a
// row with a fence, a number that only grows; whoever writes shows its fence, in the transaction that
// counts ([storage.Tx.Advance]). The process stays a holder by a heartbeat; when that is missed for the time
// to live, others take its leases over.
type Manager struct {
	db      *storage.DB
	replica string
	process uuid.UUID // this process, whichever its row
	ttl     time.Duration
	log     *slog.Logger

	mu      sync.Mutex
	holder  uuid.UUID                   // this process's row in lease_holders; the zero id before the first heartbeat
	changed chan struct{}               // closed when holder changes
	alive   time.Time                   // when the last heartbeat that succeeded was sent
	doom    *time.Timer                 // calls overdue
	held    map[uuid.UUID]*Lease        // by upload
	trying  map[uuid.UUID]chan struct{} // by upload: closed when this process's attempt at its row is over
	freed   map[uuid.UUID][]waiter      // by upload: who waits in this process

	errands sync.WaitGroup // what the heartbeat's goroutine must not wait for
	metrics metrics
}

// A waiter is told, without blocking, that it is worth asking again, and how it comes to be told.
type waiter chan string

// A Lease is the right to write one upload until it is released or lost.
type Lease struct {
	manager *Manager
	upload  uuid.UUID
	tenant  uuid.UUID
	holder  uuid.UUID
	fence   int64
	waited  time.Duration
	letGo   func() // asks the holder to finish; does not block; safe to call more than once
	wanted  atomic.Bool
}

// NewManager makes a lease manager for a process named replica, with the time to live ttl. [Manager.Run]
// must run for leases to be had.
func NewManager(db *storage.DB, replica string, ttl time.Duration, log *slog.Logger) *Manager {
	m := &Manager{
		db: db, replica: replica, process: uuid.New(), ttl: ttl, log: log,
		changed: make(chan struct{}),
		held:    make(map[uuid.UUID]*Lease),
		trying:  make(map[uuid.UUID]chan struct{}),
		freed:   make(map[uuid.UUID][]waiter),
	}
	m.metrics = newMetrics(m)
	m.doom = time.AfterFunc(ttl, m.overdue)
	m.doom.Stop() // until there is something to lose
	return m
}

// Fence returns the number that orders this lease among all of the upload's.
func (l *Lease) Fence() int64 { return l.fence }

// Waited returns how long [Manager.Acquire] waited for the lease.
func (l *Lease) Waited() time.Duration { return l.waited }

// Wanted reports whether another request wants the upload, or the lease is lost: its holder must finish.
func (l *Lease) Wanted() bool { return l.wanted.Load() }

// askToLetGo tells the holder that it must finish.
func (l *Lease) askToLetGo() {
	l.wanted.Store(true)
	l.letGo()
}

// Acquire waits for the lease on an upload of the tenant in ctx until ctx is done, and then returns
// [ErrHeld]. An upload that this tenant does not have is [storage.ErrNotFound], one that this user may not write
// [storage.ErrNotYours], at once, and its holder is not told. letGo is called when another request wants the upload, or
// when the lease is lost; it must not block, and may be called more than once. Nil is for a holder that asks [Lease.Wanted]
// or lets nobody go before.
func (m *Manager) Acquire(ctx context.Context, upload uuid.UUID, letGo func()) (*Lease, error) {
	id, err := tenant.From(ctx)
	if err != nil {
		return nil, err
	}
	retry := time.NewTimer(recheck)
	defer retry.Stop()
	wake := m.wait(upload)
	defer m.stopWaiting(upload, wake)
	began, woken := time.Now(), unwoken
	for {
		_, changed := m.self()
		lease, err := m.try(ctx, id.Tenant, upload, letGo, asking)
		switch {
		case err == nil:
			lease.waited = time.Since(began)
			m.metrics.wait.WithLabelValues(woken).Observe(lease.waited.Seconds())
			return lease, nil
		case !errors.Is(err, ErrHeld):
			if ctx.Err() != nil {
				return nil, ErrHeld
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
			return nil, ErrHeld
		}
	}
}

// enlistTime bounds how long [Manager.Try] waits for this process to become a holder.
const enlistTime = 10 * time.Second

// Try takes the lease as [Manager.Acquire] does, but not from somebody living, who hears nothing: that is
// [ErrHeld] at once. It waits only for this process to have become a holder, for [enlistTime] at most.
func (m *Manager) Try(ctx context.Context, upload uuid.UUID, letGo func()) (*Lease, error) {
	id, err := tenant.From(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, enlistTime)
	defer cancel()
	for {
		me, changed := m.self()
		if me != uuid.Nil {
			return m.try(ctx, id.Tenant, upload, letGo, quietly)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ErrHeld
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
func (m *Manager) try(ctx context.Context, owner, upload uuid.UUID, letGo func(), how manner) (*Lease, error) {
	leave, err := m.enter(ctx, upload)
	if err != nil {
		return nil, err
	}
	defer leave()
	if m.holdsLocally(owner, upload, quietly) {
		if how == asking {
			return nil, m.askLocally(ctx, owner, upload)
		}
		return nil, ErrHeld
	}
	me, _ := m.self()
	if me == uuid.Nil {
		return nil, ErrHeld // not yet, or no longer, a holder: the next heartbeat decides
	}
	var fence int64
	// Lazily: a lease lost to a crash of Postgres is caught by its fence, which no other will ever have ([nextFence]).
	err = m.db.InTenantLazily(ctx, func(tx storage.Tx) error {
		var err error
		fence, err = takeRow(ctx, tx, upload, me)
		if how == quietly || !errors.Is(err, ErrHeld) {
			return err
		}
		return ask(ctx, tx, upload, me)
	})
	if err != nil {
		return nil, err
	}
	if fence == 0 {
		return nil, ErrHeld
	}
	if letGo == nil {
		letGo = func() {}
	}
	lease := &Lease{manager: m, upload: upload, tenant: owner, holder: me, fence: fence, letGo: letGo}
	if !m.keep(lease) {
		return nil, ErrHeld // the holder's row changed meanwhile: this lease is already lost
	}
	return lease, nil
}

// askLocally asks this process's holder to let go, unless who asks may not write the upload.
func (m *Manager) askLocally(ctx context.Context, owner, upload uuid.UUID) error {
	err := m.db.InTenantLazily(ctx, func(tx storage.Tx) error { return whyNotTaken(ctx, tx, upload) })
	if errors.Is(err, ErrHeld) {
		m.holdsLocally(owner, upload, asking)
	}
	return err
}

// releaseTime bounds how long giving a lease back may take once its request is over.
const releaseTime = 5 * time.Second

// Release gives the lease back and tells the processes that wait, also when ctx is done: a request whose client has gone
// must not keep its upload. Waiters of its own process are told even if Postgres does not answer. A lease that could not
// be given back is free once another process asks for it or this one ends.
func (l *Lease) Release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	m := l.manager
	defer m.wakeWaiters(l.upload, locally)
	defer m.forget(l)
	if err := m.giveBack(ctx, l.tenant, l.upload, l.holder, l.fence); err != nil {
		return fmt.Errorf("release lease on upload %s: %w", l.upload, err)
	}
	return nil
}
