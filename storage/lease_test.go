package storage_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
)

// calmly is a time to live that no test outlives, so that no lease is lost to a busy machine.
const calmly = time.Minute

// rechecked is how often a waiter asks again on its own. What is faster was told.
const rechecked = time.Second

// A replica is a process that takes leases: its own pool, its own heartbeat.
type replica struct {
	*storage.Leases
	name string
	die  func() // stops the heartbeat and gives nothing back
}

func newReplica(t *testing.T, d *database, ttl time.Duration) *replica {
	t.Helper()
	r := &replica{name: uuid.NewString()}
	r.Leases = storage.NewLeases(d.As(t, "tramo_api"), r.name, ttl, logTo(t))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var died atomic.Bool
	r.die = func() {
		if !died.Swap(true) {
			cancel()
			must(t, await(t, "end of the heartbeat", ended))
		}
	}
	t.Cleanup(r.die)
	admin := d.Admin(t)
	eventually(t, patience, "enlisted and listening", func() bool {
		var ready bool
		must(t, admin.QueryRow(t.Context(), `select exists (select from lock_holders h join pg_stat_activity a
			on a.query = 'listen tramo_lock_' || replace(h.id::text, '-', '') and a.state = 'idle'
			where h.replica = $1)`, r.name).Scan(&ready))
		return ready
	})
	return r
}

func (r *replica) acquire(t *testing.T, ctx context.Context, id uuid.UUID, letGo func()) *storage.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	lease, err := r.Acquire(ctx, id, letGo)
	must(t, err)
	return lease
}

// acquiring begins to acquire and returns where the lease will arrive.
func (r *replica) acquiring(t *testing.T, ctx context.Context, id uuid.UUID) <-chan *storage.Lease {
	t.Helper()
	got := make(chan *storage.Lease, 1)
	ctx, cancel := context.WithTimeout(ctx, patience)
	t.Cleanup(cancel)
	go func() {
		lease, err := r.Acquire(ctx, id, func() {})
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		got <- lease
	}()
	return got
}

// A flag is a letGo that tells that it was called.
type flag chan struct{}

func (f flag) raise() {
	select {
	case f <- struct{}{}:
	default:
	}
}

