package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Findings are what the attempts at processing an upload have come to: the steps that need not run again, and what
// they found.
type Findings struct {
	Done    []string
	Results Results
}

// Has reports whether a step is done.
func (f Findings) Has(step string) bool { return slices.Contains(f.Done, step) }

// Findings returns what earlier attempts have kept; nothing, if there were none.
func (tx Tx) Findings(ctx context.Context, id uuid.UUID) (f Findings, err error) {
	err = tx.QueryRow(ctx, `select done, results from step_results where tenant_id = $1 and upload_id = $2`,
		tx.Tenant, id).Scan(&f.Done, &f.Results)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Findings{}, fmt.Errorf("read findings: %w", err)
	}
	return f, nil
}

// KeepFindings keeps f for the next attempt. It need not survive a crash of Postgres, and does not wait for its disk:
// what is lost is done again.
func (tx Tx) KeepFindings(ctx context.Context, id uuid.UUID, f Findings) error {
	_, err := tx.Exec(ctx, `
		with now as (select set_config('synchronous_commit', 'off', true))
		insert into step_results (tenant_id, upload_id, done, results) select $1, $2, $3, $4 from now
		on conflict (tenant_id, upload_id) do update set done = excluded.done, results = excluded.results`,
		tx.Tenant, id, f.Done, f.Results)
	if err != nil {
		return fmt.Errorf("keep findings: %w", err)
	}
	return nil
}

// forgetFindings is part of an upload's end.
func (tx Tx) forgetFindings(ctx context.Context, id uuid.UUID) error {
	if _, err := tx.Exec(ctx, `delete from step_results where tenant_id = $1 and upload_id = $2`, tx.Tenant, id); err != nil {
		return fmt.Errorf("forget findings: %w", err)
	}
	return nil
}
