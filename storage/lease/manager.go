// Package lease gives the right to write an upload to one request at a time, over all replicas. A lease is a row with a
// fence, a number that only grows; a process holds its leases for as long as its heartbeat is unbroken. The package does
// not know what is written under a lease: each writing transaction checks the fence.
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

// ErrHeld says that another request held the upload for as long as the caller could wait.
var ErrHeld = errors.New("upload is held by another request")

// recheck is how often a waiter tries again without a notification, which may be lost, or never come if the holder died.
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

// A Manager takes leases for one process. The process heartbeats; once no heartbeat has succeeded for the time to live, other
// processes may take over its leases. Writers show the fence of their lease, for example in [storage.Tx.Advance].
type Manager struct {
	db      *storage.DB
	replica string
	process uuid.UUID // the same for as long as the process lives
	ttl     time.Duration
	log     *slog.Logger

	mu      sync.Mutex
	holder  uuid.UUID                   // the process's row in lease_holders; the zero id while it has none
	changed chan struct{}               // closed when holder changes
	alive   time.Time                   // when the last heartbeat that succeeded was sent
	expiry  *time.Timer                 // calls overdue
	held    map[uuid.UUID]*Lease        // by upload
	busy    map[uuid.UUID]chan struct{} // by upload: closed when this process has changed its row
	waiters map[uuid.UUID][]waiter      // of this process, by upload

	background sync.WaitGroup // what the heartbeat must not wait for
	metrics    metrics
}

// A waiter receives, without blocking the sender, how it was woken to try again.
type waiter chan string

// A Lease is the right to write one upload until it is released or lost.
type Lease struct {
	manager *Manager
	upload  uuid.UUID
	tenant  uuid.UUID
	holder  uuid.UUID
	fence   int64
	waited  time.Duration
	wanted  atomic.Bool
	ended   atomic.Bool // it was given back

	mu     sync.Mutex
	onWant func() // does not block; may be called more than once
}

// NewManager makes the lease manager of a process named replica. It takes leases only while [Manager.Run] runs. ttl is the
// time to live.
func NewManager(db *storage.DB, replica string, ttl time.Duration, log *slog.Logger) *Manager {
	m := &Manager{
		db: db, replica: replica, process: uuid.New(), ttl: ttl, log: log,
		changed: make(chan struct{}),
		held:    make(map[uuid.UUID]*Lease),
		busy:    make(map[uuid.UUID]chan struct{}),
		waiters: make(map[uuid.UUID][]waiter),
	}
	m.metrics = newMetrics(m)
	m.expiry = time.AfterFunc(ttl, m.overdue)
	m.expiry.Stop() // until there is something to lose
	return m
}

// Fence returns the number that orders this lease among all of the upload's.
func (l *Lease) Fence() int64 { return l.fence }

// Waited returns how long [Manager.Acquire] waited for the lease.
func (l *Lease) Waited() time.Duration { return l.waited }

// Wanted reports whether another request wants the upload, or the lease is lost. Its holder must finish.
func (l *Lease) Wanted() bool { return l.wanted.Load() }

// Ended reports whether the lease was given back.
func (l *Lease) Ended() bool { return l.ended.Load() }

// OnWant sets what is called when another request wants the upload, or when the lease is lost; at once, if that has happened.
// It must not block, and may be called more than once.
func (l *Lease) OnWant(call func()) {
	l.mu.Lock()
	l.onWant = call
	l.mu.Unlock()
	if l.Wanted() {
		call()
	}
}

// want tells the holder that it must finish.
func (l *Lease) want() {
	l.wanted.Store(true)
	l.mu.Lock()
	call := l.onWant
	l.mu.Unlock()
	if call != nil {
		call()
	}
}

// Acquire takes the lease on an upload of the tenant in ctx. It asks a holder to finish, waits until ctx is done, and then
// returns [ErrHeld]. It returns [storage.ErrNotFound] for an upload that the tenant does not have, and [storage.ErrNotYours]
// for one that the user may not write, both at once and without asking the holder.
//
// onWant is called when another request wants the upload, or when the lease is lost. It must not block, and may be called
// more than once. It is nil for a holder that polls [Lease.Wanted], or that finishes soon in any case.
func (m *Manager) Acquire(ctx context.Context, upload uuid.UUID, onWant func()) (*Lease, error) {
	return m.AcquireAnd(ctx, upload, onWant, func(storage.Tx) {})
}

