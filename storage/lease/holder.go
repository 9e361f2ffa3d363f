package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/sourcegraph/conc/panics"
)

// leasesChannel notifies all processes that a lease is free. Requests to one holder go to that holder's own channel.
const leasesChannel = "tramo_leases"

func channelOf(holder uuid.UUID) string {
	return "tramo_lease_" + strings.ReplaceAll(holder.String(), "-", "")
}

// Run keeps the process registered until ctx is done: it heartbeats, and receives which uploads other processes want or have
// released. Both use one connection of their own. So a heartbeat never waits for the pool, and the next heartbeat finds out
// that a connection has died silently.
func (m *Manager) Run(ctx context.Context) error {
	defer m.background.Wait()
	defer m.expiry.Stop()
	for ctx.Err() == nil {
		var connected bool
		var err error
		if p := panics.Try(func() { connected, err = m.connectAndBeat(ctx) }); p != nil {
			err = p.AsError() // all that goes on in this process depends on the next heartbeat
		}
		if err != nil && ctx.Err() == nil {
			m.log.WarnContext(ctx, "lease heartbeat failed", slog.Any("err", err))
		}
		if connected && err != nil && ctx.Err() == nil {
			m.db.Pool().Reset() // idle connections have probably ended too, and no request should find that out
		}
		select {
		case <-ctx.Done():
		case <-time.After(m.ttl / 16):
		}
	}
	return nil
}

// Close unregisters the process, gives up the leases that it still holds, and notifies those who wait, so that nobody waits
// for the time to live. Call it after Run has returned and all requests have ended.
func (m *Manager) Close(ctx context.Context) error {
	me, _ := m.self()
	if me == uuid.Nil {
		return nil
	}
	m.lose(me)
	var both pgx.Batch // one transaction
	both.Queue(`select set_config('app.process', $1, true)`, m.process.String())
	both.Queue(`
		with gone as (delete from lease_holders where id = $1 returning id)
		select pg_notify('`+leasesChannel+`', 'gone') from gone`, me)
	if err := m.db.Pool().SendBatch(ctx, &both).Close(); err != nil {
		return fmt.Errorf("unregister lease holder: %w", err)
	}
	return nil
}

// During runs fn while the process is registered, and gives up all leases afterwards. When ctx is done the process stays
// registered until fn has returned, so that fn can release its leases.
func (m *Manager) During(ctx context.Context, fn func(context.Context) error) error {
	holding, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(holding) }()
	err := fn(ctx)
	stop()
	err = errors.Join(err, <-ended)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), unregisterTimeout)
	defer cancel()
	return errors.Join(err, m.Close(last))
}

// unregisterTimeout bounds how long a process takes to unregister. After the time to live its registration counts no more.
const unregisterTimeout = 5 * time.Second

// connectAndBeat heartbeats and receives notifications for as long as one connection lasts. It heartbeats four times in each
// time to live, and a heartbeat may take until the next one is due.
func (m *Manager) connectAndBeat(ctx context.Context) (connected bool, err error) {
	conn, err := m.connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.ttl/4)
		defer cancel()
		conn.Close(ctx) // nothing is lost with it
	}()
	for first := true; ctx.Err() == nil; first = false {
		due := time.Now().Add(m.ttl / 4)
		if err := m.beat(ctx, conn); err != nil {
			return true, err
		}
		if first {
			m.wakeAll() // notifications before that were not received
		}
		if err := m.receive(ctx, conn, due); err != nil {
			return true, err
		}
	}
	return true, nil
}

