package hooks

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Why nothing leaves quarantine.
var (
	ErrNotQuarantined = storage.ErrNotQuarantined
	ErrBadReason      = errors.New("reason is not valid")
)

// maxReason is the longest reason, in bytes.
const maxReason = 1000

// Quarantine is what admins see and decide of uploads that the virus scan has found to be infected, or cannot look into.
type Quarantine struct {
	DB    *storage.DB
	Queue *queue.Queue
	Log   *slog.Logger
}

// List returns a page of what is in quarantine, newest first, of uploads that are older than before.
func (q *Quarantine) List(ctx context.Context, before uuid.UUID, limit int) (found []storage.Upload, err error) {
	if _, err := tenant.RequireAdmin(ctx); err != nil {
		return nil, err
	}
	err = q.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		found, err = tx.InQuarantine(ctx, before, limit)
		return err
	})
	return found, err
}

// Release lets an upload out of quarantine: it is processed again, and what it was found to be does not count any more. If
// the scan finds something else in it, it is back. Its object is brought back by whoever processes it.
func (q *Quarantine) Release(ctx context.Context, id uuid.UUID, reason string) error {
	if _, err := tenant.RequireAdmin(ctx); err != nil {
		return err
	}
	switch {
	case strings.TrimSpace(reason) == "":
		return refuse(ErrBadReason, `Say why this file is safe: {"reason": "…"}. The audit log keeps it.`)
	case len(reason) > maxReason || !storage.IsText(reason):
		return refuse(ErrBadReason, "reason must be UTF-8 text of at most %d bytes without NUL characters.", maxReason)
	}
	err := q.DB.InTenant(ctx, func(tx storage.Tx) error {
		u, err := tx.LockQuarantined(ctx, id)
		if err != nil {
			return err
		}
		if err := tx.Release(ctx, u, reason); err != nil {
			return err
		}
		return q.Queue.Enqueue(ctx, tx, id)
	})
	if errors.Is(err, storage.ErrDuplicateClientID) {
		return refuse(ErrClientIDTaken, "The file has been sent again since, as another upload with the same client_id. Delete that one first, if this one is wanted.")
	}
	return q.told(ctx, storage.AuditQuarantineRelease, id, err)
}

func (q *Quarantine) told(ctx context.Context, action string, id uuid.UUID, err error) error {
	if err == nil {
		q.Log.InfoContext(ctx, "quarantine", slog.String("action", action), slog.String("upload_id", id.String()), tenant.LogAttr(ctx))
	}
	return err
}
