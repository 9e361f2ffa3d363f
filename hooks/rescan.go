package hooks

import (
	"context"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// rescanPage is how many rescans are enqueued in a transaction.
const rescanPage = 500

// Rescans asks for completed uploads to be scanned again.
type Rescans struct {
	DB     *storage.DB // as an operator
	Queue  *queue.Queue
	DryRun bool // only count
}

// Request enqueues those of a tenant's uploads that r is about and that do not wait already, a page in each transaction,
// and returns how many there are. What is cut off can be repeated: it goes on.
func (s *Rescans) Request(ctx context.Context, id uuid.UUID, r storage.Rescan) (count int, err error) {
	ctx = tenant.With(ctx, tenant.Identity{Tenant: id, User: processing.RescanUser, Role: tenant.Admin})
	for behind := uuid.Nil; ; {
		var found []uuid.UUID
		err := s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
			if found, err = tx.ToRescan(ctx, r, behind, rescanPage); err != nil || len(found) == 0 || s.DryRun {
				return err
			}
			if err := s.Queue.EnqueueRescans(ctx, tx, found...); err != nil {
				return err
			}
			return tx.Audit(ctx, storage.Audit{Action: storage.AuditUploadRescan, Detail: rescanDetail(r, len(found))})
		})
		if err != nil {
			return count, err
		}
		if count += len(found); len(found) < rescanPage {
			return count, nil
		}
		behind = found[len(found)-1]
	}
}

func rescanDetail(r storage.Rescan, uploads int) map[string]any {
	d := map[string]any{"since": r.Since.UTC(), "uploads": uploads}
	if !r.Until.IsZero() {
		d["until"] = r.Until.UTC()
	}
	if r.Signatures != 0 {
		d["signatures_before"] = r.Signatures
	}
	return d
}
