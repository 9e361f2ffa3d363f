package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ErrTooManyWebhooks says that the tenant has as many webhook endpoints as it may have.
var ErrTooManyWebhooks = errors.New("too many webhook endpoints")

// Why a webhook endpoint is disabled.
const (
	DisabledByRequest = "request" // a manager did it
	DisabledGone      = "gone"    // it answered 410
	DisabledFailing   = "failing" // no attempt has succeeded for too long
)

// A WebhookEndpoint is where a tenant wants to be told of announcements.
type WebhookEndpoint struct {
	ID             uuid.UUID  `db:"id"`
	URL            string     `db:"url"`
	Types          []string   `db:"types"` // that it wants; empty for all
	Description    *string    `db:"description"`
	CreatedBy      string     `db:"user_id"`
	CreatedAt      time.Time  `db:"created_at"`
	UpdatedAt      time.Time  `db:"updated_at"`
	FailingSince   *time.Time `db:"failing_since"` // the first of the attempts that failed since one succeeded
	HeldUntil      *time.Time `db:"held_until"`    // it asked for no more before
	DisabledAt     *time.Time `db:"disabled_at"`
	DisabledReason *string    `db:"disabled_reason"`
	// Until when its previous secret signs beside the current one.
	PreviousUntil *time.Time `db:"previous_until"`
}

const selectWebhook = `
	select e.id, e.url, e.types, e.description, e.user_id, e.created_at, e.updated_at, e.failing_since, e.held_until,
		e.disabled_at, e.disabled_reason, (
			select max(s.valid_until) from webhook_secrets s
			where s.tenant_id = e.tenant_id and s.endpoint_id = e.id and s.valid_until > now()) previous_until
	from webhook_endpoints e `

// A NewWebhook is what is known of a webhook endpoint when it is created.
type NewWebhook struct {
	ID          uuid.UUID
	URL         string
	Types       []string // nil for all
	Description *string
	Secret      []byte // sealed
}

// CreateWebhook adds an endpoint, unless the tenant has limit of them: [ErrTooManyWebhooks].
func (tx Tx) CreateWebhook(ctx context.Context, n NewWebhook, limit int) error {
	if err := tx.LockTenant(ctx); err != nil { // so that two do not both take the last place
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
		return ErrTooManyWebhooks
	}
	return tx.addSecret(ctx, n.ID, n.Secret)
}

func (tx Tx) addSecret(ctx context.Context, endpoint uuid.UUID, sealed []byte) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		insert into webhook_secrets (tenant_id, endpoint_id, id, sealed) values ($1, $2, $3, $4)`, tx.Tenant, endpoint, id, sealed)
	if err != nil {
		return fmt.Errorf("add webhook secret: %w", err)
	}
	return nil
}

// RotateWebhook makes sealed the endpoint's secret. The one before it is good for overlap longer; one before that, no
// more.
func (tx Tx) RotateWebhook(ctx context.Context, id uuid.UUID, sealed []byte, overlap time.Duration) error {
	if err := tx.lockWebhook(ctx, id); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		update webhook_secrets set valid_until = case when valid_until is null then now() + $3::interval else now() end
		where tenant_id = $1 and endpoint_id = $2 and (valid_until is null or valid_until > now())`, tx.Tenant, id, overlap)
	if err != nil {
		return fmt.Errorf("retire webhook secret: %w", err)
	}
	return tx.addSecret(ctx, id, sealed)
}

// lockWebhook returns [ErrNotFound] for an endpoint that the tenant does not have. It goes before the locks of
// deliveries, everywhere.
func (tx Tx) lockWebhook(ctx context.Context, id uuid.UUID) error {
	var one int
	err := tx.QueryRow(ctx, `
		select 1 from webhook_endpoints where tenant_id = $1 and id = $2 for no key update`, tx.Tenant, id).Scan(&one)
	if err != nil {
		return fmt.Errorf("lock webhook endpoint: %w", OrNotFound(err))
	}
	return nil
}

