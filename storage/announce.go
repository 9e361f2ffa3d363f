package storage

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// An Announcement is something that happened and that others asked to be told of, by webhook or while they listen.
type Announcement struct {
	Type   string         // its object and what became of it, such as batch.completed; once used, it keeps its meaning
	Upload uuid.UUID      // that it is about; the zero id for none
	Batch  uuid.UUID      // that it is about; the zero id for none
	Detail map[string]any // whatever else belongs to the type; the tenant reads it
}

// Announce writes the announcement down, in the transaction that makes it true: so it is made once if that
// commits, and never otherwise.
func (tx Tx) Announce(ctx context.Context, a Announcement) error {
	if a.Detail == nil {
		a.Detail = map[string]any{}
	}
	var id uuid.UUID
	err := tx.QueryRow(ctx, `
		insert into announcements (tenant_id, type, upload_id, batch_id, detail, trace_id)
		values ($1, $2, $3, $4, $5, nullif($6, '')) returning id`,
		tx.Tenant, a.Type, OrNull(a.Upload), OrNull(a.Batch), a.Detail, TraceID(ctx)).Scan(&id)
	if err != nil {
		return fmt.Errorf("announce %s: %w", a.Type, err)
	}
	if !strings.HasPrefix(a.Type, aboutUploads) {
		tx.Changed(announced, id)
	}
	return nil
}
