package webhook

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Why a change is refused.
var (
	ErrOff      = errors.New("webhooks are turned off")
	ErrDisabled = errors.New("webhook endpoint is disabled")
)

// MaxEndpoints is how many a tenant may have.
const MaxEndpoints = 10

// Endpoints manages the endpoints of tenants; each change is audited. Its callers have checked who may.
type Endpoints struct {
	DB    *storage.DB
	Guard *Guard
	Vault *Vault // nil where webhooks are off
}

// A Change names what is to change of an endpoint. A nil field stays as it is.
type Change struct {
	URL         *string
	Types       *[]string // empty for all
	Description *string
	Enabled     *bool
}

// Create adds an endpoint and returns its secret, which is shown only once.
func (m *Endpoints) Create(ctx context.Context, n NewEndpoint) (w Endpoint, secret string, err error) {
	if m.Vault == nil {
		return w, "", ErrOff
	}
	who, err := tenant.From(ctx)
	if err != nil {
		return w, "", err
	}
	if err := m.Guard.CheckURL(ctx, n.URL); err != nil {
		return w, "", err
	}
	if n.ID, err = uuid.NewV7(); err != nil {
		return w, "", err
	}
	secret = newSecret()
	n.Secret = m.Vault.seal(who.Tenant, n.ID, secret)
	w, err = storage.InTenant(ctx, m.DB, func(tx storage.Tx) (w Endpoint, err error) {
		if err := insert(ctx, tx, n, MaxEndpoints); err != nil {
			return w, err
		}
		if err := audit(ctx, tx, storage.AuditWebhookCreate, n.ID, map[string]any{"host": hostOf(n.URL), "types": n.Types}); err != nil {
			return w, err
		}
		return find(ctx, tx, n.ID)
	})
	return w, secret, err
}

// Update changes the endpoint, or returns [storage.ErrNotFound].
func (m *Endpoints) Update(ctx context.Context, id uuid.UUID, c Change) (w Endpoint, err error) {
	if c.URL != nil {
		if err := m.Guard.CheckURL(ctx, *c.URL); err != nil {
			return w, err
		}
	}
	return storage.InTenant(ctx, m.DB, func(tx storage.Tx) (Endpoint, error) {
		w, err := find(ctx, tx, id)
		if err != nil {
			return w, err
		}
		detail := c.apply(&w)
		if err := update(ctx, tx, w); err != nil {
			return w, err
		}
		if err := setEnabled(ctx, tx, id, c.Enabled); err != nil {
			return w, err
		}
		if err := audit(ctx, tx, storage.AuditWebhookUpdate, id, detail); err != nil {
			return w, err
		}
		return find(ctx, tx, id)
	})
}

// apply changes w and returns what the audit log is told.
func (c Change) apply(w *Endpoint) map[string]any {
	detail := map[string]any{}
	if c.URL != nil {
		w.URL, detail["host"] = *c.URL, hostOf(*c.URL)
	}
	if c.Types != nil {
		w.Types, detail["types"] = *c.Types, *c.Types
	}
	if c.Description != nil {
		w.Description, detail["description"] = c.Description, true
	}
	if c.Enabled != nil {
		detail["enabled"] = *c.Enabled
	}
	return detail
}

func setEnabled(ctx context.Context, tx storage.Tx, id uuid.UUID, yes *bool) error {
	switch {
	case yes == nil:
		return nil
	case *yes:
		return enable(ctx, tx, id)
	}
	return disable(ctx, tx, id, DisabledByRequest)
}

// List returns the tenant's endpoints, the oldest first. There are few.
func (m *Endpoints) List(ctx context.Context) ([]Endpoint, error) {
	return storage.InTenant(ctx, m.DB, func(tx storage.Tx) ([]Endpoint, error) { return list(ctx, tx) })
}

// Find returns the endpoint, or [storage.ErrNotFound].
func (m *Endpoints) Find(ctx context.Context, id uuid.UUID) (Endpoint, error) {
	return storage.InTenant(ctx, m.DB, func(tx storage.Tx) (Endpoint, error) { return find(ctx, tx, id) })
}

