package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Tags are what a file says of itself, as it says it: an object of groups, each an object of names and values.
// docs/reference/facts.md says which.
type Tags struct {
	Tags      json.RawMessage `db:"tags" json:"tags"`           // nil or empty if there are none
	Truncated bool            `db:"truncated" json:"truncated"` // there were more
}

// putTags keeps tags of an upload; none, if there are none.
func (tx Tx) putTags(ctx context.Context, id uuid.UUID, t Tags) error {
	if len(t.Tags) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		insert into tags (tenant_id, upload_id, tags, truncated) values ($1, $2, $3, $4)
		on conflict (tenant_id, upload_id) do update set tags = excluded.tags, truncated = excluded.truncated`,
		tx.Tenant, id, t.Tags, t.Truncated)
	if err != nil {
		return fmt.Errorf("record tags: %w", err)
	}
	return nil
}

// Tags returns what the upload's file says of itself: an empty object, if it says nothing or is not completed. An upload
// that the tenant does not have is [ErrNotFound].
func (tx Tx) Tags(ctx context.Context, id uuid.UUID) (t Tags, err error) {
	err = tx.QueryRow(ctx, `
		select coalesce(t.tags, '{}'), coalesce(t.truncated, false)
		from uploads u left join tags t on t.tenant_id = u.tenant_id and t.upload_id = u.id
		where u.tenant_id = $1 and u.id = $2`, tx.Tenant, id).Scan(&t.Tags, &t.Truncated)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Tags{}, ErrNotFound
	case err != nil:
		return Tags{}, fmt.Errorf("read tags: %w", err)
	}
	return t, nil
}
