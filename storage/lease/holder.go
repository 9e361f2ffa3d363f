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
)

// locksChannel is where all processes hear that a lock has become free. What only a holder need know goes to
// its own channel.
const locksChannel = "tramo_leases"

func channelOf(holder uuid.UUID) string {
	return "tramo_lease_" + strings.ReplaceAll(holder.String(), "-", "")
}

// Run keeps this process a holder until ctx is done: it heartbeats, and hears which uploads others want or
// have let go. Both go over one connection that is nobody else's, so that a heartbeat never queues behind
// requests for the pool, and a connection that died without a word is found out by the next heartbeat.
func (m *Manager) Run(ctx context.Context) error {
	defer m.errands.Wait()
	defer m.doom.Stop()
	for ctx.Err() == nil {
		if err := m.attend(ctx); err != nil && ctx.Err() == nil {
			m.log.WarnContext(ctx, "lease heartbeat failed", slog.Any("err", err))
			m.db.Pool().Reset() // what ended this connection has ended those too that lie idle, and no request should find out
		}
		select {
		case <-ctx.Done():
		case <-time.After(m.ttl / 16):
		}
	}
	return nil
}

// Close takes this process out of the holders, and with it gives up what it still holds, and says so: nobody
// waits for a time to live. Call it after Run has returned, when no request runs any more.
func (m *Manager) Close(ctx context.Context) error {
	me, _ := m.self()
	if me == uuid.Nil {
		return nil
	}
	m.lose(me)
	_, err := m.db.Pool().Exec(ctx, `
		with gone as (delete from lease_holders where id = $1 returning id)
		select pg_notify('`+locksChannel+`', 'gone') from gone`, me)
	if err != nil {
		return fmt.Errorf("resign as lease holder: %w", err)
	}
	return nil
}

// During runs fn as a holder and gives up all leases afterwards. It goes on being one while fn, told by ctx to
// end, lets go of what it holds.
func (m *Manager) During(ctx context.Context, fn func(context.Context) error) error {
	holding, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(holding) }()
	err := fn(ctx)
	stop()
	err = errors.Join(err, <-ended)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignTime)
	defer cancel()
	return errors.Join(err, m.Close(last))
}

// resignTime bounds how long a process takes to resign as a holder. After a time to live it is none anyway.
const resignTime = 5 * time.Second

// attend heartbeats and listens for as long as one connection lasts. A heartbeat is due four times a time to
// live, and may take as long as the next one is away.
func (m *Manager) attend(ctx context.Context) error {
	conn, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.ttl/4)
		defer cancel()
		conn.Close(ctx) // nothing is lost with it
	}()
	for first := true; ctx.Err() == nil; first = false {
		due := time.Now().Add(m.ttl / 4)
		if err := m.beat(ctx, conn); err != nil {
			return err
		}
		if first {
			m.wakeAll() // nobody heard what was said before
		}
		if err := m.hear(ctx, conn, due); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, m.ttl/4)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, m.db.Pool().Config().ConnConfig)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "set synchronous_commit = off"); err != nil { // see lazily
		conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// beat renews this process's row. A row that is no longer there, or too old, means that the leases are lost,
// and the process becomes a new holder.
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
			m.survived(me, sent)
			return nil
		}
		m.log.WarnContext(ctx, "lease heartbeat came too late")
		m.lose(me)
	}
	return m.enlist(ctx, conn, sent)
}

// renew asks the clock only after it has the row, so that it cannot renew what a take-over has seen expired.
// That it listens again costs nothing, and is needed on a new connection.
func (m *Manager) renew(ctx context.Context, conn *pgx.Conn, me uuid.UUID) (alive bool, err error) {
	var all pgx.Batch
	all.Queue("listen " + channelOf(me))
	all.Queue("listen " + locksChannel)
	all.Queue(`
		update lease_holders set expires_at = clock_timestamp() + $2
		where id = $1 and expires_at > clock_timestamp() returning true`, me, m.ttl).Query(func(rows pgx.Rows) error {
		alive = rows.Next()
		return rows.Err()
	})
	return alive, conn.SendBatch(ctx, &all).Close()
}

// enlist makes this process a new holder, one that hears what is said to it from the first moment, and sweeps
// away those that died long ago.
func (m *Manager) enlist(ctx context.Context, conn *pgx.Conn, sent time.Time) error {
	me := uuid.New()
	var all pgx.Batch // one transaction
	all.Queue("unlisten *")
	all.Queue("listen " + channelOf(me))
	all.Queue("listen " + locksChannel)
	all.Queue(`
		with swept as (delete from lease_holders where expires_at < now() - interval '1 hour')
		insert into lease_holders (id, replica, process, expires_at) values ($1, $2, $3, clock_timestamp() + $4)`, me, m.replica, m.process, m.ttl)
	if err := conn.SendBatch(ctx, &all).Close(); err != nil {
		return err
	}
	m.enlisted(me, sent)
	return nil
}

// hear heeds what other replicas say, until the next heartbeat is due.
func (m *Manager) hear(ctx context.Context, conn *pgx.Conn, due time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, due)
	defer cancel()
	for ctx.Err() == nil {
		n, err := conn.WaitForNotification(ctx)
		switch {
		case err == nil:
			m.heed(ctx, n.Payload)
		case ctx.Err() == nil || conn.IsClosed():
			return err
		}
	}
	return nil
}

// heed acts on what another replica says: "want" or "free" with a tenant and an upload, or that it is "gone".
func (m *Manager) heed(ctx context.Context, payload string) {
	if payload == "gone" {
		m.wakeAll()
		return
	}
	said := strings.Fields(payload)
	if len(said) != 3 {
		return // nobody but replicas of Tramo writes here
	}
	owner, err1 := uuid.Parse(said[1])
	upload, err2 := uuid.Parse(said[2])
	if err1 != nil || err2 != nil {
		return
	}
	switch said[0] {
	case "want":
		m.asked(ctx, owner, upload)
	case "free":
		m.wakeWaiters(upload, notified)
	}
}

// asked hears that another process wants an upload that it thinks is held here. If nobody here holds it,
// the answer to a commit got lost: that of a lease taken, whose request had gone by then, or that of a
// release. The heartbeat would keep such a row alive for ever, so it is given back, without making the next
// heartbeat wait.
func (m *Manager) asked(ctx context.Context, owner, upload uuid.UUID) {
	if m.holdsLocally(owner, upload, asking) {
		return
	}
	leave, ok := m.tryEnter(upload)
	if !ok {
		return // somebody is about to hold it; who wants it will ask again
	}
	m.errands.Go(func() {
		defer leave()
		if m.holdsLocally(owner, upload, asking) {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.ttl/4)
		defer cancel()
		me, _ := m.self()
		if err := m.giveBack(ctx, owner, upload, me, anyFence); err != nil {
			m.log.WarnContext(ctx, "lease not given back", slog.Any("err", err))
		}
	})
}

// Process identifies this process for as long as it lives, even if it loses its leases.
func (m *Manager) Process() uuid.UUID { return m.process }

// Enlisted waits until this process is known to be alive, or ctx is done.
func (m *Manager) Enlisted(ctx context.Context) error {
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