// connect opens the connection for heartbeats, within the time of one. A process that has nothing to lose waits for longer: a
// busy Postgres would get ever more connections, none of which is waited for.
func (m *Manager) connect(ctx context.Context) (*pgx.Conn, error) {
	limit := m.ttl / 4
	if me, _ := m.self(); me == uuid.Nil {
		limit = m.ttl
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, m.db.Pool().Config().ConnConfig)
	if err != nil {
		return nil, err
	}
	// See [storage.Lazily]. Postgres lets the servers' role change the row of the process that it names, and no other.
	if _, err := conn.Exec(ctx, "set synchronous_commit = off; set app.process = '"+m.process.String()+"'"); err != nil {
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// beat renews the process's registration. If the row is gone or has expired, the leases are lost, and the process registers
// anew.
func (m *Manager) beat(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, m.ttl/4)
	defer cancel()
	sent := time.Now()
	me, _ := m.self()
	if me != uuid.Nil {
		alive, err := m.renew(ctx, conn, me)
		if err != nil {
			return err
		}
		if alive {
			m.renewed(me, sent)
			return nil
		}
		m.log.WarnContext(ctx, "lease heartbeat came too late")
		m.lose(me)
	}
	return m.register(ctx, conn, sent)
}

// renew reads the clock only after it has locked the row, so that it cannot renew a row that a take-over has read as expired.
// LISTEN costs nothing when repeated, and is needed on a new connection.
func (m *Manager) renew(ctx context.Context, conn *pgx.Conn, me uuid.UUID) (alive bool, err error) {
	var all pgx.Batch
	all.Queue("listen " + channelOf(me))
	all.Queue("listen " + leasesChannel)
	all.Queue(`
		update lease_holders set expires_at = clock_timestamp() + $2
		where id = $1 and expires_at > clock_timestamp() returning true`, me, m.ttl).Query(func(rows pgx.Rows) error {
		alive = rows.Next()
		return rows.Err()
	})
	return alive, conn.SendBatch(ctx, &all).Close()
}

// register inserts a new row for the process, which receives notifications from then on, and deletes rows that expired long
// ago.
func (m *Manager) register(ctx context.Context, conn *pgx.Conn, sent time.Time) error {
	me := uuid.New()
	var all pgx.Batch // one transaction
	all.Queue("unlisten *")
	all.Queue("listen " + channelOf(me))
	all.Queue("listen " + leasesChannel)
	all.Queue(`
		with swept as (delete from lease_holders where expires_at < now() - interval '1 hour')
		insert into lease_holders (id, replica, process, expires_at) values ($1, $2, $3, clock_timestamp() + $4)`, me, m.replica, m.process, m.ttl)
	if err := conn.SendBatch(ctx, &all).Close(); err != nil {
		return err
	}
	m.registered(me, sent)
	return nil
}

// receive handles notifications until the next heartbeat is due.
func (m *Manager) receive(ctx context.Context, conn *pgx.Conn, due time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, due)
	defer cancel()
	for ctx.Err() == nil {
		n, err := conn.WaitForNotification(ctx)
		switch {
		case err == nil:
			m.handle(ctx, n.Payload)
		case ctx.Err() == nil || conn.IsClosed():
			return err
		}
	}
	return nil
}

// handle handles a notification: "want" or "free" with a tenant and an upload, or "gone".
func (m *Manager) handle(ctx context.Context, payload string) {
	if payload == "gone" {
		m.wakeAll()
		return
	}
	fields := strings.Fields(payload)
	if len(fields) != 3 {
		return // only replicas of Tramo notify here
	}
	owner, err1 := uuid.Parse(fields[1])
	upload, err2 := uuid.Parse(fields[2])
	if err1 != nil || err2 != nil {
		return
	}
	switch fields[0] {
	case "want":
		m.handleWant(ctx, owner, upload)
	case "free":
		m.wakeWaiters(upload, notified)
	}
}

// handleWant handles that another process wants an upload whose row names this process. If nothing in this process holds the
// lease, the answer to a commit was lost: that of a take, whose request had ended by then, or that of a release. The
// heartbeat would keep such a row for ever, so it is given back, in the background.
func (m *Manager) handleWant(ctx context.Context, owner, upload uuid.UUID) {
	if l := m.local(owner, upload); l != nil {
		l.want()
		return
	}
	leave, ok := m.tryEnter(upload)
	if !ok {
		return // a request is about to hold the lease; the other process will ask again
	}
	m.background.Go(func() {
		defer leave()
		if l := m.local(owner, upload); l != nil {
			l.want()
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.ttl/4)
		defer cancel()
		me, _ := m.self()
		var err error
		if p := panics.Try(func() { err = m.giveBack(ctx, owner, upload, me, anyFence) }); p != nil {
			err = p.AsError()
		}
		if err != nil {
			m.log.WarnContext(ctx, "lease not given back", slog.Any("err", err))
		}
	})
}

// Process identifies this process for as long as it lives, even if it loses its leases.
func (m *Manager) Process() uuid.UUID { return m.process }

// Registered waits until the process is registered, or ctx is done.
func (m *Manager) Registered(ctx context.Context) error {
	for {
		me, changed := m.self()
		if me != uuid.Nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