// AcquireAnd is [Manager.Acquire], and calls read in the transaction that takes the lease: nobody writes the upload after what
// is read there. What is read may travel later ([storage.Later]). read may be called again if that transaction fails.
func (m *Manager) AcquireAnd(ctx context.Context, upload uuid.UUID, onWant func(), read func(storage.Tx)) (*Lease, error) {
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
		lease, err := m.try(ctx, id.Tenant, upload, onWant, true, read)
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

// registerTimeout bounds how long [Manager.Try] waits for the process to be registered.
const registerTimeout = 10 * time.Second

// Try is [Manager.Acquire] without waiting: a lease that a live process holds is [ErrHeld] at once, and its holder is not
// asked to finish. Try waits only until its own process is registered, ten seconds at most.
func (m *Manager) Try(ctx context.Context, upload uuid.UUID, onWant func()) (*Lease, error) {
	id, err := tenant.From(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	for {
		me, changed := m.self()
		if me != uuid.Nil {
			return m.try(ctx, id.Tenant, upload, onWant, false, func(storage.Tx) {})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ErrHeld
		}
	}
}

// AcquireNew takes the lease on an upload that tx creates, for which nobody can wait. It counts once the transaction is
// committed. It is nil while the process is not registered.
func (m *Manager) AcquireNew(tx storage.Tx, upload uuid.UUID) *Lease {
	me, _ := m.self()
	if me == uuid.Nil {
		return nil
	}
	l := &Lease{manager: m, upload: upload, tenant: tx.Tenant, holder: me}
	takeNewRow(tx, upload, me, &l.fence)
	storage.AfterCommit(tx, func() {
		if !m.add(l) {
			l.want() // the process has lost its leases meanwhile, this one among them
		}
	})
	return l
}

// try takes the lease, or returns [ErrHeld], after it has asked the holder to finish if ask is set.
func (m *Manager) try(ctx context.Context, owner, upload uuid.UUID, onWant func(), ask bool, read func(storage.Tx)) (*Lease, error) {
	leave, err := m.enter(ctx, upload)
	if err != nil {
		return nil, err
	}
	defer leave()
	if l := m.local(owner, upload); l != nil {
		if ask {
			return nil, m.askLocal(ctx, l)
		}
		return nil, ErrHeld
	}
	me, _ := m.self()
	if me == uuid.Nil {
		return nil, ErrHeld // the process is not registered; the next heartbeat does that
	}
	var fence int64
	// Lazily: if a crash of Postgres loses the lease, its fence is refused, because no other lease gets it ([nextFence]).
	err = m.db.InTenant(ctx, func(tx storage.Tx) error {
		fence = 0 // of a transaction that failed
		if tx.Who.Role.CanUpload() {
			takeRow(tx, upload, me, &fence)
			read(tx)
			if err := storage.Flush(ctx, tx); err != nil || fence != 0 {
				return err
			}
		}
		err := whyNotTaken(ctx, tx, upload)
		if ask && errors.Is(err, ErrHeld) {
			askHolder(tx, upload, me)
			return nil
		}
		return err
	}, storage.Lazily, storage.PlannedOnce)
	if err != nil {
		return nil, err
	}
	if fence == 0 {
		return nil, ErrHeld
	}
	lease := &Lease{manager: m, upload: upload, tenant: owner, holder: me, fence: fence, onWant: onWant}
	if !m.add(lease) {
		return nil, ErrHeld // the process has lost its leases meanwhile, this one among them
	}
	return lease, nil
}

// askLocal asks a holder in this process to finish, unless the user in ctx may not write the upload.
func (m *Manager) askLocal(ctx context.Context, l *Lease) error {
	err := m.db.InTenant(ctx, func(tx storage.Tx) error { return whyNotTaken(ctx, tx, l.upload) }, storage.Lazily)
	if errors.Is(err, ErrHeld) {
		l.want()
	}
	return err
}

// releaseTimeout bounds how long giving a lease back may take once its request is over.
const releaseTimeout = 5 * time.Second

// Release gives the lease back and wakes those who wait for it. It does so also when ctx is done, so that a request whose
// client has gone does not keep its upload. Waiters in this process are woken even if Postgres does not answer. If Release
// fails, the lease becomes free when another process asks for it, or when this process ends.
func (l *Lease) Release(ctx context.Context) error {
	if l.ended.Swap(true) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	m := l.manager
	defer l.wake()
	if err := m.giveBack(ctx, l.tenant, l.upload, l.holder, l.fence); err != nil {
		return fmt.Errorf("release lease on upload %s: %w", l.upload, err)
	}
	return nil
}

// ReleaseIn gives the lease back in a transaction: what the transaction writes is the last that is written under it. If it is
// not committed, the lease is held still.
func (l *Lease) ReleaseIn(tx storage.Tx) {
	if l.ended.Load() {
		return
	}
	storage.AfterCommit(tx, func() {
		if !l.ended.Swap(true) {
			l.wake()
		}
	})
	giveBackRow(tx, l.upload, l.holder, l.fence)
}

// wake lets those in who wait in this process for a lease that was given back.
func (l *Lease) wake() {
	l.manager.remove(l)
	l.manager.wakeWaiters(l.upload, locally)
}

// Close is [Lease.Release], and logs an error: its caller has ended, and nothing can be done about it.
func (l *Lease) Close(ctx context.Context) {
	if err := l.Release(ctx); err != nil {
		l.manager.log.WarnContext(ctx, "lease not given back", slog.Any("err", err))
	}
}
