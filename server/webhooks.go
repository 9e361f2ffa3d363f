package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing/webhook"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

func (s *Server) routeWebhooks(api *echo.Group) {
	for _, route := range []struct {
		method, path string
		handle       echo.HandlerFunc
	}{
		{http.MethodPost, "", s.createWebhook},
		{http.MethodGet, "", s.listWebhooks},
		{http.MethodGet, "/:id", s.getWebhook},
		{http.MethodPatch, "/:id", s.updateWebhook},
		{http.MethodDelete, "/:id", s.deleteWebhook},
		{http.MethodPost, "/:id/rotate", s.rotateWebhook},
		{http.MethodPost, "/:id/test", s.testWebhook},
		{http.MethodGet, "/:id/deliveries", s.listDeliveries},
		{http.MethodPost, "/:id/deliveries/replay", s.replayDead},
		{http.MethodPost, "/:id/deliveries/:delivery/replay", s.replayDelivery},
	} {
		api.Add(route.method, "/webhooks"+route.path, route.handle, forWholeCompany)
	}
}

// forWholeCompany lets managers pass whose token covers all projects: an endpoint is told of all of them.
func forWholeCompany(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id, err := tenant.From(c.Request().Context())
		if err != nil {
			return err
		}
		if !id.Role.CanManage() || id.Projects != nil {
			return &hooks.Refusal{
				Cause:  hooks.ErrForbidden,
				Detail: "Webhooks are the whole company's. Ask a manager whose token covers all projects.",
			}
		}
		return next(c)
	}
}

// webhookJSON is an endpoint as the API tells it.
type webhookJSON struct {
	ID             uuid.UUID  `json:"id"`
	URL            string     `json:"url"`
	Types          []string   `json:"types"` // null for all
	Description    *string    `json:"description"`
	Enabled        bool       `json:"enabled"`
	DisabledAt     *time.Time `json:"disabled_at"`
	DisabledReason *string    `json:"disabled_reason"`
	FailingSince   *time.Time `json:"failing_since"`         // the first of the attempts that failed since one succeeded
	PreviousUntil  *time.Time `json:"previous_secret_until"` // until when the previous secret signs too
	CreatedBy      string     `json:"created_by"`
	CreatedAt      time.Time  `json:"created_at"`
	UpdatedAt      time.Time  `json:"updated_at"`
}

// webhookSecretJSON is the only answer that has the secret.
type webhookSecretJSON struct {
	webhookJSON
	Secret string `json:"secret"`
}

func describeWebhook(w storage.WebhookEndpoint) webhookJSON {
	if len(w.Types) == 0 {
		w.Types = nil
	}
	return webhookJSON{
		ID: w.ID, URL: w.URL, Types: w.Types, Description: w.Description, Enabled: w.DisabledAt == nil,
		DisabledAt: w.DisabledAt, DisabledReason: w.DisabledReason, FailingSince: w.FailingSince,
		PreviousUntil: w.PreviousUntil, CreatedBy: w.CreatedBy, CreatedAt: w.CreatedAt, UpdatedAt: w.UpdatedAt,
	}
}

// maxDescription bounds an endpoint's description, in bytes.
const maxDescription = 500

// readWebhookBody decodes a request's JSON object into v. A body that is empty leaves v as it is.
func readWebhookBody(c echo.Context, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, 64<<10))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil && d.More() {
		err = errors.New("more than one value")
	}
	if err != nil {
		return problem.BadRequest("The body must be one JSON object of the documented fields: %v.", err)
	}
	return nil
}

func checkTypes(types []string) error {
	for _, t := range types {
		if !webhook.KnownType(t) {
			return problem.BadRequest("types must be some of %v; leave it out, or null, for all. %q is none.", storage.AnnouncementTypes(), t)
		}
	}
	return nil
}

func checkDescription(d *string) error {
	if d != nil && (len(*d) > maxDescription || !utf8.ValidString(*d)) {
		return problem.BadRequest("description may have %d bytes of UTF-8.", maxDescription)
	}
	return nil
}

