package storage

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Backlog is how much is on its way, over all tenants.
type Backlog struct {
	Uploads map[Status]int64 // by status, those that have not ended
	Letters map[string]int64 // dead letters that wait for a decision, by step
}

// Backlog counts. It needs an operator's role.
func (db *DB) Backlog(ctx context.Context) (b Backlog, err error) {
	b.Uploads, err = counts[Status](ctx, db, `
		select s.status, (select count(*) from uploads u where u.status = s.status)
		from unnest(array['pending', 'uploading', 'uploaded', 'processing']) s (status)`)
	if err != nil {
		return Backlog{}, fmt.Errorf("count uploads: %w", err)
	}
	b.Letters, err = db.openLetters(ctx)
	return b, err
}

func counts[K ~string](ctx context.Context, db *DB, sql string) (map[K]int64, error) {
	rows, err := db.pool.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	found := make(map[K]int64)
	var key string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&key, &n}, func() error {
		found[K(key)] = n
		return nil
	})
	return found, err
}
