package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Backlog is how much is on its way, over all tenants.
type Backlog struct {
	Jobs    map[string]int64 // by River's job state; discarded ones are dead letters
	Uploads map[Status]int64 // by status, those that have not ended
}

// Backlog counts. It needs an operator's role.
func (db *DB) Backlog(ctx context.Context) (b Backlog, err error) {
	b.Jobs, err = counts[string](ctx, db, `
		select s.state, (select count(*) from river_job j where j.state = s.state::river_job_state)
		from unnest(array['available', 'running', 'retryable', 'scheduled', 'discarded']) s (state)`)
	if err != nil {
		return Backlog{}, fmt.Errorf("count jobs: %w", err)
	}
	b.Uploads, err = counts[Status](ctx, db, `
		select s.status, (select count(*) from uploads u where u.status = s.status)
		from unnest(array['pending', 'uploading', 'uploaded', 'processing']) s (status)`)
	if err != nil {
		return Backlog{}, fmt.Errorf("count uploads: %w", err)
	}
	return b, nil
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

// An Abandoned upload has not ended, but its job is a dead letter: the worker was killed on the last attempt,
// say, and River gave the job up without running any code of ours.
type Abandoned struct {
	Tenant uuid.UUID `db:"tenant_id"`
	Upload uuid.UUID `db:"id"`
}

// Abandoned returns up to a hundred of them. It needs an operator's role.
func (db *DB) Abandoned(ctx context.Context) ([]Abandoned, error) {
	rows, err := db.pool.Query(ctx, `
		select u.tenant_id, u.id from river_job j
		join uploads u on u.tenant_id = (j.args->>'tenant_id')::uuid and u.id = (j.args->>'upload_id')::uuid
		where j.state = 'discarded' and u.status in ('uploaded', 'processing') and not exists (
			select from river_job alive where alive.args @> j.args
			and alive.state in ('available', 'running', 'retryable', 'scheduled'))
		limit 100`)
	if err != nil {
		return nil, fmt.Errorf("find abandoned uploads: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[Abandoned])
	if err != nil {
		return nil, fmt.Errorf("find abandoned uploads: %w", err)
	}
	return found, nil
}
