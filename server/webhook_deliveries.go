package server

import (
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
)

// deliveryJSON is one announcement on its way to an endpoint.
type deliveryJSON struct {
	ID            uuid.UUID             `json:"id"`
	WebhookID     uuid.UUID             `json:"webhook_id"` // the header that the receiver gets
	Type          string                `json:"type"`
	UploadID      *uuid.UUID            `json:"upload_id"`
	BatchID       *uuid.UUID            `json:"batch_id"`
	State         storage.DeliveryState `json:"state"`
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

func describeDelivery(d storage.Delivery) deliveryJSON {
	return deliveryJSON{
		ID: d.ID, WebhookID: d.AnnouncementID, Type: d.Type, UploadID: d.UploadID, BatchID: d.BatchID, State: d.State,
		Attempts: d.Attempts, NextAttemptAt: d.NextAttemptAt, LastAttemptAt: d.LastAttemptAt, LastStatus: d.LastStatus,
		LastError: d.LastError, LastMS: d.LastMS, TraceID: d.TraceID, CreatedAt: d.CreatedAt, EndedAt: d.EndedAt,
	}
}

// testWebhook sends webhook.test to the endpoint, soon.
func (s *Server) testWebhook(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	d, err := s.Webhooks.Test(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return noStore(c, http.StatusAccepted, describeDelivery(d))
}

// listDeliveries tells one page of an endpoint's deliveries, newest first. The cursor of the next page is the last
// one's id.
func (s *Server) listDeliveries(c echo.Context) error {
	page, err := parseDeliveryPage(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	var ds []storage.Delivery
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		ds, err = tx.Deliveries(ctx, page)
		return err
	})
	if err != nil {
		return err
	}
	items := make([]deliveryJSON, len(ds))
	for i, d := range ds {
		items[i] = describeDelivery(d)
	}
	var next *uuid.UUID
	if len(items) == page.Limit {
		next = &items[len(items)-1].ID
	}
	return noStore(c, http.StatusOK, map[string]any{"items": items, "next": next})
}

func parseDeliveryPage(c echo.Context) (p storage.DeliveryPage, err error) {
	if p.Endpoint, err = uuid.Parse(c.Param("id")); err != nil {
		return p, problem.ErrNotFound
	}
	p.State = storage.DeliveryState(c.QueryParam("state"))
	if p.State != "" && !p.State.Known() {
		return p, problem.BadRequest("state must be pending, delivered or dead.")
	}
	if p.Limit, err = parseLimit(c); err != nil {
		return p, err
	}
	if cursor := c.QueryParam("cursor"); cursor != "" {
		if p.Before, err = uuid.Parse(cursor); err != nil {
			return p, errBadCursor
		}
	}
	return p, nil
}

// replayDelivery delivers again what was delivered or is a dead letter, under the same webhook-id.
func (s *Server) replayDelivery(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	delivery, err := uuid.Parse(c.Param("delivery"))
	if err != nil {
		return problem.ErrNotFound
	}
	d, err := s.Webhooks.Replay(c.Request().Context(), id, delivery)
	if err != nil {
		return err
	}
	return noStore(c, http.StatusAccepted, describeDelivery(d))
}

// replayDead delivers again all dead letters of a time.
func (s *Server) replayDead(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	var body struct {
		Since *time.Time `json:"since"`
	}
	if err := readWebhookBody(c, &body); err != nil {
		return err
	}
	if body.Since == nil {
		return problem.BadRequest("since must say from when on, such as 2026-11-20T00:00:00Z.")
	}
	n, err := s.Webhooks.ReplayDead(c.Request().Context(), id, *body.Since)
	if err != nil {
		return err
	}
	return noStore(c, http.StatusAccepted, map[string]any{"replayed": n})
}
