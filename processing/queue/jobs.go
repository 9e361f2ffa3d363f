package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// What others ask about jobs. All of it needs an operator's role: the API's may not read jobs.

const jobsOfRow = `select from river_job j where j.kind = 'process_upload'
	and j.args->>'tenant_id' = u.tenant_id::text and j.args->>'upload_id' = u.id::text`

// Conditions on an upload's row u, in SQL.
const (
	// HasNoJob: the upload has no processing job that waits, runs, or was given up.
	HasNoJob = `not exists (` + jobsOfRow + ` and j.state <> 'completed')`
	// GivenUp: all processing jobs of the upload that did not complete were given up.
	GivenUp = `exists (` + jobsOfRow + ` and j.state in ('discarded', 'cancelled'))
		and not exists (` + jobsOfRow + ` and j.state not in ('discarded', 'cancelled', 'completed'))`
	// NoRescanWaits: the upload has no rescan that waits or runs.
	NoRescanWaits = `not exists (select from river_job j where j.kind = 'rescan_upload' and j.state not in ('completed', 'cancelled', 'discarded')
		and j.args @> jsonb_build_object('tenant_id', u.tenant_id, 'upload_id', u.id))`
)

// Works is a condition in SQL: the job with the id waits, or has run for less than age. Both are expressions.
func Works(id, age string) string {
	return `exists (select from river_job j where j.id = ` + id + ` and (j.state in ('available', 'pending', 'scheduled', 'retryable')
		or j.state = 'running' and j.attempted_at > now() - ` + age + `))`
}

// of is the condition that a job names the upload $2 of the tenant $1.
const of = `args @> jsonb_build_object('tenant_id', $1::uuid, 'upload_id', $2::uuid)`

// A GivenUpJob is a job that the queue does not try again.
type GivenUpJob struct {
	ID       int64           `db:"id"`
	Kind     Kind            `db:"kind"`
	Attempt  int             `db:"attempt"`
	Metadata json.RawMessage `db:"metadata"`
	Error    string          `db:"error"` // of its last attempt; "" if the worker died
}

// Trace returns ctx in the trace of the request that enqueued the job.
func (j GivenUpJob) Trace(ctx context.Context) context.Context { return inTrace(ctx, j.Metadata) }

// FindGivenUp returns the upload's last processing job if none of them waits or runs, and [storage.ErrNotFound] otherwise.
func FindGivenUp(ctx context.Context, tx storage.Tx, upload uuid.UUID) (GivenUpJob, error) {
	rows, err := tx.Query(ctx, `
		with theirs as (select * from river_job where kind = 'process_upload' and `+of+`)
		select id, kind, attempt::int, metadata, coalesce(errors[cardinality(errors)]->>'error', '') as error from theirs
		where state in ('discarded', 'cancelled')
			and not exists (select from theirs where state not in ('discarded', 'cancelled', 'completed'))
		order by id desc limit 1`, tx.Tenant, upload)
	return storage.CollectOne[GivenUpJob]("look for a job that was given up", rows, err)
}

// IsRunning reports whether a job of the upload runs.
func IsRunning(ctx context.Context, tx storage.Tx, upload uuid.UUID) (running bool, err error) {
	err = tx.QueryRow(ctx, `select exists (select from river_job where state = 'running' and `+of+`)`, tx.Tenant, upload).Scan(&running)
	if err != nil {
		return false, fmt.Errorf("look for running jobs: %w", err)
	}
	return running, nil
}

// Drop removes the upload's jobs, except those that run.
func Drop(ctx context.Context, tx storage.Tx, upload uuid.UUID) error {
	if _, err := tx.Exec(ctx, `delete from river_job where state <> 'running' and `+of, tx.Tenant, upload); err != nil {
		return fmt.Errorf("remove jobs: %w", err)
	}
	return nil
}

// ErrRunning says that a job runs that has to end first.
var ErrRunning = errors.New("a job is running")

// DropTenant removes all jobs that name the tenant. While one of them runs it is [ErrRunning], and the others
// are removed.
func DropTenant(ctx context.Context, db *storage.DB, tenant uuid.UUID) error {
	const theirs = `args @> jsonb_build_object('tenant_id', $1::uuid)`
	if _, err := db.Pool().Exec(ctx, `delete from river_job where state <> 'running' and `+theirs, tenant); err != nil {
		return fmt.Errorf("remove jobs: %w", err)
	}
	var running bool
	if err := db.Pool().QueryRow(ctx, `select exists (select from river_job where `+theirs+`)`, tenant).Scan(&running); err != nil {
		return fmt.Errorf("look for running jobs: %w", err)
	}
	if running {
		return ErrRunning
	}
	return nil
}

// Count counts the jobs that process uploads, over all tenants, by River's state; discarded ones are those of dead letters.
func Count(ctx context.Context, db *storage.DB) (map[string]int64, error) {
	rows, err := db.Pool().Query(ctx, `
		select s.state, (select count(*) from river_job j
			where j.state = s.state::river_job_state and j.kind = 'process_upload')
		from unnest(array['available', 'running', 'retryable', 'scheduled', 'discarded']) s (state)`)
	return storage.CollectCounts[string]("count jobs", rows, err)
}
