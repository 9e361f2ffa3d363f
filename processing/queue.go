package processing

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/tramo/tramo/storage"
)

// MaxAttempts is how often a job is tried before it becomes a dead letter: discarded, and kept.
const MaxAttempts = 3

// Args name the upload that a job processes. They carry ids, never bytes or links.
type Args struct {
	TenantID uuid.UUID `json:"tenant_id"`
	UploadID uuid.UUID `json:"upload_id"`
}

// Kind implements [river.JobArgs].
func (Args) Kind() string { return "process_upload" }

// InsertOpts implements [river.JobArgsWithInsertOpts].
func (Args) InsertOpts() river.InsertOpts { return river.InsertOpts{MaxAttempts: MaxAttempts} }

// A Queue takes processing jobs; it works none. Its database role needs INSERT on river_job and nothing
// more.
type Queue struct {
	client *river.Client[pgx.Tx]
}

// NewQueue makes a queue on db.
func NewQueue(db *storage.DB, log *slog.Logger) (*Queue, error) {
	client, err := river.NewClient(riverpgxv5.New(db.Pool()), &river.Config{Logger: log})
	if err != nil {
		return nil, fmt.Errorf("open the job queue: %w", err)
	}
	return &Queue{client: client}, nil
}

// Enqueue adds the uploads' processing jobs in the transaction that makes them uploaded. The more of their tenant's wait, the
// later they are worked.
func (q *Queue) Enqueue(ctx context.Context, tx storage.Tx, uploads ...uuid.UUID) error {
	metadata, err := traceMetadata(ctx)
	if err != nil {
		return err
	}
	priority, err := nextPriority(ctx, tx)
	if err != nil {
		return err
	}
	jobs := make([]river.InsertManyParams, len(uploads))
	for i, id := range uploads {
		jobs[i] = river.InsertManyParams{
			Args: Args{TenantID: tx.Tenant, UploadID: id}, InsertOpts: &river.InsertOpts{Metadata: metadata, Priority: priority},
		}
	}
	// The fast insert returns no row, and so needs no right to read other tenants' jobs.
	if _, err = q.client.InsertManyFastTx(ctx, tx.Tx, jobs); err != nil {
		return fmt.Errorf("enqueue processing of %v: %w", uploads, err)
	}
	return nil
}
