package lease_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

// The holder dies without a word: after the time to live its lease is another's, and whatever it still
// sends to Postgres is refused.
func TestDeadHolderIsFenced(t *testing.T) {
	t.Parallel()
	d, ctx, id := newUpload(t)
	one, two := newReplica(t, d, 2*time.Second), newReplica(t, d, calmly)
	old := one.acquire(t, ctx, id, func() {})
	next := two.acquiring(t, ctx, id)
	one.die()
	mine := stack.Receive(t, "lease", next)
	wantAfter(t, mine, old)
	to := storage.Progress{To: 10, TailSize: 10}
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Advance(ctx, id, old.Fence(), to)
	}), storage.ErrFenced)
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		_, err := tx.ReservePart(ctx, id, old.Fence(), "mp", "key")
		return err
	}), storage.ErrFenced)
	stack.Must(t, old.Release(ctx)) // and does not release the other's
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.Advance(ctx, id, mine.Fence(), to) })
}

// A take-over meets a transaction of the old holder that has checked its fence: the take-over waits for
// it, and the new holder sees what it wrote.
func TestTakeOverWaitsForAWrite(t *testing.T) {
	t.Parallel()
	d, ctx, id := newUpload(t)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	old := one.acquire(t, ctx, id, func() {})
	var next <-chan *lease.Lease
	d.Must(t, ctx, func(tx storage.Tx) error {
		to := storage.Progress{To: 10, TailSize: 10}
		if err := tx.Advance(ctx, id, old.Fence(), to); err != nil {
			return err
		}
		expire(t, d, one)
		next = two.acquiring(t, ctx, id)
		d.UntilLocked(t, "the take-over waiting", "%upload_leases%")
		return nil
	})
	stack.Receive(t, "lease", next)
	stack.Want(t, d.Upload(t, ctx, id).Received, 10, "bytes that the new holder sees")
}

// expire makes a replica's heartbeat late, as a long pause of the process would.
func expire(t *testing.T, d *storagetest.Database, r *replica) {
	t.Helper()
	tag, err := d.Admin(t).Exec(t.Context(), `update lease_holders set expires_at = now() - interval '1 second' where replica = $1`, r.name)
	stack.Must(t, err)
	if tag.RowsAffected() != 1 {
		t.Fatalf("%d rows are the replica's", tag.RowsAffected())
	}
}

// A heartbeat that comes too late loses every lease, at once and for good; the process enlists again, takes
// new leases, and hears when another wants them.
func TestLateHeartbeat(t *testing.T) {
	t.Parallel()
	d, ctx, id := newUpload(t)
	one, two := newReplica(t, d, 8*time.Second), newReplica(t, d, calmly)
	lost := make(flag, 1)
	old := one.acquire(t, ctx, id, lost.raise)
	expire(t, d, one)
	stack.Receive(t, "call of letGo", lost)
	again := make(flag, 1)
	mine := one.acquire(t, ctx, id, again.raise)
	wantAfter(t, mine, old)
	stack.Must(t, old.Release(ctx)) // of the lost lease: changes nothing
	next := two.acquiring(t, ctx, id)
	stack.Receive(t, "call of letGo", again)
	stack.Must(t, mine.Release(ctx))
	stack.Must(t, stack.Receive(t, "lease", next).Release(ctx))
}

// Postgres takes no heartbeat any more: the process gives its leases up by itself, before anyone may take
// them over.
func TestHeartbeatFails(t *testing.T) {
	t.Parallel()
	d, ctx, id := newUpload(t)
	r := newReplica(t, d, 4*time.Second)
	lost := make(flag, 1)
	r.acquire(t, ctx, id, lost.raise)
	admin := d.Admin(t)
	tx, err := admin.Begin(t.Context())
	stack.Must(t, err)
	_, err = tx.Exec(t.Context(), `select from lease_holders for update`)
	stack.Must(t, err)
	stack.Receive(t, "call of letGo", lost)
	var early bool
	stack.Must(t, tx.QueryRow(t.Context(), `select expires_at > clock_timestamp() from lease_holders where replica = $1`, r.name).Scan(&early))
	if !early {
		t.Error("another could have taken the lease before its holder knew")
	}
	stack.Must(t, tx.Rollback(t.Context()))
	stack.Must(t, r.acquire(t, ctx, id, func() {}).Release(ctx))
}