// Webhook returns the endpoint, or [ErrNotFound].
func (tx Tx) Webhook(ctx context.Context, id uuid.UUID) (WebhookEndpoint, error) {
	rows, err := tx.Query(ctx, selectWebhook+`where e.tenant_id = $1 and e.id = $2`, tx.Tenant, id)
	if err != nil {
		return WebhookEndpoint{}, fmt.Errorf("read webhook endpoint: %w", err)
	}
	w, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[WebhookEndpoint])
	if err != nil {
		return WebhookEndpoint{}, fmt.Errorf("read webhook endpoint: %w", OrNotFound(err))
	}
	return w, nil
}

// Webhooks returns the tenant's endpoints, the oldest first. They are few.
func (tx Tx) Webhooks(ctx context.Context) ([]WebhookEndpoint, error) {
	rows, err := tx.Query(ctx, selectWebhook+`where e.tenant_id = $1 order by e.id`, tx.Tenant)
	if err != nil {
		return nil, fmt.Errorf("list webhook endpoints: %w", err)
	}
	ws, err := pgx.CollectRows(rows, pgx.RowToStructByName[WebhookEndpoint])
	if err != nil {
		return nil, fmt.Errorf("list webhook endpoints: %w", err)
	}
	return ws, nil
}

// UpdateWebhook writes what a manager can change of the endpoint: URL, Types and Description.
func (tx Tx) UpdateWebhook(ctx context.Context, w WebhookEndpoint) error {
	if w.Types == nil {
		w.Types = []string{}
	}
	tag, err := tx.Exec(ctx, `
		update webhook_endpoints set url = $3, types = $4, description = $5, updated_at = now()
		where tenant_id = $1 and id = $2`, tx.Tenant, w.ID, w.URL, w.Types, w.Description)
	if err != nil {
		return fmt.Errorf("update webhook endpoint: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNotFound
	}
	return nil
}

// EnableWebhook lets the endpoint be told again, as if it had never failed. What it missed stays a dead letter until it
// is replayed.
func (tx Tx) EnableWebhook(ctx context.Context, id uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		update webhook_endpoints
		set disabled_at = null, disabled_reason = null, failing_since = null, held_until = null, updated_at = now()
		where tenant_id = $1 and id = $2 and disabled_at is not null`, tx.Tenant, id)
	if err != nil {
		return fmt.Errorf("enable webhook endpoint: %w", err)
	}
	return nil
}

// DisableWebhook stops telling the endpoint. What it has not been told of becomes dead letters.
func (tx Tx) DisableWebhook(ctx context.Context, id uuid.UUID, reason string) error {
	_, err := tx.Exec(ctx, `
		update webhook_endpoints set disabled_at = now(), disabled_reason = $3, updated_at = now()
		where tenant_id = $1 and id = $2 and disabled_at is null`, tx.Tenant, id, reason)
	if err != nil {
		return fmt.Errorf("disable webhook endpoint: %w", err)
	}
	_, err = tx.Exec(ctx, `
		update webhook_deliveries
		set state = 'dead', last_error = $3, job_id = null, next_attempt_at = null, ended_at = now()
		where tenant_id = $1 and endpoint_id = $2 and state = 'pending'`, tx.Tenant, id, WebhookErrorDisabled)
	if err != nil {
		return fmt.Errorf("bury deliveries of webhook endpoint: %w", err)
	}
	return nil
}

// DeleteWebhook removes the endpoint, its secrets and its deliveries, or returns [ErrNotFound].
func (tx Tx) DeleteWebhook(ctx context.Context, id uuid.UUID) error {
	tag, err := tx.Exec(ctx, `delete from webhook_endpoints where tenant_id = $1 and id = $2`, tx.Tenant, id)
	if err != nil {
		return fmt.Errorf("delete webhook endpoint: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return ErrNotFound
	}
	return nil
}