// Deliveries returns one page of an endpoint's; an endpoint that the tenant does not have is [storage.ErrNotFound].
func (m *Endpoints) Deliveries(ctx context.Context, p DeliveryPage) ([]Delivery, error) {
	return storage.InTenant(ctx, m.DB, func(tx storage.Tx) ([]Delivery, error) { return listDeliveries(ctx, tx, p) })
}

// Delete removes the endpoint with all its deliveries, or returns [storage.ErrNotFound].
func (m *Endpoints) Delete(ctx context.Context, id uuid.UUID) error {
	return m.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := remove(ctx, tx, id); err != nil {
			return err
		}
		return audit(ctx, tx, storage.AuditWebhookDelete, id, nil)
	})
}

// Rotate gives the endpoint another secret and returns it, this once. Webhooks are also signed with the previous one for overlap.
func (m *Endpoints) Rotate(ctx context.Context, id uuid.UUID, overlap time.Duration) (w Endpoint, secret string, err error) {
	if m.Vault == nil {
		return w, "", ErrOff
	}
	who, err := tenant.From(ctx)
	if err != nil {
		return w, "", err
	}
	secret = newSecret()
	w, err = storage.InTenant(ctx, m.DB, func(tx storage.Tx) (w Endpoint, err error) {
		if err := rotate(ctx, tx, id, m.Vault.seal(who.Tenant, id, secret), overlap); err != nil {
			return w, err
		}
		if err := audit(ctx, tx, storage.AuditWebhookRotate, id, map[string]any{"overlap_seconds": int64(overlap.Seconds())}); err != nil {
			return w, err
		}
		return find(ctx, tx, id)
	})
	return w, secret, err
}

// Test sends webhook.test to the endpoint.
func (m *Endpoints) Test(ctx context.Context, id uuid.UUID) (d Delivery, err error) {
	err = m.deliver(ctx, id, storage.AuditWebhookTest, func(tx storage.Tx) (map[string]any, error) {
		delivery, err := announceTest(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		d, err = findDelivery(ctx, tx, id, delivery)
		return nil, err
	})
	return d, err
}

// Replay restarts a delivery that ended.
func (m *Endpoints) Replay(ctx context.Context, id, delivery uuid.UUID) (d Delivery, err error) {
	err = m.deliver(ctx, id, storage.AuditWebhookReplay, func(tx storage.Tx) (map[string]any, error) {
		if err := replay(ctx, tx, id, delivery); err != nil {
			return nil, err
		}
		d, err = findDelivery(ctx, tx, id, delivery)
		return map[string]any{"delivery_id": delivery}, err
	})
	return d, err
}

// ReplayDead restarts all dead letters created at since or later, and returns how many.
func (m *Endpoints) ReplayDead(ctx context.Context, id uuid.UUID, since time.Time) (n int64, err error) {
	err = m.deliver(ctx, id, storage.AuditWebhookReplay, func(tx storage.Tx) (detail map[string]any, err error) {
		n, err = replayDead(ctx, tx, id, since)
		return map[string]any{"since": since, "deliveries": n}, err
	})
	return n, err
}

// deliver has fn make deliveries for the endpoint, which must be enabled.
func (m *Endpoints) deliver(ctx context.Context, id uuid.UUID, action string, fn func(storage.Tx) (map[string]any, error)) error {
	if m.Vault == nil {
		return ErrOff
	}
	return m.DB.InTenant(ctx, func(tx storage.Tx) error {
		w, err := find(ctx, tx, id)
		if err != nil {
			return err
		}
		if !w.Enabled {
			return ErrDisabled
		}
		detail, err := fn(tx)
		if err != nil {
			return err
		}
		return audit(ctx, tx, action, id, detail)
	})
}

func audit(ctx context.Context, tx storage.Tx, action string, id uuid.UUID, detail map[string]any) error {
	return tx.Audit(ctx, storage.Audit{Action: action, Subject: id.String(), Detail: detail})
}

// hostOf leaves out the rest of a URL, which may contain a token.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Host
}

// KnownType reports whether an endpoint can choose the type.
func KnownType(t string) bool { return slices.Contains(storage.AnnouncementTypes(), t) }
