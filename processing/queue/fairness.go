package queue

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sourcegraph/conc/panics"

	"github.com/tramo/tramo/storage"
)

// marks are the places in a tenant's queue behind which a job's priority falls: the first few jobs of each tenant come before
// all others, and so on, through River's four priorities. The first mark is small because a tenant with a single photo waits
// for as many jobs of each tenant that sends thousands.
var marks = []int{4, 50, 500}

// rankEvery is how often waiting jobs are ranked again.
const rankEvery = time.Second

// CountWaiting counts the tenant's uploads that wait for workers, or are worked on. The number is there once the transaction's
// next answer is read ([storage.Later]). Transactions that commit at the same time do not see each other's uploads.
func CountWaiting(tx storage.Tx) *int {
	n := new(int)
	storage.ReadLater(tx, "count uploads that wait for workers", storage.Into(n), `
		select count(*) from (
			select from uploads where tenant_id = $1 and status in ('uploaded', 'processing') limit $2) w`,
		tx.Tenant, marks[len(marks)-1]+1)
	return n
}

// priorityOf is that of the job of the last of so many uploads that wait. It ages: [Pool.rank] corrects it.
func priorityOf(waiting int) int {
	priority := 1
	for _, mark := range marks {
		if waiting > mark {
			priority++
		}
	}
	return priority
}

// rank corrects the priorities of waiting jobs until ctx is done. A tenant's jobs move up as those before them are worked, so
// that none waits for ever behind the first jobs of others.
func (p *Pool) rank(ctx context.Context) {
	tick := time.NewTicker(rankEvery)
	defer tick.Stop()
	for {
		var err error
		if caught := panics.Try(func() { _, err = rankJobs(ctx, p.db) }); caught != nil {
			err = caught.AsError()
		}
		if err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "ranking jobs failed", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// rankJobs gives each processing job that waits the priority of its place among its tenant's: the first marks[0] get 1, those
// up to marks[1] get 2, and so on; the rest gets one more than there are marks. A job that moves up goes behind the jobs that
// already have the priority, as if it arrived now: otherwise the oldest jobs of a large backlog would always come before all
// others. So tenants take turns, however many jobs each of them has waiting. One process at a time does it; for others it does
// nothing. It returns how many jobs changed.
func rankJobs(ctx context.Context, db *storage.DB) (moved int64, err error) {
	err = pgx.BeginFunc(ctx, db.Pool(), func(tx pgx.Tx) error {
		var mine bool
		err := tx.QueryRow(ctx, `select pg_try_advisory_xact_lock(hashtext('tramo.rank_jobs'))`).Scan(&mine)
		if err != nil || !mine {
			return err
		}
		tag, err := tx.Exec(ctx, `
			with placed as (
				select id, row_number() over (partition by args->>'tenant_id' order by id) place
				from river_job where state = 'available' and kind = 'process_upload'
			), ranked as (
				select id, 1 + (select count(*) from unnest($1::int[]) mark where mark < place) as priority from placed
			)
			update river_job j set priority = r.priority,
				scheduled_at = case when r.priority < j.priority then now() else j.scheduled_at end
			from ranked r
			where j.id = r.id and j.state = 'available' and j.priority <> r.priority`, marks)
		moved = tag.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("rank jobs: %w", err)
	}
	return moved, nil
}