// createWebhook adds an endpoint. Its answer, and no other, has the secret.
func (s *Server) createWebhook(c echo.Context) error {
	var body struct {
		URL         string   `json:"url"`
		Types       []string `json:"types"`
		Description *string  `json:"description"`
	}
	if err := readWebhookBody(c, &body); err != nil {
		return err
	}
	if err := errors.Join(checkTypes(body.Types), checkDescription(body.Description)); err != nil {
		return err
	}
	w, secret, err := s.Webhooks.Create(c.Request().Context(), storage.NewWebhook{
		URL: body.URL, Types: body.Types, Description: body.Description,
	})
	if err != nil {
		return webhookProblem(err)
	}
	c.Response().Header().Set("Location", "/api/webhooks/"+w.ID.String())
	return noStore(c, http.StatusCreated, webhookSecretJSON{describeWebhook(w), secret})
}

// webhookProblem gives a refused URL its place in the table.
func webhookProblem(err error) error {
	var refused *webhook.URLError
	if errors.As(err, &refused) {
		return &hooks.Refusal{Cause: problem.ErrWebhookURL, Detail: refused.Detail}
	}
	return err
}

func noStore(c echo.Context, status int, v any) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(status, v)
}

// listWebhooks tells all endpoints, which are few.
func (s *Server) listWebhooks(c echo.Context) error {
	ctx := c.Request().Context()
	var ws []storage.WebhookEndpoint
	err := s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		ws, err = tx.Webhooks(ctx)
		return err
	})
	if err != nil {
		return err
	}
	items := make([]webhookJSON, len(ws))
	for i, w := range ws {
		items[i] = describeWebhook(w)
	}
	return noStore(c, http.StatusOK, map[string]any{"items": items, "next": nil})
}

func (s *Server) getWebhook(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	ctx := c.Request().Context()
	var w storage.WebhookEndpoint
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		w, err = tx.Webhook(ctx, id)
		return err
	})
	if err != nil {
		return err
	}
	return noStore(c, http.StatusOK, describeWebhook(w))
}

// updateWebhook changes what the body names. Types that are null become all.
func (s *Server) updateWebhook(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	var body struct {
		URL         *string         `json:"url"`
		Types       json.RawMessage `json:"types"` // null is a value
		Description *string         `json:"description"`
		Enabled     *bool           `json:"enabled"`
	}
	if err := readWebhookBody(c, &body); err != nil {
		return err
	}
	change := webhook.Change{URL: body.URL, Description: body.Description, Enabled: body.Enabled}
	if body.Types != nil {
		types := []string{}
		if err := json.Unmarshal(body.Types, &types); err != nil {
			return problem.BadRequest("types must be a list of types, or null for all.")
		}
		change.Types = &types
		if err := checkTypes(types); err != nil {
			return err
		}
	}
	if err := checkDescription(body.Description); err != nil {
		return err
	}
	w, err := s.Webhooks.Update(c.Request().Context(), id, change)
	if err != nil {
		return webhookProblem(err)
	}
	return noStore(c, http.StatusOK, describeWebhook(w))
}

func (s *Server) deleteWebhook(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	if err := s.Webhooks.Delete(c.Request().Context(), id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// How long a secret signs beside the one that replaced it.
const (
	defaultOverlap = 24 * time.Hour
	maxOverlap     = 7 * 24 * time.Hour
)

// rotateWebhook answers with a new secret, this once.
func (s *Server) rotateWebhook(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	body := struct {
		Overlap int64 `json:"overlap_seconds"`
	}{int64(defaultOverlap.Seconds())}
	if err := readWebhookBody(c, &body); err != nil {
		return err
	}
	if body.Overlap < 0 || body.Overlap > int64(maxOverlap.Seconds()) {
		return problem.BadRequest("overlap_seconds must be from 0 to %d.", int64(maxOverlap.Seconds()))
	}
	w, secret, err := s.Webhooks.Rotate(c.Request().Context(), id, time.Duration(body.Overlap)*time.Second)
	if err != nil {
		return err
	}
	return noStore(c, http.StatusOK, webhookSecretJSON{describeWebhook(w), secret})
}
