package queue

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/sourcegraph/conc/panics"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
)

// rescueEvery is how often a pool looks for jobs of workers that died, at the longest.
const rescueEvery = 5 * time.Second

// workerPrefix begins the name under which a process works jobs.
const workerPrefix = "tramo-"

func workerName(leases *lease.Manager) string { return workerPrefix + leases.Process().String() }

// rescue requeues jobs of workers that died, until ctx is done. River does so too, but only after a job has run for longer than
// any may.
func (p *Pool) rescue(ctx context.Context) {
	tick := time.NewTicker(min(rescueEvery, p.conf.LostAfter/2))
	defer tick.Stop()
	for {
		var err error
		if caught := panics.Try(func() { err = p.rescueOnce(ctx) }); caught != nil {
			err = caught.AsError()
		}
		if err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "looking for orphaned jobs failed", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *Pool) rescueOnce(ctx context.Context) error {
	orphans, err := requeueOrphans(ctx, p.db, p.leases.Process(), p.conf.LostAfter)
	for _, o := range orphans {
		p.lost(ctx, o)
	}
	return err
}

// lost tells the job's worker that an attempt was lost with its process. If this process dies first, the reconciler finds the
// upload.
func (p *Pool) lost(ctx context.Context, o orphan) {
	p.metrics.requeued.WithLabelValues(requeuedLost).Inc()
	job := &Job{Kind: o.Kind, ID: o.ID, Attempt: o.Attempt, Exhausted: o.Exhausted}
	err := json.Unmarshal(o.Args, &job.Args)
	ctx = asWorker(inTrace(ctx, o.Metadata), job)
	log := logFor(p.log, job)
	if r := p.workers[o.Kind]; r != nil && err == nil {
		err = r.failed(ctx, log, job, ErrWorkerLost)
	}
	if err != nil {
		log.WarnContext(ctx, "lost attempt not recorded", slog.Any("err", err))
	}
}

// An orphan is a job whose worker died, and that was requeued.
type orphan struct {
	ID        int64
	Kind      Kind
	Args      json.RawMessage
	Metadata  json.RawMessage
	Attempt   int
	Exhausted bool // it had no attempt left, and is not worked again
}

// requeueOrphans requeues the jobs of workers that have been silent for longer than their time to live by at least silence: each
// has lost an attempt, and the next one begins at once. All clocks are Postgres's.
//
// Only a process with an unbroken heartbeat of the same length declares others dead. When Postgres was away all were silent,
// and each gets the time for a heartbeat.
func requeueOrphans(ctx context.Context, db *storage.DB, me uuid.UUID, silence time.Duration) ([]orphan, error) {
	rows, err := db.Pool().Query(ctx, `
		with judge as (
			select from lease_holders
			where process = $1 and expires_at > clock_timestamp() and since <= clock_timestamp() - $2::interval
		), lost as (
			select j.id, j.attempt >= j.max_attempts or j.metadata ? 'cancel_attempted_at' as exhausted
			from river_job j
			where j.state = 'running' and exists (select from judge)
				and j.attempted_at <= clock_timestamp() - $2::interval
				and j.attempted_by[cardinality(j.attempted_by)] like $3 || '%'
				and not exists (
					select from lease_holders h
					where $3 || h.process::text = j.attempted_by[cardinality(j.attempted_by)]
						and h.expires_at > clock_timestamp() - $2::interval)
			for update of j skip locked -- an attempt that just then ends its job is alive
		)
		update river_job j set
			state = case when j.metadata ? 'cancel_attempted_at' then 'cancelled' when exhausted then 'discarded' else 'available' end::river_job_state,
			finalized_at = case when exhausted then now() end,
			scheduled_at = case when exhausted then j.scheduled_at else now() end,
			errors = array_append(j.errors, jsonb_build_object('at', now(), 'attempt', j.attempt, 'error', 'worker lost', 'trace', ''))
		from lost where j.id = lost.id
		returning j.id, j.kind, j.args, j.metadata, j.attempt, lost.exhausted`, me, silence, workerPrefix)
	return storage.Collect[orphan]("look for orphaned jobs", rows, err)
}
