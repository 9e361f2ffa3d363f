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

// TestWebhook enqueues a webhook.test for the endpoint.
func (a *API) TestWebhook(c echo.Context) error {
	return answerID(c, http.StatusAccepted, a.Webhooks.Test)
}

// ReplayDelivery sends a delivered or dead delivery again, under the same webhook-id.
func (a *API) ReplayDelivery(c echo.Context) error {
	delivery, err := pathID(c, "delivery")
	if err != nil {
		return err
	}
	return answerID(c, http.StatusAccepted, func(ctx context.Context, id uuid.UUID) (webhook.Delivery, error) {
		return a.Webhooks.Replay(ctx, id, delivery)
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
	return answerPage(c, uuid.Parse, func(ctx context.Context, before uuid.UUID, limit int) ([]webhook.Delivery, error) {
		p.Before, p.Limit = before, limit
		return a.Webhooks.Deliveries(ctx, p)
	}, func(d webhook.Delivery) uuid.UUID { return d.ID })
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
