package processing

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/storage"
)

// results are what the steps found out about an upload.
type results struct {
	storage.Results
	Scan *quarantine.Scan // nil if it was not scanned
}

// stepResults are what earlier attempts keep for the next: the steps that need not run again, and what they found out.
type stepResults struct {
	Done    []string
	Results results
}

func (r stepResults) has(s step) bool { return slices.Contains(r.Done, string(s.name)) }

// readStepResults returns what earlier attempts have kept; nothing, if there were none.
func readStepResults(ctx context.Context, tx storage.Tx, upload uuid.UUID) (r stepResults, err error) {
	err = tx.QueryRow(ctx, `select done, results from step_results where tenant_id = $1 and upload_id = $2`,
		tx.Tenant, upload).Scan(&r.Done, &r.Results)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return stepResults{}, fmt.Errorf("read step results: %w", err)
	}
	return r, nil
}

// keepStepResults keeps r for the next attempt. It need not survive a crash of Postgres, and does not wait for its disk: steps
// whose results are lost run again.
func keepStepResults(ctx context.Context, tx storage.Tx, upload uuid.UUID, r stepResults) error {
	_, err := tx.Exec(ctx, `
		with now as (select set_config('synchronous_commit', 'off', true))
		insert into step_results (tenant_id, upload_id, done, results) select $1, $2, $3, $4 from now
		on conflict (tenant_id, upload_id) do update set done = excluded.done, results = excluded.results`,
		tx.Tenant, upload, r.Done, r.Results)
	if err != nil {
		return fmt.Errorf("keep step results: %w", err)
	}
	return nil
}

// complete ends the upload with its results, and deletes what was kept for a next attempt.
func complete(ctx context.Context, tx storage.Tx, upload uuid.UUID, r results) error {
	if err := tx.Complete(ctx, upload, r.Results); err != nil {
		return err
	}
	if err := quarantine.Record(ctx, tx, upload, r.Scan); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `delete from step_results where tenant_id = $1 and upload_id = $2`, tx.Tenant, upload); err != nil {
		return fmt.Errorf("delete step results: %w", err)
	}
	return nil
}

// fail ends the upload for a reason, and keeps the verdict of its scan, if there is one.
func fail(ctx context.Context, tx storage.Tx, upload uuid.UUID, f storage.Failure, s *quarantine.Scan) error {
	if err := tx.Move(ctx, upload, storage.MoveFail.Because(f)); err != nil {
		return err
	}
	return quarantine.Record(ctx, tx, upload, s)
}