// Twelve requests in three processes want one upload, again and again: one at a time has it, all have their
// turns, and each fence is above the one before.
func TestLeaseExcludes(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	id := d.create(t, ctx, 1)
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	var inside, last atomic.Int64
	g := new(errgroup.Group)
	for range 3 {
		r := newReplica(t, d, calmly)
		for range 4 {
			g.Go(func() error {
				for range 5 {
					asked := make(flag, 1)
					lease, err := r.Acquire(ctx, id, asked.raise)
					if err != nil {
						return err
					}
					if n := inside.Add(1); n != 1 {
						t.Errorf("%d hold the lease", n)
					}
					if before := last.Swap(lease.Fence()); before >= lease.Fence() {
						t.Errorf("fence %d came after %d", lease.Fence(), before)
					}
					inside.Add(-1)
					if err := lease.Release(ctx); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	must(t, g.Wait())
}

// One waits for the row while another takes, uses and gives back the lease: who comes later has the higher
// fence, although it asked earlier.
func TestFenceIsDrawnUnderTheLock(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	id := d.create(t, ctx, 1)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	admin := d.Admin(t)
	// The row is there, in a transaction that will roll back.
	tx, err := admin.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `insert into upload_locks select tenant_id, id, (select id from lock_holders limit 1), 0 from uploads`)
	must(t, err)
	early := one.acquiring(t, ctx, id)
	watcher := d.Admin(t)
	eventually(t, patience, "a request waiting for the row", func() bool {
		var waiting bool
		must(t, watcher.QueryRow(t.Context(), `select exists (select from pg_stat_activity
			where datname = current_database() and wait_event_type = 'Lock')`).Scan(&waiting))
		return waiting
	})
	// Meanwhile other uploads' leases are handed out.
	other := d.create(t, ctx, 1)
	lease := two.acquire(t, ctx, other, func() {})
	must(t, tx.Rollback(t.Context()))
	if got := await(t, "lease", early); got.Fence() <= lease.Fence() {
		t.Errorf("fence %d came after %d", got.Fence(), lease.Fence())
	}
}

// Requests give up at random moments, also while Postgres commits what they asked for: still one at a time
// holds the upload, and in the end nobody does and every process can have it.
func TestLeaseExcludesWhoeverGivesUp(t *testing.T) {
	t.Parallel()
	random := randomly(t)
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	ids := []uuid.UUID{d.create(t, ctx, 1), d.create(t, ctx, 1)}
	inside := make([]atomic.Int64, len(ids))
	replicas := []*replica{newReplica(t, d, calmly), newReplica(t, d, calmly), newReplica(t, d, calmly)}
	g := new(errgroup.Group)
	for _, r := range replicas {
		for range 4 {
			mine := rand.New(rand.NewPCG(random.Uint64(), 0))
			g.Go(func() error {
				for range 40 {
					which := mine.IntN(len(ids))
					short, cancel := context.WithTimeout(ctx, time.Duration(mine.IntN(15_000))*time.Microsecond)
					lease, err := r.Acquire(short, ids[which], func() {})
					cancel()
					if errors.Is(err, storage.ErrLeaseHeld) {
						continue
					}
					if err != nil {
						return err
					}
					if n := inside[which].Add(1); n != 1 {
						t.Errorf("%d hold the lease", n)
					}
					inside[which].Add(-1)
					if err := lease.Release(ctx); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	must(t, g.Wait())
	for _, r := range replicas {
		for _, id := range ids {
			must(t, r.acquire(t, ctx, id, func() {}).Release(ctx))
		}
	}
}

// The holder is told at once that another wants the upload, in its own process and in another, and the
// other is told at once that it is free: by being told, not by asking again.
func TestLeaseHandsOver(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	for name, other := range map[string]*replica{"same process": one, "another process": two} {
		t.Run(name, func(t *testing.T) {
			fastest := time.Hour
			for range 5 {
				id := d.create(t, ctx, 1)
				asked := make(flag, 1)
				lease := one.acquire(t, ctx, id, asked.raise)
				began := time.Now()
				next := other.acquiring(t, ctx, id)
				await(t, "call of letGo", asked)
				must(t, lease.Release(ctx))
				got := await(t, "lease", next)
				fastest = min(fastest, time.Since(began))
				if got.Fence() <= lease.Fence() {
					t.Errorf("fence %d came after %d", got.Fence(), lease.Fence())
				}
				must(t, got.Release(ctx))
			}
			if fastest > rechecked*3/4 {
				t.Errorf("the fastest hand-over took %s", fastest)
			}
		})
	}
}

func TestLeaseIsHeld(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	id := d.create(t, ctx, 1)
	one.acquire(t, ctx, id, func() {})
	for name, r := range map[string]*replica{"same process": one, "another process": two} {
		for _, wait := range []time.Duration{0, 100 * time.Millisecond} {
			short, cancel := context.WithTimeout(ctx, wait)
			_, err := r.Acquire(short, id, func() {})
			cancel()
			if !errors.Is(err, storage.ErrLeaseHeld) {
				t.Errorf("%s, %s: %v", name, wait, err)
			}
		}
	}
}

// Another tenant that asks for an upload does not disturb its holder, and learns nothing, in the holder's
// process and in another, with the lease held or not.
func TestLeaseOfAnotherTenant(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx, stranger := d.NewTenant(t, 1<<30), d.NewTenant(t, 1<<30)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	id := d.create(t, ctx, 1)
	disturbed := make(flag, 1)
	ask := func() {
		t.Helper()
		for _, r := range []*replica{one, two} {
			_, err := r.Acquire(stranger, id, func() {})
			wantErr(t, err, storage.ErrNotFound)
			_, err = r.Acquire(stranger, uuid.New(), func() {})
			wantErr(t, err, storage.ErrNotFound)
		}
	}
	ask()
	lease := one.acquire(t, ctx, id, disturbed.raise)
	ask()
	// What was sent before is heard before: an honest wish shows that the channel has been emptied.
	probe := d.create(t, ctx, 1)
	asked := make(flag, 1)
	held := one.acquire(t, ctx, probe, asked.raise)
	next := two.acquiring(t, ctx, probe)
	await(t, "call of letGo", asked)
	select {
	case <-disturbed:
		t.Error("the holder was asked to let go for another tenant")
	default:
	}
	must(t, held.Release(ctx))
	must(t, await(t, "lease", next).Release(ctx))
	must(t, lease.Release(ctx))
}

// Two hundred leases are held by one process: Postgres has no connection for each, and rows for all.
func TestLeasesNeedNoConnections(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	r := newReplica(t, d, calmly)
	var leases []*storage.Lease
	for range 200 {
		leases = append(leases, r.acquire(t, ctx, d.create(t, ctx, 1), func() {}))
	}
	admin := d.Admin(t)
	count := func(sql string) (n int) {
		t.Helper()
		must(t, admin.QueryRow(t.Context(), sql).Scan(&n))
		return n
	}
	if n := count(`select count(*) from pg_stat_activity where datname = current_database()`); n > 10 {
		t.Errorf("200 leases use %d connections", n)
	}
	if n := count(`select count(*) from upload_locks`); n != 200 {
		t.Errorf("%d rows stand for 200 leases", n)
	}
	for _, l := range leases {
		must(t, l.Release(ctx))
	}
	if n := count(`select count(*) from upload_locks`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// A process that ends in order gives its leases up: nobody waits for the time to live.
func TestCloseGivesLeasesUp(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	id := d.create(t, ctx, 1)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	lease := one.acquire(t, ctx, id, func() {})
	next := two.acquiring(t, ctx, id)
	one.die()
	must(t, one.Close(ctx))
	must(t, one.Close(ctx))
	if got := await(t, "lease", next); got.Fence() <= lease.Fence() {
		t.Errorf("fence %d came after %d", got.Fence(), lease.Fence())
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err := one.Acquire(short, id, func() {})
	wantErr(t, err, storage.ErrLeaseHeld)
}

// The holder dies without a word: after the time to live its lease is another's, and whatever it still
// sends to Postgres is refused.
func TestDeadHolderIsFenced(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	id := d.create(t, ctx, 100)
	one, two := newReplica(t, d, 2*time.Second), newReplica(t, d, calmly)
	old := one.acquire(t, ctx, id, func() {})
	next := two.acquiring(t, ctx, id)
	one.die()
	lease := await(t, "lease", next)
	if lease.Fence() <= old.Fence() {
		t.Errorf("fence %d came after %d", lease.Fence(), old.Fence())
	}
	to := storage.Progress{To: 10, TailSize: 10}
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Advance(ctx, id, old.Fence(), to)
	}), storage.ErrFenced)
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		_, err := tx.ReservePart(ctx, id, old.Fence(), "mp", "key")
		return err
	}), storage.ErrFenced)
	must(t, old.Release(ctx)) // and it does not take the other's away
	d.must(t, ctx, func(tx storage.Tx) error { return tx.Advance(ctx, id, lease.Fence(), to) })
}

// A take-over meets a transaction of the old holder that has checked its fence: the take-over waits for
// it, and the new holder sees what it wrote.
func TestTakeOverWaitsForAWrite(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	id := d.create(t, ctx, 100)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	old := one.acquire(t, ctx, id, func() {})
	var next <-chan *storage.Lease
	d.must(t, ctx, func(tx storage.Tx) error {
		to := storage.Progress{To: 10, TailSize: 10}
		if err := tx.Advance(ctx, id, old.Fence(), to); err != nil {
			return err
		}
		expire(t, d, one)
		next = two.acquiring(t, ctx, id)
		admin := d.Admin(t)
		eventually(t, patience, "the take-over waiting", func() bool {
			var waiting bool
			must(t, admin.QueryRow(t.Context(), `select exists (select from pg_stat_activity
				where datname = current_database() and wait_event_type = 'Lock' and query like '%upload_locks%')`).Scan(&waiting))
			return waiting
		})
		return nil
	})
	await(t, "lease", next)
	if c := d.content(t, ctx, id); c.Received != 10 {
		t.Errorf("the new holder sees %d bytes", c.Received)
	}
}

// expire makes a replica's heartbeat late, as a long pause of the process would.
func expire(t *testing.T, d *database, r *replica) {
	t.Helper()
	tag, err := d.Admin(t).Exec(t.Context(), `update lock_holders set expires_at = now() - interval '1 second' where replica = $1`, r.name)
	must(t, err)
	if tag.RowsAffected() != 1 {
		t.Fatalf("%d rows are the replica's", tag.RowsAffected())
	}
}

// A heartbeat that comes too late loses every lease, at once and for good; the process enlists again, takes
// new leases, and hears at once when another wants them.
func TestLateHeartbeat(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	id := d.create(t, ctx, 1)
	one, two := newReplica(t, d, 8*time.Second), newReplica(t, d, calmly)
	lost := make(flag, 1)
	old := one.acquire(t, ctx, id, lost.raise)
	expire(t, d, one)
	await(t, "call of letGo", lost)
	again := make(flag, 1)
	lease := one.acquire(t, ctx, id, again.raise)
	if lease.Fence() <= old.Fence() {
		t.Errorf("fence %d came after %d", lease.Fence(), old.Fence())
	}
	must(t, old.Release(ctx)) // of the lost one: changes nothing
	next := two.acquiring(t, ctx, id)
	began := time.Now()
	await(t, "call of letGo", again)
	if took := time.Since(began); took > 3*rechecked {
		t.Errorf("a holder that had enlisted again was deaf for %s", took)
	}
	must(t, lease.Release(ctx))
	must(t, await(t, "lease", next).Release(ctx))
}

// Postgres takes no heartbeat any more: the process gives its leases up by itself, before anyone may take
// them over.
func TestHeartbeatFails(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	id := d.create(t, ctx, 1)
	r := newReplica(t, d, 4*time.Second)
	lost := make(flag, 1)
	r.acquire(t, ctx, id, lost.raise)
	admin := d.Admin(t)
	tx, err := admin.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `select from lock_holders for update`)
	must(t, err)
	await(t, "call of letGo", lost)
	var early bool
	must(t, tx.QueryRow(t.Context(), `select expires_at > clock_timestamp() from lock_holders where replica = $1`, r.name).Scan(&early))
	if !early {
		t.Error("another could have taken the lease before its holder knew")
	}
	must(t, tx.Rollback(t.Context()))
	must(t, r.acquire(t, ctx, id, func() {}).Release(ctx))
}

// Postgres is killed and restarted while leases are held: they are still held, hand-over still works, and a
// lease whose release Postgres never heard of is not held for ever.
func TestLeasesOutlivePostgres(t *testing.T) {
	t.Parallel()
	cluster, err := storagetest.Start(t.Context()) // of its own, which it may break
	must(t, err)
	t.Cleanup(func() { must(t, cluster.Stop()) })
	d := &database{cluster.NewDatabase(t)}
	ctx := d.NewTenant(t, 1<<30)
	one, two := newReplica(t, d, 20*time.Second), newReplica(t, d, 20*time.Second)
	kept, local, remote := d.create(t, ctx, 100), d.create(t, ctx, 100), d.create(t, ctx, 100)
	asked := make(flag, 1)
	lease := one.acquire(t, ctx, kept, asked.raise)
	unheard := []*storage.Lease{one.acquire(t, ctx, local, func() {}), one.acquire(t, ctx, remote, func() {})}

	// Leases are committed lazily: have them on disk.
	_, err = d.Admin(t).Exec(t.Context(), `checkpoint`)
	must(t, err)
	cluster.Kill()
	for _, l := range unheard {
		if err := l.Release(ctx); err == nil {
			t.Error("a release without Postgres succeeded")
		}
	}
	must(t, cluster.Restart(t.Context()))
	eventually(t, patience, "Postgres answering", func() bool { return d.API.Ping(ctx) == nil && d.Worker.Ping(ctx) == nil })

	d.must(t, ctx, func(tx storage.Tx) error {
		return tx.Advance(ctx, kept, lease.Fence(), storage.Progress{To: 1, TailSize: 1})
	})
	next := make(chan *storage.Lease, 1)
	go func() { next <- persistently(t, ctx, two, kept) }()
	await(t, "call of letGo", asked)
	must(t, lease.Release(ctx))
	await(t, "lease", next)

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
func persistently(t *testing.T, ctx context.Context, r *replica, id uuid.UUID) *storage.Lease {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		lease, err := r.Acquire(ctx, id, func() {})
		if err == nil {
			return lease
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
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	admin := d.Admin(t)
	_, err := admin.Exec(t.Context(), `
		create function dawdle() returns trigger language plpgsql as $$ begin
			perform pg_sleep(60);
			return null;
		exception when query_canceled then return null; -- the client has gone, the commit goes on
		end $$;
		create constraint trigger dawdle after insert on upload_locks deferrable initially deferred
			for each row execute function dawdle()`)
	must(t, err)
	var lost []uuid.UUID
	for range 2 {
		id := d.create(t, ctx, 1)
		lost = append(lost, id)
		giveUpDuringCommit(t, ctx, one, id, admin)
	}
	_, err = admin.Exec(t.Context(), `drop trigger dawdle on upload_locks`)
	must(t, err)
	must(t, one.acquire(t, ctx, lost[0], func() {}).Release(ctx))
	must(t, two.acquire(t, ctx, lost[1], func() {}).Release(ctx))
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
			must(t, admin.QueryRow(t.Context(), fmt.Sprintf("select exists (%s)", sql), args...).Scan(&yes))
			return yes
		}
	}
	eventually(t, patience, "a commit under way", exists(`select from pg_stat_activity
		where datname = current_database() and wait_event = 'PgSleep'`))
	cancel()
	wantErr(t, await(t, "end of the wait", ended), storage.ErrLeaseHeld)
	eventually(t, patience, "a lease that nobody holds", exists(`select from upload_locks where upload_id = $1`, id))
}
