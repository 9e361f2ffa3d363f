package storage

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// CountUnended counts the uploads of all tenants that have not ended, by status. It needs an operator's role.
func (db *DB) CountUnended(ctx context.Context) (map[Status]int64, error) {
	rows, err := db.pool.Query(ctx, `
		select s.status, (select count(*) from uploads u where u.status = s.status)
		from unnest(array['pending', 'uploading', 'uploaded', 'processing']) s (status)`)
	counts := make(map[Status]int64)
	if err == nil {
		var status Status
		var n int64
		_, err = pgx.ForEachRow(rows, []any{&status, &n}, func() error {
			counts[status] = n
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("count uploads: %w", err)
	}
	return counts, nil
}
