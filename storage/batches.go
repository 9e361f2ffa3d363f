package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ErrBatchCancelled says that the batch was cancelled: nothing is added to it, and nothing in it begins again.
var ErrBatchCancelled = errors.New("batch was cancelled")

// A BatchState is a state in the life of a batch.
type BatchState string

// The states of a batch.
const (
	BatchOpen      BatchState = "open"      // something in it has not ended, or nothing is in it
	BatchCompleted BatchState = "completed" // all that is in it is completed, but for what was cancelled
	BatchFailed    BatchState = "failed"    // all that is in it has ended, and something failed or expired
	BatchCancelled BatchState = "cancelled" // an end: somebody who manages took it back
)

// Known reports whether s is one of the states.
func (s BatchState) Known() bool {
	switch s {
	case BatchOpen, BatchCompleted, BatchFailed, BatchCancelled:
		return true
	}
	return false
}

// A Batch is what is sent together: uploads of one project.
type Batch struct {
	ID          uuid.UUID  `db:"id" json:"id"`
	Project     string     `db:"project" json:"project"`
	Name        string     `db:"name" json:"name"`
	ClientID    *string    `db:"client_id" json:"client_id"` // the client's own name for it, unique in the project
	UserID      string     `db:"user_id" json:"user_id"`     // who made it
	Manifest    bool       `db:"manifest" json:"manifest"`   // its client sent a manifest
	State       BatchState `db:"state" json:"state"`
	CreatedAt   time.Time  `db:"created_at" json:"created_at"`
	UpdatedAt   time.Time  `db:"updated_at" json:"updated_at"`     // when it was last added to, renamed, ended or opened again
	CompletedAt *time.Time `db:"completed_at" json:"completed_at"` // when its last upload ended; nil while it is open
	CancelledAt *time.Time `db:"cancelled_at" json:"cancelled_at"`
}

// Label is what an upload in the batch says of it to those who know no ids: the client's own name, or else the name
// that the batch has now.
func (b Batch) Label() string {
	if b.ClientID != nil {
		return *b.ClientID
	}
	return b.Name
}

const selectBatch = `
	select b.id, b.project, b.name, b.client_id, b.user_id, b.manifest, b.created_at, b.updated_at, b.completed_at,
		b.cancelled_at, case when b.cancelled_at is not null then 'cancelled' when b.completed_at is null then 'open'
			when b.failed then 'failed' else 'completed' end as state
	from batches b`

// FindBatches returns the batches b that where selects. In it $1 is the tenant, and args begin at $2. It may end in an order
// and a limit.
func (tx Tx) FindBatches(ctx context.Context, where string, args ...any) ([]Batch, error) {
	rows, err := tx.Query(ctx, selectBatch+" "+where, append([]any{tx.Tenant}, args...)...)
	return Collect[Batch]("read batches", rows, err)
}

// A NewBatch is what is known of a batch when it is made.
type NewBatch struct {
	ID       uuid.UUID
	Project  string
	Name     string
	ClientID string // "" for none
	UserID   string
	Manifest bool // its client says what belongs to it
}

// BatchID returns the id that a client gives for a batch, or the zero id, which no batch has, for a name of the client's own.
// [uuid.Parse] takes other spellings as well, and returns a part of an id together with its error.
func BatchID(s string) uuid.UUID {
	id, err := uuid.Parse(s)
	if err != nil || !strings.EqualFold(id.String(), s) {
		return uuid.Nil
	}
	return id
}

// FindBatch returns the batch that a client names, or [ErrNotFound]: the one with that id, in whatever project, or else
// the one of the project that has that client id.
func (tx Tx) FindBatch(ctx context.Context, id uuid.UUID, project, clientID string) (Batch, error) {
	bs, err := tx.FindBatches(ctx, `
		where b.tenant_id = $1 and (b.id = $2 or (b.project = $3 and b.client_id = $4))
		order by b.id = $2 desc limit 1`, id, project, OrNull(clientID))
	if err == nil && len(bs) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Batch{}, err
	}
	return bs[0], nil
}

// MakeBatch makes a batch; made is false if the project has one with that client id already, which it returns. It comes
// before anything is locked: it may wait for somebody who makes the same batch, and who locks the tenant next. A tenant
// that is not there has no room for anything: [ErrQuotaExceeded].
func (tx Tx) MakeBatch(ctx context.Context, n NewBatch) (b Batch, made bool, err error) {
	tag, err := tx.Exec(ctx, `
		insert into batches (tenant_id, id, project, name, client_id, user_id, manifest)
		select id, $2, $3, $4, nullif($5, ''), $6, $7 from tenants where id = $1
		on conflict (tenant_id, project, client_id) where client_id is not null do nothing`,
		tx.Tenant, n.ID, n.Project, n.Name, n.ClientID, n.UserID, n.Manifest)
	if err != nil {
		return Batch{}, false, fmt.Errorf("make batch: %w", err)
	}
	b, err = tx.FindBatch(ctx, n.ID, n.Project, n.ClientID)
	if errors.Is(err, ErrNotFound) {
		return Batch{}, false, ErrQuotaExceeded
	}
	if tag.RowsAffected() == 1 {
		tx.Changed(BatchChanged, n.ID)
	}
	return b, tag.RowsAffected() == 1, err
}