// Postgres is killed and restarted while leases are held: they are still held, hand-over still works, and a
// lease whose release Postgres never heard of is not held for ever.
func TestLeasesOutlivePostgres(t *testing.T) {
	t.Parallel()
	d, postgres := storagetest.Alone(t, stack.PostgresConfig{})
	ctx := d.NewTenant(t, 1<<30)
	one, two := newReplica(t, d, 20*time.Second), newReplica(t, d, 20*time.Second)
	kept, local, remote := d.Create(t, ctx, 100), d.Create(t, ctx, 100), d.Create(t, ctx, 100)
	asked := make(flag, 1)
	mine := one.acquire(t, ctx, kept, asked.raise)
	unheard := []*lease.Lease{one.acquire(t, ctx, local, func() {}), one.acquire(t, ctx, remote, func() {})}

	// Leases are committed lazily: write them to disk.
	d.Exec(t, `checkpoint`)
	postgres.Kill()
	for _, l := range unheard {
		if err := l.Release(ctx); err == nil {
			t.Error("a release without Postgres succeeded")
		}
	}
	stack.Must(t, postgres.Restart(t.Context()))
	stack.Until(t, "Postgres answering", func() bool { return d.API.Ping(ctx) == nil && d.Worker.Ping(ctx) == nil })

	d.Must(t, ctx, func(tx storage.Tx) error {
		return tx.Advance(ctx, kept, mine.Fence(), storage.Progress{To: 1, TailSize: 1})
	})
	next := make(chan *lease.Lease, 1)
	go func() { next <- persistently(t, ctx, two, kept) }()
	stack.Receive(t, "call of letGo", asked)
	stack.Must(t, mine.Release(ctx))
	stack.Receive(t, "lease", next)

	for name, c := range map[string]struct {
		r  *replica
		id uuid.UUID
	}{"the same process": {one, local}, "another process": {two, remote}} {
		if l := persistently(t, ctx, c.r, c.id); l == nil {
			t.Errorf("%s never gets the upload again", name)
		}
	}
}

// persistently acquires as a client would that tries again after an error.
func persistently(t *testing.T, ctx context.Context, r *replica, id uuid.UUID) *lease.Lease {
	ctx, cancel := context.WithTimeout(ctx, stack.Patience)
	defer cancel()
	for {
		mine, err := r.Acquire(ctx, id, func() {})
		if err == nil {
			return mine
		}
		if ctx.Err() != nil {
			t.Error(err)
			return nil
		}
	}
}

// A request gives up just while Postgres commits its lease: nobody holds it, and so it is not held for
// ever, neither for its own process nor for others.
func TestAcquireGivenUpDuringCommit(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	admin := d.Admin(t)
	_, err := admin.Exec(t.Context(), `
		create function dawdle() returns trigger language plpgsql as $$ begin
			perform pg_sleep(60);
			return null;
		exception when query_canceled then return null; -- the client has gone, the commit goes on
		end $$;
		create constraint trigger dawdle after insert on upload_leases deferrable initially deferred
			for each row execute function dawdle()`)
	stack.Must(t, err)
	var lost []uuid.UUID
	for range 2 {
		id := d.Create(t, ctx, 1)
		lost = append(lost, id)
		giveUpDuringCommit(t, ctx, one, id, admin)
	}
	_, err = admin.Exec(t.Context(), `drop trigger dawdle on upload_leases`)
	stack.Must(t, err)
	stack.Must(t, one.acquire(t, ctx, lost[0], func() {}).Release(ctx))
	stack.Must(t, two.acquire(t, ctx, lost[1], func() {}).Release(ctx))
}

func giveUpDuringCommit(t *testing.T, ctx context.Context, r *replica, id uuid.UUID, admin *pgx.Conn) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := r.Acquire(ctx, id, func() {})
		ended <- err
	}()
	exists := func(sql string, args ...any) func() bool {
		return func() (yes bool) {
			stack.Must(t, admin.QueryRow(t.Context(), fmt.Sprintf("select exists (%s)", sql), args...).Scan(&yes))
			return yes
		}
	}
	stack.Until(t, "a commit under way", exists(`select from pg_stat_activity
		where datname = current_database() and wait_event = 'PgSleep'`))
	cancel()
	stack.WantErr(t, stack.Receive(t, "end of the wait", ended), lease.ErrHeld)
	stack.Until(t, "a lease that nobody holds", exists(`select from upload_leases where upload_id = $1`, id))
}

// Postgres crashes before the WAL of a lease has left its memory, and with it forgets the row and the number
// that the fence was made of. The next holder's fence is another one, and the forgotten holder is refused.
func TestFenceOfAForgottenLease(t *testing.T) {
	t.Parallel()
	d, postgres := storagetest.Alone(t, stack.PostgresConfig{})
	ctx := d.NewTenant(t, 1<<30)
	id := d.Create(t, ctx, 100)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	admin := d.Admin(t)
	_, err := admin.Exec(t.Context(), `checkpoint`)
	stack.Must(t, err)
	var walWriter int
	stack.Must(t, admin.QueryRow(t.Context(), `select pid from pg_stat_activity where backend_type = 'walwriter'`).Scan(&walWriter))
	stack.Must(t, syscall.Kill(walWriter, syscall.SIGSTOP)) // and nobody else writes what was committed lazily
	forgotten := one.acquire(t, ctx, id, func() {})
	postgres.Kill()
	stack.Must(t, syscall.Kill(walWriter, syscall.SIGKILL))
	stack.Must(t, postgres.Restart(t.Context()))
	stack.Until(t, "Postgres answering", func() bool { return d.API.Ping(ctx) == nil })
	d.WantCount(t, 0, `select count(*) from upload_leases`)

	mine := persistently(t, ctx, two, id)
	wantAfter(t, mine, forgotten)
	to := storage.Progress{To: 10, TailSize: 10}
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Advance(ctx, id, forgotten.Fence(), to)
	}), storage.ErrFenced)
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.Advance(ctx, id, mine.Fence(), to) })
}

