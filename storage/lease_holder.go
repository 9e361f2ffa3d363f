package storage

import (
	"context"
	"errors"
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
// want an upload or have let one go. It then gives up what is still held, so that nobody waits for a time
// to live.
func (ls *Leases) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { ls.heartbeats(ctx); return nil })
	g.Go(func() error { ls.listens(ctx); return nil })
	return g.Wait()
}

// Close takes this process out of the holders. Call it when no request runs any more.
func (ls *Leases) Close(ctx context.Context) error {
	me := ls.resign()
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
	me, sent := ls.self(), time.Now()
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
	ls.mu.Lock()
	ls.holder, ls.alive = me, sent
	ls.mu.Unlock()
	return nil
}

func (ls *Leases) overdue() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.holder != uuid.Nil && time.Since(ls.alive) > ls.ttl*3/4
}

// lose tells every holder in this process to stop: its leases may be another's by now.
func (ls *Leases) lose() {
	ls.mu.Lock()
	ls.holder = uuid.Nil
	lost := ls.held
	ls.held = make(map[uuid.UUID]*Lease)
	ls.mu.Unlock()
	for _, l := range lost {
		l.letGo()
	}
}

func (ls *Leases) resign() uuid.UUID {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	me := ls.holder
	ls.holder = uuid.Nil
	return me
}

// listens reconnects for as long as it must; the re-check of waiters covers what it misses meanwhile.
func (ls *Leases) listens(ctx context.Context) {
	for ctx.Err() == nil {
		err := ls.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			ls.log.WarnContext(ctx, "listening for leases was cut off", slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(ls.ttl / 8):
		}
	}
}

// listen hears this process's own channel, on a connection of its own, until the holder changes.
func (ls *Leases) listen(ctx context.Context) error {
	me := ls.self()
	if me == uuid.Nil {
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, ls.db.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is lost with it
	channel := "tramo_lock_" + strings.ReplaceAll(me.String(), "-", "")
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		return err
	}
	for ls.self() == me {
		err := ls.hear(ctx, conn)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return nil
}

// hear waits for one notification, at most a time to live, so that a changed holder is noticed.
func (ls *Leases) hear(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, ls.ttl)
	defer cancel()
	n, err := conn.WaitForNotification(ctx)
	if err != nil {
		return err
	}
	word, id, _ := strings.Cut(n.Payload, " ")
	upload, err := uuid.Parse(id)
	if err != nil {
		return nil // nobody but replicas of Tramo writes here
	}
	switch word {
	case "want":
		ls.askLocally(upload)
	case "free":
		ls.wakeWaiters(upload)
	}
	return nil
}

func (ls *Leases) self() uuid.UUID {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.holder
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

// askLocally asks the holder in this process, if there is one, to let go.
func (ls *Leases) askLocally(upload uuid.UUID) {
	ls.mu.Lock()
	l := ls.held[upload]
	ls.mu.Unlock()
	if l != nil {
		l.letGo()
	}
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
