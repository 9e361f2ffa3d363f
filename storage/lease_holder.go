package storage

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Run keeps this process a holder until ctx is done: it heartbeats, and listens for other replicas that
// want an upload or have let one go.
func (ls *Leases) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { ls.heartbeats(ctx); return nil })
	g.Go(func() error { ls.listens(ctx); return nil })
	return g.Wait()
}

// Close takes this process out of the holders, and gives up what it still holds, so that nobody waits for a
// time to live. Call it after Run has returned, when no request runs any more.
func (ls *Leases) Close(ctx context.Context) error {
	me := ls.become(uuid.Nil, time.Time{})
	if me == uuid.Nil {
		return nil
	}
	if _, err := ls.db.pool.Exec(ctx, `delete from lock_holders where id = $1`, me); err != nil {
		return fmt.Errorf("resign as lease holder: %w", err)
	}
	return nil
}

// heartbeats renews this process's row four times a time to live. After three quarters of one without
// success it declares its leases lost by itself, before anyone may take them over.
func (ls *Leases) heartbeats(ctx context.Context) {
	tick := time.NewTicker(ls.ttl / 4)
	defer tick.Stop()
	for {
		if err := ls.beat(ctx); err != nil && ctx.Err() == nil {
			ls.log.WarnContext(ctx, "lease heartbeat failed", slog.Any("err", err))
			if ls.overdue() {
				ls.lose()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (ls *Leases) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ls.ttl/4)
	defer cancel()
	sent := time.Now()
	me, _ := ls.self()
	if me == uuid.Nil {
		return ls.enlist(ctx, sent)
	}
	tag, err := ls.db.pool.Exec(ctx, `
		update lock_holders set expires_at = now() + $2 where id = $1 and expires_at > now()`, me, ls.ttl)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		ls.log.WarnContext(ctx, "lease heartbeat came too late")
		ls.lose()
		return ls.enlist(ctx, sent)
	}
	ls.mu.Lock()
	ls.alive = sent
	ls.mu.Unlock()
	return nil
}

// enlist makes this process a new holder, and sweeps away those that died long ago.
func (ls *Leases) enlist(ctx context.Context, sent time.Time) error {
	me := uuid.New()
	_, err := ls.db.pool.Exec(ctx, `
		with swept as (delete from lock_holders where expires_at < now() - interval '1 hour')
		insert into lock_holders (id, replica, expires_at) values ($1, $2, now() + $3)`, me, ls.replica, ls.ttl)
	if err != nil {
		return err
	}
	ls.become(me, sent)
	return nil
}

// overdue is asked after each heartbeat that fails, four times a time to live. The third in a row is due
// three quarters of one after the last success, give or take a moment, and decides.
func (ls *Leases) overdue() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.holder != uuid.Nil && time.Since(ls.alive) > ls.ttl*5/8
}

// lose tells every holder in this process to stop: its leases may be another's by now.
func (ls *Leases) lose() {
	ls.become(uuid.Nil, time.Time{})
	ls.mu.Lock()
	lost := ls.held
	ls.held = make(map[uuid.UUID]*Lease)
	ls.mu.Unlock()
	for _, l := range lost {
		l.letGo()
	}
}

// become changes the holder that this process is, and returns the one that it was.
func (ls *Leases) become(me uuid.UUID, since time.Time) (before uuid.UUID) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	before, ls.holder, ls.alive = ls.holder, me, since
	close(ls.changed)
	ls.changed = make(chan struct{})
	return before
}

// listens reconnects for as long as it must; the re-check of waiters covers what it misses meanwhile.
func (ls *Leases) listens(ctx context.Context) {
	for ctx.Err() == nil {
		me, changed := ls.self()
		if me != uuid.Nil {
			ls.listen(ctx, me, changed)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(ls.ttl / 8):
		}
	}
}

// listen hears the holder's own channel, on a connection of its own, until the holder changes.
func (ls *Leases) listen(ctx context.Context, me uuid.UUID, changed <-chan struct{}) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-changed:
			stop()
		case <-ctx.Done():
		}
	}()
	if err := ls.hear(ctx, me); err != nil && ctx.Err() == nil {
		ls.log.WarnContext(ctx, "listening for leases was cut off", slog.Any("err", err))
	}
}

func (ls *Leases) hear(ctx context.Context, me uuid.UUID) error {
	conn, err := pgx.ConnectConfig(ctx, ls.db.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) // nothing is lost with it
	channel := "tramo_lock_" + strings.ReplaceAll(me.String(), "-", "")
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		return err
	}
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if err := ls.heed(ctx, n.Payload); err != nil {
			ls.log.WarnContext(ctx, "lease not given back", slog.Any("err", err))
		}
	}
}

// heed acts on what another replica says: a word, a tenant and an upload.
func (ls *Leases) heed(ctx context.Context, payload string) error {
	ctx, cancel := context.WithTimeout(ctx, ls.ttl/4)
	defer cancel()
	said := strings.Fields(payload)
	if len(said) != 3 {
		return nil // nobody but replicas of Tramo writes here
	}
	owner, err1 := uuid.Parse(said[1])
	upload, err2 := uuid.Parse(said[2])
	if err1 != nil || err2 != nil {
		return nil
	}
	switch said[0] {
	case "want":
		return ls.asked(ctx, owner, upload)
	case "free":
		ls.wakeWaiters(upload)
	}
	return nil
}

// self returns the holder that this process is, and what is closed when that changes.
func (ls *Leases) self() (uuid.UUID, <-chan struct{}) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.holder, ls.changed
}

// enter waits until no other request of this process is taking or giving back the upload's row, so that
// what this process holds and what the row says can be compared. Call leave when done.
func (ls *Leases) enter(ctx context.Context, upload uuid.UUID) (leave func(), err error) {
	for {
		leave, ok := ls.tryEnter(upload)
		if ok {
			return leave, nil
		}
		ls.mu.Lock()
		busy := ls.trying[upload]
		ls.mu.Unlock()
		if busy == nil {
			continue
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ErrLeaseHeld
		}
	}
}

func (ls *Leases) tryEnter(upload uuid.UUID) (leave func(), ok bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.trying[upload] != nil {
		return nil, false
	}
	busy := make(chan struct{})
	ls.trying[upload] = busy
	return func() {
		ls.mu.Lock()
		delete(ls.trying, upload)
		ls.mu.Unlock()
		close(busy)
	}, true
}

// keep remembers a lease; false means that the process is no longer the holder that took it.
func (ls *Leases) keep(l *Lease) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.holder != l.holder {
		return false
	}
	ls.held[l.upload] = l
	return true
}

func (ls *Leases) forget(l *Lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.held[l.upload] == l {
		delete(ls.held, l.upload)
	}
}

// askLocally asks the holder in this process to let go; false means that there is none for this tenant.
func (ls *Leases) askLocally(owner, upload uuid.UUID) bool {
	ls.mu.Lock()
	l := ls.held[upload]
	ls.mu.Unlock()
	if l == nil || l.tenant != owner {
		return false
	}
	l.letGo()
	return true
}

func (ls *Leases) wait(upload uuid.UUID) waiter {
	w := make(waiter, 1)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.freed[upload] = append(ls.freed[upload], w)
	return w
}

func (ls *Leases) stopWaiting(upload uuid.UUID, w waiter) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	rest := slices.DeleteFunc(ls.freed[upload], func(o waiter) bool { return o == w })
	if len(rest) == 0 {
		delete(ls.freed, upload)
		return
	}
	ls.freed[upload] = rest
}

func (ls *Leases) wakeWaiters(upload uuid.UUID) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, w := range ls.freed[upload] {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}
