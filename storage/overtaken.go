package storage

import (
	"context"
	"fmt"
)

// Overtaken reports whether a job's attempt is no longer the one that counts while the job has not ended: another runs
// now, or will.
func (db *DB) Overtaken(ctx context.Context, job int64, attempt int) (yes bool, err error) {
	err = db.pool.QueryRow(ctx, `
		select exists (
			select from river_job where id = $1 and finalized_at is null and not (state = 'running' and attempt = $2))`,
		job, attempt).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("look whether job %d is still ours: %w", job, err)
	}
	return yes, nil
}
