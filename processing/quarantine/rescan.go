package quarantine

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// RescanUser is the actor in the audit log when newer signatures find something.
const RescanUser = tenant.Rescan

// A Rescan says which completed uploads are to be scanned again.
type Rescan struct {
	Since      time.Time // those that were completed then or later
	Until      time.Time // and before; the zero time for all since
	Signatures int64     // only those that were scanned with older signatures than these, or with unknown ones; 0 for all
}

// rescanPage is how many rescans are enqueued in a transaction.
const rescanPage = 500

// Rescans requests rescans of completed uploads.
type Rescans struct {
	DB     *storage.DB // as an operator
	Queue  *queue.Queue
	DryRun bool // only count
}

// Request enqueues those of a tenant's uploads that r selects and that do not wait already, a page in each transaction, and
// returns how many there are. A request that is cut off can be repeated: it goes on.
func (s *Rescans) Request(ctx context.Context, owner uuid.UUID, r Rescan) (count int, err error) {
	ctx = tenant.With(ctx, tenant.Identity{Tenant: owner, User: RescanUser, Role: tenant.Admin})
	for after := uuid.Nil; ; {
		var page []uuid.UUID
		err := s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
			if page, err = r.find(ctx, tx, after, rescanPage); err != nil || len(page) == 0 || s.DryRun {
				return err
			}
			if err := s.Queue.EnqueueRescans(ctx, tx, page...); err != nil {
				return err
			}
			return tx.Audit(ctx, storage.Audit{Action: storage.AuditUploadRescan, Detail: r.detail(len(page))})
		})
		if err != nil {
			return count, err
		}
		if count += len(page); len(page) < rescanPage {
			return count, nil
		}
		after = page[len(page)-1]
	}
}

// find returns at most limit of the tenant's uploads that r selects, after the one named in the order of their ids, except those
// whose rescan waits already.
func (r Rescan) find(ctx context.Context, tx storage.Tx, after uuid.UUID, limit int) (ids []uuid.UUID, err error) {
	rows, err := tx.Query(ctx, `
		select u.id from uploads u left join scans s on s.tenant_id = u.tenant_id and s.upload_id = u.id
		where u.tenant_id = $1 and u.id > $2 and u.status = 'completed' and u.deleted_at is null
		  and u.completed_at >= $3 and ($4::timestamptz is null or u.completed_at < $4)
		  and ($5::bigint = 0 or s.signatures is null or s.signatures < $5)
		  and `+queue.NoRescanWaits+`
		order by u.id limit $6`, tx.Tenant, after, r.Since, storage.OrNull(r.Until), r.Signatures, limit)
	if err == nil {
		ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	}
	if err != nil {
		return nil, fmt.Errorf("find uploads to scan again: %w", err)
	}
	return ids, nil
}

func (r Rescan) detail(uploads int) map[string]any {
	d := map[string]any{"since": r.Since.UTC(), "uploads": uploads}
	if !r.Until.IsZero() {
		d["until"] = r.Until.UTC()
	}
	if r.Signatures != 0 {
		d["signatures_before"] = r.Signatures
	}
	return d
}
