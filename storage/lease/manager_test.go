package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// calmly is a time to live that is longer than a test, so that a busy machine loses no lease.
const calmly = time.Minute

// A replica is a process that takes leases: its own pool, its own heartbeat.
type replica struct {
	*lease.Manager
	db   *storage.DB
	name string
	die  func() // stops the heartbeat and gives nothing back
}

func newReplica(t *testing.T, d *storagetest.Database, ttl time.Duration) *replica {
	t.Helper()
	return newReplicaOn(t, d, d.As(t, "tramo_api"), ttl)
}

func newReplicaOn(t *testing.T, d *storagetest.Database, db *storage.DB, ttl time.Duration) *replica {
	t.Helper()
	r := &replica{db: db, name: uuid.NewString()}
	r.Manager = lease.NewManager(db, r.name, ttl, stack.Log(t, slog.LevelInfo))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var died atomic.Bool
	r.die = func() {
		if !died.Swap(true) {
			cancel()
			stack.Must(t, stack.Receive(t, "end of the heartbeat", ended))
		}
	}
	t.Cleanup(r.die)
	admin := d.Admin(t)
	stack.Until(t, "enlisted", func() bool { // and listening, which is the same transaction
		var ready bool
		stack.Must(t, admin.QueryRow(t.Context(), `select exists (select from lease_holders where replica = $1)`, r.name).Scan(&ready))
		return ready
	})
	return r
}

// woken counts the leases that the replica got after it was woken in a way.
func (r *replica) woken(t *testing.T, how string) (n uint64) {
	t.Helper()
	for _, m := range r.metrics(t, "tramo_lease_wait_seconds") {
		if m.GetLabel()[0].GetValue() == how {
			n += m.GetHistogram().GetSampleCount()
		}
	}
	return n
}

func (r *replica) metrics(t *testing.T, name string) []*dto.Metric {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	for _, c := range r.Metrics() {
		stack.Must(t, registry.Register(c))
	}
	families, err := registry.Gather()
	stack.Must(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()
		}
	}
	return nil
}

func (r *replica) acquire(t *testing.T, ctx context.Context, id uuid.UUID, letGo func()) *lease.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, stack.Patience)
	defer cancel()
	mine, err := r.Acquire(ctx, id, letGo)
	stack.Must(t, err)
	return mine
}

// acquiring begins to acquire and returns where the lease will arrive.
func (r *replica) acquiring(t *testing.T, ctx context.Context, id uuid.UUID) <-chan *lease.Lease {
	t.Helper()
	got := make(chan *lease.Lease, 1)
	ctx, cancel := context.WithTimeout(ctx, stack.Patience)
	t.Cleanup(cancel)
	go func() {
		mine, err := r.Acquire(ctx, id, func() {})
		if err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		got <- mine
	}()
	return got
}

