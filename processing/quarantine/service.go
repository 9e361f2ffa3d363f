package quarantine

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

// ErrBadReason says that a release has no reason, or one that is not valid.
var ErrBadReason = errors.New("reason is not valid")

// maxReason is the longest reason, in bytes.
const maxReason = 1000

// A Service takes the decisions of admins about uploads in quarantine. Package erasure erases them.
type Service struct {
	DB    *storage.DB
	Queue *queue.Queue
	Log   *slog.Logger
}

// List returns a page of the uploads in quarantine, newest first, that are older than before (the zero id: from the newest).
func (s *Service) List(ctx context.Context, before uuid.UUID, limit int) (found []storage.Upload, err error) {
	if _, err := tenant.RequireAdmin(ctx); err != nil {
		return nil, err
	}
	if before == uuid.Nil {
		before = uuid.Max
	}
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		found, err = tx.FindUploads(ctx, `where u.tenant_id = $1 and u.id < $2 and `+quarantined+` order by u.id desc limit $3`, before, limit)
		return err
	})
	return found, err
}

// Release releases an upload from quarantine: it is processed again, and the signature that was found in it does not count any
// more. If the scan finds another signature, the upload is quarantined again. Processing moves its object out of quarantine.
func (s *Service) Release(ctx context.Context, id uuid.UUID, reason string) error {
	if _, err := tenant.RequireAdmin(ctx); err != nil {
		return err
	}
	switch {
	case strings.TrimSpace(reason) == "":
		return tenant.Refuse(ErrBadReason, `Say why this file is safe: {"reason": "…"}. The audit log keeps it.`)
	case len(reason) > maxReason || !storage.IsText(reason):
		return tenant.Refuse(ErrBadReason, "reason must be UTF-8 text of at most %d bytes without NUL characters.", maxReason)
	}
	err := s.DB.InTenant(ctx, func(tx storage.Tx) error {
		u, err := Lock(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := release(ctx, tx, u, reason); err != nil {
			return err
		}
		return s.Queue.Enqueue(ctx, tx, id)
	})
	if errors.Is(err, storage.ErrDuplicateClientID) {
		return tenant.Refuse(err, "The file has been sent again since, as another upload with the same client_id. Delete that one first, if this one is wanted.")
	}
	if err == nil {
		s.Log.InfoContext(ctx, "upload released from quarantine", slog.String("upload_id", id.String()), tenant.LogAttr(ctx))
	}
	return err
}
