package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// ErrTooMany says that the tenant has as many webhook endpoints as it may have.
var ErrTooMany = errors.New("too many webhook endpoints")

// Why a webhook endpoint is disabled.
const (
	DisabledByRequest = "request" // a manager did it
	DisabledGone      = "gone"    // it answered 410
	DisabledFailing   = "failing" // no attempt has succeeded for too long
)

// An Endpoint receives announcements of a tenant.
type Endpoint struct {
	ID             uuid.UUID  `db:"id" json:"id"`
	URL            string     `db:"url" json:"url"`
	Types          []string   `db:"types" json:"types"` // that it receives; nil for all
	Description    *string    `db:"description" json:"description"`
	Enabled        bool       `db:"enabled" json:"enabled"`
	CreatedBy      string     `db:"user_id" json:"created_by"`
	CreatedAt      time.Time  `db:"created_at" json:"created_at"`
	UpdatedAt      time.Time  `db:"updated_at" json:"updated_at"`
	FailingSince   *time.Time `db:"failing_since" json:"failing_since"` // the first of the attempts that failed since one succeeded
	HeldUntil      *time.Time `db:"held_until" json:"-"`                // it asked for no webhook before
	DisabledAt     *time.Time `db:"disabled_at" json:"disabled_at"`
	DisabledReason *string    `db:"disabled_reason" json:"disabled_reason"`
	// Until when webhooks are also signed with its previous secret.
	PreviousUntil *time.Time `db:"previous_until" json:"previous_secret_until"`
}

const selectEndpoint = `
	select e.id, e.url, nullif(e.types, '{}') types, e.description, e.disabled_at is null enabled, e.user_id, e.created_at, e.updated_at, e.failing_since, e.held_until,
		e.disabled_at, e.disabled_reason, (
			select max(s.valid_until) from webhook_secrets s
			where s.tenant_id = e.tenant_id and s.endpoint_id = e.id and s.valid_until > now()) previous_until
	from webhook_endpoints e `

// A NewEndpoint is a webhook endpoint to create.
type NewEndpoint struct {
	ID          uuid.UUID
	URL         string
	Types       []string // nil for all
	Description *string
	Secret      []byte // sealed
}

// insert adds an endpoint, unless the tenant has limit of them: [ErrTooMany].
func insert(ctx context.Context, tx storage.Tx, n NewEndpoint, limit int) error {
	if err := tx.LockTenant(ctx); err != nil { // so that two requests cannot both add the last one
		return err
	}
	if n.Types == nil {
		n.Types = []string{}
	}
	tag, err := tx.Exec(ctx, `
		insert into webhook_endpoints (tenant_id, id, url, types, description, user_id)
		select $1, $2, $3, $4, $5, $6 where (select count(*) from webhook_endpoints where tenant_id = $1) < $7`,
		tx.Tenant, n.ID, n.URL, n.Types, n.Description, tx.Who.User, limit)
	if err != nil {
		return fmt.Errorf("create webhook endpoint: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrTooMany
	}
	return addSecret(ctx, tx, n.ID, n.Secret)
}

func addSecret(ctx context.Context, tx storage.Tx, endpoint uuid.UUID, sealed []byte) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	_, err = storage.Exec(ctx, tx, "add webhook secret", `
		insert into webhook_secrets (tenant_id, endpoint_id, id, sealed) values ($1, $2, $3, $4)`, tx.Tenant, endpoint, id, sealed)
	return err
}

// rotate makes sealed the endpoint's secret. The previous one stays valid for overlap; the one before that becomes invalid.
func rotate(ctx context.Context, tx storage.Tx, id uuid.UUID, sealed []byte, overlap time.Duration) error {
	if err := lock(ctx, tx, id); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		update webhook_secrets set valid_until = case when valid_until is null then now() + $3::interval else now() end
		where tenant_id = $1 and endpoint_id = $2 and (valid_until is null or valid_until > now())`, tx.Tenant, id, overlap)
	if err != nil {
		return fmt.Errorf("retire webhook secret: %w", err)
	}
	return addSecret(ctx, tx, id, sealed)
}

// lock returns [storage.ErrNotFound] for an endpoint that the tenant does not have. It goes before the locks of
// deliveries, everywhere.
func lock(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
	var one int
	err := tx.QueryRow(ctx, `
		select 1 from webhook_endpoints where tenant_id = $1 and id = $2 for no key update`, tx.Tenant, id).Scan(&one)
	if err != nil {
		return fmt.Errorf("lock webhook endpoint: %w", storage.OrNotFound(err))
	}
	return nil
}

// find returns the endpoint, or [storage.ErrNotFound].
func find(ctx context.Context, tx storage.Tx, id uuid.UUID) (Endpoint, error) {
	rows, err := tx.Query(ctx, selectEndpoint+`where e.tenant_id = $1 and e.id = $2`, tx.Tenant, id)
	return storage.CollectOne[Endpoint]("read webhook endpoint", rows, err)
}

// list returns the tenant's endpoints, the oldest first. They are few.
func list(ctx context.Context, tx storage.Tx) ([]Endpoint, error) {
	rows, err := tx.Query(ctx, selectEndpoint+`where e.tenant_id = $1 order by e.id`, tx.Tenant)
	return storage.Collect[Endpoint]("list webhook endpoints", rows, err)
}

// update writes what a manager can change of the endpoint: URL, Types and Description.
func update(ctx context.Context, tx storage.Tx, w Endpoint) error {
	if w.Types == nil {
		w.Types = []string{}
	}
	n, err := storage.Exec(ctx, tx, "update webhook endpoint", `
		update webhook_endpoints set url = $3, types = $4, description = $5, updated_at = now()
		where tenant_id = $1 and id = $2`, tx.Tenant, w.ID, w.URL, w.Types, w.Description)
	if err == nil && n == 0 {
		err = storage.ErrNotFound
	}
	return err
}

// enable enables the endpoint, as if it had never failed. Deliveries that it missed stay dead letters until they are replayed.
func enable(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
	_, err := storage.Exec(ctx, tx, "enable webhook endpoint", `
		update webhook_endpoints
		set disabled_at = null, disabled_reason = null, failing_since = null, held_until = null, updated_at = now()
		where tenant_id = $1 and id = $2 and disabled_at is not null`, tx.Tenant, id)
	return err
}

// disable disables the endpoint. Its pending deliveries become dead letters.
func disable(ctx context.Context, tx storage.Tx, id uuid.UUID, reason string) error {
	_, err := tx.Exec(ctx, `
		update webhook_endpoints set disabled_at = now(), disabled_reason = $3, updated_at = now()
		where tenant_id = $1 and id = $2 and disabled_at is null`, tx.Tenant, id, reason)
	if err != nil {
		return fmt.Errorf("disable webhook endpoint: %w", err)
	}
	_, err = storage.Exec(ctx, tx, "end deliveries of webhook endpoint", `
		update webhook_deliveries
		set state = 'dead', last_error = $3, job_id = null, next_attempt_at = null, ended_at = now()
		where tenant_id = $1 and endpoint_id = $2 and state = 'pending'`, tx.Tenant, id, errorDisabled)
	return err
}

// remove removes the endpoint, its secrets and its deliveries, or returns [storage.ErrNotFound].
func remove(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
	n, err := storage.Exec(ctx, tx, "delete webhook endpoint", `delete from webhook_endpoints where tenant_id = $1 and id = $2`, tx.Tenant, id)
	if err == nil && n == 0 {
		err = storage.ErrNotFound
	}
	return err
}
