package hooks

import (
	"context"

	"github.com/google/uuid"
)

// CancelRows is what [Upload.Cancel] commits.
func (s *Uploads) CancelRows(ctx context.Context, upload uuid.UUID) error {
	return s.cancel(ctx, upload)
}

// LoseRows is what happens to the rows of an upload of which S3 has lost bytes.
func (s *Uploads) LoseRows(ctx context.Context, upload uuid.UUID) error { return s.lose(ctx, upload) }
