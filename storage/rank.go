package storage

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// RankJobs gives each processing job that waits the priority of its place among its tenant's: the first marks[0] get
// 1, those up to marks[1] get 2, and so on; the rest gets one more than there are marks. A job that moves up comes
// behind those that are there, as if it arrived now: else the oldest of a large backlog would always be before all
// others. So tenants take turns, whatever each of them has waiting. One process at a time does it; for others it is
// nothing to do. It returns how many jobs changed, and needs an operator's role.
func (db *DB) RankJobs(ctx context.Context, marks []int) (moved int64, err error) {
	err = pgx.BeginFunc(ctx, db.pool, func(tx pgx.Tx) error {
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