// wantAfter reports a lease whose fence is not above that of the one before.
func wantAfter(t *testing.T, mine, before *lease.Lease) {
	t.Helper()
	if mine.Fence() <= before.Fence() {
		t.Errorf("fence %d came after %d", mine.Fence(), before.Fence())
	}
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
	d, ctx, id := newUpload(t)
	ctx, cancel := context.WithTimeout(ctx, 2*stack.Patience)
	defer cancel()
	var inside, last atomic.Int64
	g := new(errgroup.Group)
	for range 3 {
		r := newReplica(t, d, calmly)
		for range 4 {
			g.Go(func() error {
				for range 5 {
					asked := make(flag, 1)
					mine, err := r.Acquire(ctx, id, asked.raise)
					if err != nil {
						return err
					}
					stack.Want(t, inside.Add(1), 1, "number of holders")
					if before := last.Swap(mine.Fence()); before >= mine.Fence() {
						t.Errorf("fence %d came after %d", mine.Fence(), before)
					}
					inside.Add(-1)
					if err := mine.Release(ctx); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	stack.Must(t, stack.Ended(t, "twelve requests", g.Wait))
}

// One waits for the row while another takes, uses and gives back the lease: who comes later has the higher
// fence, although it asked earlier.
func TestFenceIsDrawnUnderTheLock(t *testing.T) {
	t.Parallel()
	d, ctx, id := newUpload(t)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	admin := d.Admin(t)
	// The row is there, in a transaction that will roll back.
	tx, err := admin.Begin(t.Context())
	stack.Must(t, err)
	_, err = tx.Exec(t.Context(), `insert into upload_leases select tenant_id, id, (select id from lease_holders limit 1), 0 from uploads`)
	stack.Must(t, err)
	early := one.acquiring(t, ctx, id)
	d.UntilLocked(t, "a request waiting for the row", "%")
	// Meanwhile other uploads' leases are handed out.
	other := d.Create(t, ctx, 1)
	mine := two.acquire(t, ctx, other, func() {})
	stack.Must(t, tx.Rollback(t.Context()))
	if got := stack.Receive(t, "lease", early); got.Fence() <= mine.Fence() {
		t.Errorf("fence %d came after %d", got.Fence(), mine.Fence())
	}
}

// Requests give up at random moments, also while Postgres commits what they asked for: still one at a time
// holds the upload, and in the end nobody does and every process can have it.
func TestLeaseExcludesWhoeverGivesUp(t *testing.T) {
	t.Parallel()
	random := stack.Random(t)
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	ids := []uuid.UUID{d.Create(t, ctx, 1), d.Create(t, ctx, 1)}
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
					mine, err := r.Acquire(short, ids[which], func() {})
					cancel()
					if errors.Is(err, lease.ErrHeld) {
						continue
					}
					if err != nil {
						return err
					}
					stack.Want(t, inside[which].Add(1), 1, "number of holders")
					inside[which].Add(-1)
					if err := mine.Release(ctx); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	stack.Must(t, stack.Ended(t, "requests for the leases", g.Wait))
	for _, r := range replicas {
		for _, id := range ids {
			stack.Must(t, r.acquire(t, ctx, id, func() {}).Release(ctx))
		}
	}
	d.WantCount(t, 0, `select count(*) from upload_leases`)
}

// The holder is told that another wants the upload, in its own process and in another, and the other is told
// that it is free: by being told, not by asking again. A re-check may come first by chance, now and then.
func TestLeaseHandsOver(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	for how, other := range map[string]*replica{"locally": one, "notified": two} {
		t.Run(how, func(t *testing.T) {
			const times = 20
			for range times {
				id := d.Create(t, ctx, 1)
				asked := make(flag, 1)
				mine := one.acquire(t, ctx, id, asked.raise)
				next := other.acquiring(t, ctx, id)
				stack.Receive(t, "call of letGo", asked)
				stack.Must(t, mine.Release(ctx))
				got := stack.Receive(t, "lease", next)
				wantAfter(t, got, mine)
				stack.Must(t, got.Release(ctx))
			}
			if n := other.woken(t, how); n < times*3/4 {
				t.Errorf("%d of %d were %s", n, times, how)
			}
		})
	}
}

// Two processes wait for what a third holds: both are told that it is free, and who comes second is told again.
func TestEveryWaiterIsTold(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	one, two, three := newReplica(t, d, calmly), newReplica(t, d, calmly), newReplica(t, d, calmly)
	const times = 20
	for range times {
		id := d.Create(t, ctx, 1)
		asked := make(chan struct{}, 2)
		mine := one.acquire(t, ctx, id, func() { asked <- struct{}{} })
		var both errgroup.Group
		for _, r := range []*replica{two, three} {
			next := r.acquiring(t, ctx, id)
			stack.Receive(t, "call of letGo", asked)
			both.Go(func() error { return (<-next).Release(ctx) })
		}
		stack.Must(t, mine.Release(ctx))
		stack.Must(t, stack.Ended(t, "two releases", both.Wait))
	}
	if n := two.woken(t, "notified") + three.woken(t, "notified"); n < 2*times*3/4 {
		t.Errorf("%d of %d were notified", n, 2*times)
	}
}

func TestLeaseIsHeld(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	id := d.Create(t, ctx, 1)
	one.acquire(t, ctx, id, func() {})
	for name, r := range map[string]*replica{"same process": one, "another process": two} {
		for _, wait := range []time.Duration{0, 100 * time.Millisecond} {
			short, cancel := context.WithTimeout(ctx, wait)
			_, err := r.Acquire(short, id, func() {})
			cancel()
			if !errors.Is(err, lease.ErrHeld) {
				t.Errorf("%s, %s: %v", name, wait, err)
			}
		}
	}
}

// A request of another tenant for an upload does not notify its holder, and is not found, in the holder's process and in
// another, with the lease held or not.
func TestLeaseOfAnotherTenant(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	stranger, cancel := context.WithTimeout(d.NewTenant(t, 1<<30), stack.Patience)
	defer cancel()
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	id := d.Create(t, ctx, 1)
	disturbed := make(flag, 1)
	ask := func() {
		t.Helper()
		for _, r := range []*replica{one, two} {
			_, err := r.Acquire(stranger, id, func() {})
			stack.WantErr(t, err, storage.ErrNotFound)
			_, err = r.Acquire(stranger, uuid.New(), func() {})
			stack.WantErr(t, err, storage.ErrNotFound)
		}
	}
	ask()
	mine := one.acquire(t, ctx, id, disturbed.raise)
	ask()
	// Notifications arrive in order: that of the tenant's own request comes after any that was sent before.
	probe := d.Create(t, ctx, 1)
	asked := make(flag, 1)
	held := one.acquire(t, ctx, probe, asked.raise)
	next := two.acquiring(t, ctx, probe)
	stack.Receive(t, "call of letGo", asked)
	select {
	case <-disturbed:
		t.Error("the holder was asked to let go for another tenant")
	default:
	}
	stack.Must(t, held.Release(ctx))
	stack.Must(t, stack.Receive(t, "lease", next).Release(ctx))
	stack.Must(t, mine.Release(ctx))
}

// A process that ends in order gives its leases up, and says so: nobody waits for the time to live.
func TestCloseGivesLeasesUp(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	one, two := newReplica(t, d, calmly), newReplica(t, d, calmly)
	held := make(map[*lease.Lease]<-chan *lease.Lease)
	for range 5 {
		id := d.Create(t, ctx, 1)
		asked := make(flag, 1)
		mine := one.acquire(t, ctx, id, asked.raise)
		held[mine] = two.acquiring(t, ctx, id)
		stack.Receive(t, "call of letGo", asked)
	}
	one.die()
	stack.Must(t, one.Close(ctx))
	stack.Must(t, one.Close(ctx))
	for mine, next := range held {
		wantAfter(t, stack.Receive(t, "lease", next), mine)
	}
	if n := two.woken(t, "notified"); n == 0 {
		t.Error("nobody was notified")
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	_, err := one.Acquire(short, d.Create(t, ctx, 1), func() {})
	stack.WantErr(t, err, lease.ErrHeld)
}

// Try does not get a lease that a live process holds, its own or another, and the holder is not notified of the attempt or of a
// waiter. It gets a lease that is free, or a dead process's; an upload of another tenant is not found.
func TestTryLeavesTheHolderInPeace(t *testing.T) {
	t.Parallel()
	d := ground.NewDatabase(t)
	ctx := d.NewTenant(t, 1<<30)
	holder, other := newReplica(t, d, calmly), newReplica(t, d, calmly)
	held, free, dead := d.Create(t, ctx, 1), d.Create(t, ctx, 1), d.Create(t, ctx, 1)
	asked := make(flag, 1)
	holder.acquire(t, ctx, held, asked.raise)
	for _, r := range []*replica{other, holder} {
		_, err := r.Try(ctx, held, func() {})
		stack.WantErr(t, err, lease.ErrHeld)
	}
	var waiters int
	stack.Must(t, d.Admin(t).QueryRow(ctx, `select count(waiter) from upload_leases`).Scan(&waiters))
	if waiters != 0 || len(asked) != 0 {
		t.Errorf("the holder was asked: %d waiters in the rows", waiters)
	}
	mine, err := other.Try(ctx, free, func() {})
	stack.Must(t, err)
	stack.Must(t, mine.Release(ctx))

	died := newReplica(t, d, calmly)
	before := died.acquire(t, ctx, dead, func() {})
	died.die()
	d.Exec(t, `update lease_holders set expires_at = now() where replica = $1`, died.name)
	mine, err = other.Try(ctx, dead, func() {})
	stack.Must(t, err)
	wantAfter(t, mine, before)
	_, err = other.Try(storagetest.As(ctx, uuid.New()), free, func() {})
	stack.WantErr(t, err, storage.ErrNotFound)
}

// Try waits until its process is registered, and no longer than its context.
func TestTryWaitsToBecomeAHolder(t *testing.T) {
	t.Parallel()
	d, ctx, id := newUpload(t)
	ls := lease.NewManager(d.API, "late", calmly, stack.Log(t, slog.LevelInfo))
	given, cancel := context.WithCancel(ctx)
	cancel()
	_, err := ls.Try(given, id, func() {})
	stack.WantErr(t, err, lease.ErrHeld)
	stack.Must(t, ls.During(ctx, func(ctx context.Context) error {
		_, err := ls.Try(ctx, id, func() {})
		return err
	}))
	d.WantCount(t, 0, `select count(*) from lease_holders`)
}
