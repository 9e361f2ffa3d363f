package resource

import (
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/storage"
)

// A Batch is a batch without its uploads.
type Batch struct {
	ID          uuid.UUID          `json:"id"`
	Project     string             `json:"project"`
	Name        string             `json:"name"`
	ClientID    *string            `json:"client_id"`
	UserID      string             `json:"user_id"`
	Manifest    bool               `json:"manifest"` // its client sent a manifest
	State       storage.BatchState `json:"state"`
	CreatedAt   time.Time          `json:"created_at"`
	UpdatedAt   time.Time          `json:"updated_at"`
	CompletedAt *time.Time         `json:"completed_at"` // when its last upload ended; null while it is open
	CancelledAt *time.Time         `json:"cancelled_at"`
}

// BatchOf describes a batch.
func BatchOf(b storage.Batch) Batch {
	return Batch{
		ID: b.ID, Project: b.Project, Name: b.Name, ClientID: b.ClientID, UserID: b.UserID, Manifest: b.Manifest,
		State: b.State(), CreatedAt: b.CreatedAt, UpdatedAt: b.UpdatedAt, CompletedAt: b.CompletedAt, CancelledAt: b.CancelledAt,
	}
}

// A CountedBatch is a batch with the totals of its uploads.
type CountedBatch struct {
	Batch
	Counts map[string]int64 `json:"counts"` // of uploads by status, and their total
	Bytes  BatchBytes       `json:"bytes"`
}

// BatchBytes are the bytes of a batch's uploads.
type BatchBytes struct {
	Expected int64 `json:"expected"`
	Received int64 `json:"received"`
	Safe     int64 `json:"safe"` // of uploads that are complete
}

// countedStatuses are those that uploads in a batch can have.
var countedStatuses = []storage.Status{
	storage.Pending, storage.Uploading, storage.Uploaded, storage.Processing, storage.Completed, storage.Failed,
	storage.Expired, storage.Cancelled,
}

// CountedBatchOf describes a batch and its totals.
func CountedBatchOf(b storage.Batch, t batch.Total) CountedBatch {
	counts := make(map[string]int64, len(countedStatuses)+1)
	for _, status := range countedStatuses {
		counts[string(status)] = t.ByStatus[status]
		counts["total"] += t.ByStatus[status]
	}
	return CountedBatch{BatchOf(b), counts, BatchBytes{t.Expected, t.Received, t.Safe}}
}
