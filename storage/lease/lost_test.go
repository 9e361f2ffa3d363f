package lease_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage/lease"
)

// silence is far above what a busy machine takes, so that only rows that a test has aged are old.
const silence = time.Minute

// A graveyard is processes and jobs that look as they do some time after something happened.
type graveyard struct {
	*replica
	admin *pgx.Conn
}

func newGraveyard(t *testing.T) *graveyard {
	t.Helper()
	d := newDatabase(t)
	g := &graveyard{replica: newReplicaOn(t, d, d.Worker, calmly), admin: d.Admin(t)}
	g.exec(t, `update lease_holders set since = now() - interval '1 hour'`) // who judges has been heard for long
	return g
}

func (g *graveyard) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := g.admin.Exec(t.Context(), sql, args...)
	must(t, err)
}

// process is another process, which has expired so long ago.
func (g *graveyard) process(t *testing.T, ago time.Duration) (worker string) {
	t.Helper()
	id := uuid.New()
	g.exec(t, `insert into lease_holders (id, replica, process, expires_at) values (gen_random_uuid(), 'other', $1, now() - $2::interval)`, id, ago)
	return "tramo-" + id.String()
}

// job runs for so long in a worker.
func (g *graveyard) job(t *testing.T, worker string, ran time.Duration, attempt int) (id int64) {
	t.Helper()
	must(t, g.admin.QueryRow(t.Context(), `
		insert into river_job (kind, args, state, queue, attempt, max_attempts, attempted_at, attempted_by)
		values ('any', '{}', 'running', 'default', $1, 3, now() - $2::interval, array['someone before', $3]) returning id`,
		attempt, ran, worker).Scan(&id))
	return id
}

func (g *graveyard) state(t *testing.T, id int64) (state string) {
	t.Helper()
	must(t, g.admin.QueryRow(t.Context(), `
		select concat_ws(' ', state, attempt, finalized_at is not null, (select string_agg(e->>'error', ',') from unnest(errors) e))
		from river_job where id = $1`, id).Scan(&state))
	return state
}

// A job is put back only if nothing has been heard of its worker for the time given.
func TestPutBackLost(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t)
	const running, back = "running 1 f", "available 1 f worker lost"
	long := 10 * silence
	again := g.process(t, long)
	g.exec(t, `insert into lease_holders (id, replica, process, expires_at)
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
		{"of ourselves", g.Worker(), long, 1, running},
		{"of the previous release", "host_2026_11_22", long, 1, running},
		{"of somebody unheard, begun just now", "tramo-" + uuid.NewString(), 0, 1, running},
		{"of somebody dead", g.process(t, long), long, 1, back},
		{"of somebody who resigned", "tramo-" + uuid.NewString(), long, 1, back},
		{"of somebody dead, for the third time", g.process(t, long), long, 3, "discarded 3 t worker lost"},
	} {
		id := g.job(t, c.worker, c.ran, c.attempt)
		lost, err := g.PutBackLost(t.Context(), silence)
		must(t, err)
		if got := g.state(t, id); got != c.want {
			t.Errorf("a job %s is %q, want %q", c.name, got, c.want)
		}
		told := slices.ContainsFunc(lost, func(j lease.OrphanedJob) bool { return j.ID == id && j.Dead == (c.attempt == 3) })
		if told != strings.HasSuffix(c.want, "lost") {
			t.Errorf("a job %s: told of %+v", c.name, lost)
		}
	}
}

// When Postgres was away everybody has been silent: who was not heard for long judges nobody.
func TestWhoWasAwayJudgesNobody(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]string{
		"just back":    `update lease_holders set since = now() where replica = $1`,
		"still silent": `update lease_holders set expires_at = now() where replica = $1`,
	} {
		g := newGraveyard(t)
		g.die() // no heartbeat changes what the test writes
		id := g.job(t, g.process(t, 10*silence), 10*silence, 1)
		g.exec(t, away, g.name)
		lost, err := g.PutBackLost(t.Context(), silence)
		if err != nil || len(lost) > 0 || g.state(t, id) != "running 1 f" {
			t.Errorf("%s: %+v, %v; the job is %s", name, lost, err, g.state(t, id))
		}
	}
}

// An attempt that is just then ending its job holds the job's row, and lives.
func TestPutBackLeavesWhatEnds(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t)
	id := g.job(t, g.process(t, 10*silence), 10*silence, 1)
	tx, err := g.admin.Begin(t.Context())
	must(t, err)
	_, err = tx.Exec(t.Context(), `select from river_job where id = $1 for update`, id)
	must(t, err)
	lost, err := g.PutBackLost(t.Context(), silence) // and does not wait for it
	if err != nil || len(lost) > 0 {
		t.Errorf("%+v, %v", lost, err)
	}
	must(t, tx.Rollback(t.Context()))
}

func TestOvertaken(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t)
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
			g.exec(t, `update river_job set `+change+` where id = $1`, id)
		}
		if yes, err := g.db.Overtaken(t.Context(), id, 1); err != nil || yes != want {
			t.Errorf("after %q: %t, %v", change, yes, err)
		}
	}
	if yes, err := g.db.Overtaken(t.Context(), 1<<40, 1); err != nil || yes {
		t.Errorf("of a job that is gone: %t, %v", yes, err)
	}
}

// A process has a name of its own, and knows when it is heard.
func TestEnlisted(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	silent := lease.NewManager(d.Worker, "silent", calmly, logTo(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := silent.Enlisted(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	one := newReplica(t, d, calmly)
	must(t, one.Enlisted(t.Context()))
	if silent.Worker() == one.Worker() {
		t.Error("two processes have one name")
	}
}
