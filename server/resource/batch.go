package resource

import (
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/storage"
)

// A CountedBatch is a batch with the totals of its uploads.
type CountedBatch struct {
	storage.Batch
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
	return CountedBatch{b, counts, BatchBytes{t.Expected, t.Received, t.Safe}}
}
