package queue

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/test/stack"
)

// silence is far above what a busy machine takes, so that only rows that a test has aged are old.
const silence = time.Minute

// processes are some that work jobs, and the jobs, as they look some time after something happened.
type processes struct {
	*fixture
	leases *lease.Manager
	name   string
	die    func() // stops the heartbeat and gives nothing back
}

func newProcesses(t *testing.T) *processes {
	t.Helper()
	g := &processes{fixture: newFixture(t), name: uuid.NewString()}
	g.leases = lease.NewManager(g.Worker, g.name, time.Minute, g.log) // which no test outlives
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- g.leases.Run(ctx) }()
	g.die = sync.OnceFunc(func() {
		cancel()
		stack.Must(t, stack.Receive(t, "end of the heartbeat", ended))
	})
	t.Cleanup(g.die)
	stack.Must(t, g.leases.Registered(t.Context()))
	g.Exec(t, `update lease_holders set since = now() - interval '1 hour'`) // so that its heartbeat is unbroken for long
	return g
}

func (g *processes) requeue(t *testing.T) []orphan {
	t.Helper()
	orphans, err := requeueOrphans(t.Context(), g.Worker, g.leases.Process(), silence)
	stack.Must(t, err)
	return orphans
}

// process is another process, which has expired so long ago.
func (g *processes) process(t *testing.T, ago time.Duration) (worker string) {
	t.Helper()
	id := uuid.New()
	g.Exec(t, `insert into lease_holders (id, replica, process, expires_at) values (gen_random_uuid(), 'other', $1, now() - $2::interval)`, id, ago)
	return "tramo-" + id.String()
}

// job runs for so long in a worker.
func (g *processes) job(t *testing.T, worker string, ran time.Duration, attempt int) (id int64) {
	t.Helper()
	stack.Must(t, g.Admin(t).QueryRow(t.Context(), `
		insert into river_job (kind, args, state, queue, attempt, max_attempts, attempted_at, attempted_by)
		values ('any', '{}', 'running', 'default', $1, 3, now() - $2::interval, array['someone before', $3]) returning id`,
		attempt, ran, worker).Scan(&id))
	return id
}

func (g *processes) state(t *testing.T, id int64) (state string) {
	t.Helper()
	stack.Must(t, g.Admin(t).QueryRow(t.Context(), `
		select concat_ws(' ', state, attempt, finalized_at is not null, (select string_agg(e->>'error', ',') from unnest(errors) e))
		from river_job where id = $1`, id).Scan(&state))
	return state
}

// A job is requeued only if its worker was silent for the time given.
func TestRequeueOrphans(t *testing.T) {
	t.Parallel()
	g := newProcesses(t)
	const running, back = "running 1 f", "available 1 f worker lost"
	long := 10 * silence
	again := g.process(t, long)
	g.Exec(t, `insert into lease_holders (id, replica, process, expires_at)
		select gen_random_uuid(), 'other', process, now() + interval '1 minute' from lease_holders where 'tramo-' || process::text = $1`, again)
	for _, c := range []struct {
		name, worker string
		ran          time.Duration
		attempt      int
		want         string
	}{
		{"of somebody living", g.process(t, -time.Minute), long, 1, running},
		{"of somebody late", g.process(t, silence/2), long, 1, running},
		{"of somebody who lost its leases and lives", again, long, 1, running},
		{"of ourselves", workerName(g.leases), long, 1, running},
		{"of the previous release", "host_2026_11_22", long, 1, running},
		{"of somebody unheard, begun just now", "tramo-" + uuid.NewString(), 0, 1, running},
		{"of somebody dead", g.process(t, long), long, 1, back},
		{"of somebody who resigned", "tramo-" + uuid.NewString(), long, 1, back},
		{"of somebody dead, for the third time", g.process(t, long), long, 3, "discarded 3 t worker lost"},
	} {
		id := g.job(t, c.worker, c.ran, c.attempt)
		orphans := g.requeue(t)
		stack.Want(t, g.state(t, id), c.want, "state of a job %s", c.name)
		told := slices.ContainsFunc(orphans, func(j orphan) bool { return j.ID == id && j.Exhausted == (c.attempt == 3) })
		stack.Want(t, told, strings.HasSuffix(c.want, "lost"), "a job %s is among the orphans %+v", c.name, orphans)
	}
}

// When Postgres was away everybody has been silent: who was not heard for long judges nobody.
func TestBrokenHeartbeatDeclaresNobodyDead(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]string{
		"just back":    `update lease_holders set since = now() where replica = $1`,
		"still silent": `update lease_holders set expires_at = now() where replica = $1`,
	} {
		g := newProcesses(t)
		g.die() // no heartbeat changes what the test writes
		id := g.job(t, g.process(t, 10*silence), 10*silence, 1)
		g.Exec(t, away, g.name)
		if orphans := g.requeue(t); len(orphans) > 0 || g.state(t, id) != "running 1 f" {
			t.Errorf("%s: %+v; the job is %s", name, orphans, g.state(t, id))
		}
	}
}

// An attempt that is just then ending its job holds the job's row, and lives.
func TestRequeueLeavesWhatEnds(t *testing.T) {
	t.Parallel()
	g := newProcesses(t)
	id := g.job(t, g.process(t, 10*silence), 10*silence, 1)
	tx, err := g.Admin(t).Begin(t.Context())
	stack.Must(t, err)
	_, err = tx.Exec(t.Context(), `select from river_job where id = $1 for update`, id)
	stack.Must(t, err)
	if orphans := g.requeue(t); len(orphans) > 0 { // and does not wait for it
		t.Errorf("%+v", orphans)
	}
	stack.Must(t, tx.Rollback(t.Context()))
}

func TestSuperseded(t *testing.T) {
	t.Parallel()
	g := newProcesses(t)
	for change, want := range map[string]bool{
		``:                    false,
		`attempt = 2`:         true,
		`state = 'available'`: true,
		`state = 'retryable'`: true,
		`state = 'completed', attempt = 2, finalized_at = now()`: false,
		`state = 'discarded', finalized_at = now()`:              false,
	} {
		id := g.job(t, "anyone", 0, 1)
		if change != "" {
			g.Exec(t, `update river_job set `+change+` where id = $1`, id)
		}
		if yes, err := superseded(t.Context(), g.Worker, id, 1); err != nil || yes != want {
			t.Errorf("after %q: %t, %v", change, yes, err)
		}
	}
	if yes, err := superseded(t.Context(), g.Worker, 1<<40, 1); err != nil || yes {
		t.Errorf("of a job that is gone: %t, %v", yes, err)
	}
}
