package lease

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// workerPrefix begins the name under which a process of ours works jobs. Names of earlier releases have another, and
// nothing tells whether those live.
const workerPrefix = "tramo-"

// Worker is the name under which this process works jobs. It stays the same for as long as the process lives, even if the
// process loses its leases.
func (m *Manager) Worker() string { return workerPrefix + m.process.String() }

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

// An OrphanedJob is one whose worker died, and that was put back.
type OrphanedJob struct {
	ID       int64
	Kind     string
	Args     json.RawMessage
	Metadata json.RawMessage
	Attempt  int
	Dead     bool // it had no attempt left, and is not worked again
}

// PutBackLost puts back the jobs of workers that have been silent for longer than their time to live by at least silence:
// each has lost an attempt, and the next one begins at once. All clocks are Postgres's.
//
// It judges others only if this process has itself been heard for as long. When Postgres was away all were silent, and
// each gets the time to be heard again.
func (m *Manager) PutBackLost(ctx context.Context, silence time.Duration) ([]OrphanedJob, error) {
	rows, err := m.db.Pool().Query(ctx, `
		with judge as (
			select from lease_holders
			where process = $1 and expires_at > clock_timestamp() and since <= clock_timestamp() - $2::interval
		), lost as (
			select j.id, j.attempt >= j.max_attempts or j.metadata ? 'cancel_attempted_at' as dead
			from river_job j
			where j.state = 'running' and exists (select from judge)
				and j.attempted_at <= clock_timestamp() - $2::interval
				and j.attempted_by[cardinality(j.attempted_by)] like $3 || '%'
				and not exists (
					select from lease_holders h
					where $3 || h.process::text = j.attempted_by[cardinality(j.attempted_by)]
						and h.expires_at > clock_timestamp() - $2::interval)
			for update of j skip locked -- an attempt that just then ends its job lives
		)
		update river_job j set
			state = case when j.metadata ? 'cancel_attempted_at' then 'cancelled' when dead then 'discarded' else 'available' end::river_job_state,
			finalized_at = case when dead then now() end,
			scheduled_at = case when dead then j.scheduled_at else now() end,
			errors = array_append(j.errors, jsonb_build_object('at', now(), 'attempt', j.attempt, 'error', 'worker lost', 'trace', ''))
		from lost where j.id = lost.id
		returning j.id, j.kind, j.args, j.metadata, j.attempt, lost.dead`, m.process, silence, workerPrefix)
	if err != nil {
		return nil, fmt.Errorf("look for lost jobs: %w", err)
	}
	lost, err := pgx.CollectRows(rows, pgx.RowToStructByPos[OrphanedJob])
	if err != nil {
		return nil, fmt.Errorf("look for lost jobs: %w", err)
	}
	return lost, nil
}
