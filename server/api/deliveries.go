package api

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/server/problem"
)

// deliveryJSON is an announcement on its way to an endpoint.
type deliveryJSON struct {
	ID            uuid.UUID             `json:"id"`
	WebhookID     uuid.UUID             `json:"webhook_id"` // the header Webhook-Id
	Type          string                `json:"type"`
	UploadID      *uuid.UUID            `json:"upload_id"`
	BatchID       *uuid.UUID            `json:"batch_id"`
	State         webhook.DeliveryState `json:"state"`
	Attempts      int                   `json:"attempts"`
	NextAttemptAt *time.Time            `json:"next_attempt_at"`
	LastAttemptAt *time.Time            `json:"last_attempt_at"`
	LastStatus    *int                  `json:"last_status"` // of HTTP; null if there was no answer
	LastError     *string               `json:"last_error"`
	LastMS        *int                  `json:"last_duration_ms"`
	TraceID       *string               `json:"trace_id"`
	CreatedAt     time.Time             `json:"created_at"`
	EndedAt       *time.Time            `json:"ended_at"`
}

func describeDelivery(d webhook.Delivery) deliveryJSON {
	return deliveryJSON{
		ID: d.ID, WebhookID: d.AnnouncementID, Type: d.Type, UploadID: d.UploadID, BatchID: d.BatchID, State: d.State,
		Attempts: d.Attempts, NextAttemptAt: d.NextAttemptAt, LastAttemptAt: d.LastAttemptAt, LastStatus: d.LastStatus,
		LastError: d.LastError, LastMS: d.LastMS, TraceID: d.TraceID, CreatedAt: d.CreatedAt, EndedAt: d.EndedAt,
	}
}

// TestWebhook enqueues a webhook.test for the endpoint.
func (a *API) TestWebhook(c echo.Context) error { return answerDelivery(c, a.Webhooks.Test) }

// ReplayDelivery sends a delivered or dead delivery again, under the same webhook-id.
func (a *API) ReplayDelivery(c echo.Context) error {
	delivery, err := pathID(c, "delivery")
	if err != nil {
		return err
	}
	return answerDelivery(c, func(ctx context.Context, id uuid.UUID) (webhook.Delivery, error) {
		return a.Webhooks.Replay(ctx, id, delivery)
	})
}

func answerDelivery(c echo.Context, do func(context.Context, uuid.UUID) (webhook.Delivery, error)) error {
	return answerID(c, http.StatusAccepted, func(ctx context.Context, id uuid.UUID) (deliveryJSON, error) {
		d, err := do(ctx, id)
		return describeDelivery(d), err
	})
}

// ListDeliveries answers with a page of an endpoint's deliveries, newest first.
func (a *API) ListDeliveries(c echo.Context) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	p := webhook.DeliveryPage{Endpoint: id, State: webhook.DeliveryState(c.QueryParam("state"))}
	if p.State != "" && !p.State.Known() {
		return problem.BadRequest("state must be pending, delivered or dead.")
	}
	return answerPage(c, uuid.Parse, func(ctx context.Context, before uuid.UUID, limit int) ([]deliveryJSON, error) {
		p.Before, p.Limit = before, limit
		found, err := a.Webhooks.Deliveries(ctx, p)
		return each(found, describeDelivery), err
	}, func(d deliveryJSON) uuid.UUID { return d.ID })
}

// ReplayDead sends all dead deliveries of an endpoint since a time again.
func (a *API) ReplayDead(c echo.Context) error {
	var body struct {
		Since *time.Time `json:"since"`
	}
	if err := readFields(c, &body); err != nil {
		return err
	}
	if body.Since == nil {
		return problem.BadRequest("since must be a time such as 2026-11-20T00:00:00Z.")
	}
	return answerID(c, http.StatusAccepted, func(ctx context.Context, id uuid.UUID) (map[string]int64, error) {
		n, err := a.Webhooks.ReplayDead(ctx, id, *body.Since)
		return map[string]int64{"replayed": n}, err
	})
}