// A heartbeat is on its way through Postgres while its holder's time runs out: nobody takes over until it is
// decided, and as it succeeds, nobody at all.
func TestTakeOverWaitsForAHeartbeat(t *testing.T) {
	t.Parallel()
	d, ctx, id := newUpload(t)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	asked := make(flag, 1)
	mine := one.acquire(t, ctx, id, asked.raise)
	expire(t, d, one)
	beat, err := d.Admin(t).Begin(t.Context())
	stack.Must(t, err)
	_, err = beat.Exec(t.Context(), `update lease_holders set expires_at = now() + interval '1 minute' where replica = $1`, one.name)
	stack.Must(t, err)
	next := two.acquiring(t, ctx, id)
	d.UntilLocked(t, "the take-over waiting", "%upload_leases%")
	stack.Must(t, beat.Commit(t.Context()))
	stack.Receive(t, "call of letGo", asked)
	stack.Must(t, mine.Release(ctx))
	wantAfter(t, stack.Receive(t, "lease", next), mine)
}

// A holder freezes in the middle of a transaction that has checked its fence. Postgres ends the transaction, and
// with it the wait of whoever takes over; what was not committed never was.
func TestTakeOverFromAFrozenTransaction(t *testing.T) {
	t.Parallel()
	d, ctx, id := newUpload(t)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	old := one.acquire(t, ctx, id, func() {})
	err := d.API.InTenant(ctx, func(tx storage.Tx) error {
		to := storage.Progress{To: 10, TailSize: 10}
		if err := tx.Advance(ctx, id, old.Fence(), to); err != nil {
			return err
		}
		expire(t, d, one)
		two.acquire(t, ctx, id, func() {})
		return nil
	})
	if err == nil {
		t.Error("the frozen transaction was committed")
	}
	stack.Want(t, d.Upload(t, ctx, id).Received, 0, "bytes of a transaction that was ended")
}

// Requests have taken every connection of the pool, for longer than the time to live: the heartbeat does not
// queue behind them, and no lease is lost.
func TestHeartbeatNeedsNoPool(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	const ttl = 4 * time.Second
	r := newReplica(t, d, ttl)
	lost := make(flag, 1)
	r.acquire(t, ctx, d.Create(t, ctx, 1), lost.raise)
	for range r.db.Pool().Config().MaxConns {
		conn, err := r.db.Pool().Acquire(t.Context())
		stack.Must(t, err)
		defer conn.Release()
	}
	admin := d.Admin(t)
	expiry := func() (at time.Time) {
		stack.Must(t, admin.QueryRow(t.Context(), `select max(expires_at) from lease_holders where replica = $1`, r.name).Scan(&at))
		return at
	}
	first := expiry()
	stack.Until(t, "a time to live of heartbeats", func() bool { return expiry().Sub(first) > ttl })
	select {
	case <-lost:
		t.Error("the lease was lost")
	default:
	}
}

// Every connection to Postgres dies silently, as when a firewall forgets them; new ones work. The process notices by its next
// heartbeat: it keeps its leases, and receives again that another process wants one.
func TestConnectionsDieSilently(t *testing.T) {
	t.Parallel()
	d, ctx, id := newUpload(t)
	gateway, through := newGateway(t, d.URL("tramo_api"), 0)
	db, err := storage.Open(t.Context(), storage.Config{URL: telemetry.Secret(through)})
	stack.Must(t, err)
	t.Cleanup(db.Close)
	defer gateway.cut() // or the pool would wait for answers when it is closed
	one := newReplicaOn(t, d, db, 8*time.Second)
	two := newReplica(t, d, calmly)
	asked := make(flag, 1)
	mine := one.acquire(t, ctx, id, asked.raise)
	gateway.forget()
	next := two.acquiring(t, ctx, id)
	stack.Receive(t, "call of letGo", asked)
	stack.Must(t, mine.Release(ctx))
	wantAfter(t, stack.Receive(t, "lease", next), mine)
	stack.Want(t, one.metrics(t, "tramo_leases_lost_total")[0].GetCounter().GetValue(), 0, "lost leases")
}

// A busy Postgres takes longer for a new connection than a heartbeat may: a process without leases waits for it, registers, and
// takes some.
func TestSlowConnectionRegisters(t *testing.T) {
	t.Parallel()
	const ttl = 4 * time.Second
	d, ctx, id := newUpload(t)
	gateway, through := newGateway(t, d.URL("tramo_api"), ttl*3/8)
	db, err := storage.Open(t.Context(), storage.Config{URL: telemetry.Secret(through)})
	stack.Must(t, err)
	t.Cleanup(db.Close)
	defer gateway.cut()
	stack.Must(t, newReplicaOn(t, d, db, ttl).acquire(t, ctx, id, nil).Release(ctx))
}
