package hooks

import (
	"context"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// CancelRows is what [Upload.Cancel] commits, if the lease is held.
func (s *Uploads) CancelRows(ctx context.Context, upload uuid.UUID) error {
	return s.cancel(ctx, upload, held)
}

// LoseRows is what happens to the rows of an upload of which S3 has lost bytes, if its lease is held.
func (s *Uploads) LoseRows(ctx context.Context, upload uuid.UUID) error {
	return s.lose(ctx, upload, held)
}

func held(context.Context, storage.Tx) error { return nil }
