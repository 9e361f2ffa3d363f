package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// webhookSecretJSON is an endpoint with its secret, which only the answers to creation and rotation have.
type webhookSecretJSON struct {
	webhook.Endpoint
	Secret string `json:"secret"`
}

// maxDescription bounds an endpoint's description, in bytes.
const maxDescription = 500

func checkTypes(types []string) error {
	for _, t := range types {
		if !webhook.KnownType(t) {
			return problem.BadRequest("types must be a list of %v, or null for all. %q is not a type.", storage.AnnouncementTypes(), t)
		}
	}
	return nil
}

func checkDescription(d *string) error {
	if d != nil && (len(*d) > maxDescription || !storage.IsText(*d)) {
		return problem.BadRequest("description must be UTF-8 text of at most %d bytes without NUL characters.", maxDescription)
	}
	return nil
}

// webhookProblem gives the error of a refused URL its row in the table of problems.
func webhookProblem(err error) error {
	var refused *webhook.URLError
	if errors.As(err, &refused) {
		return tenant.Refuse(problem.ErrWebhookURL, "%s", refused.Detail)
	}
	return err
}

// CreateWebhook adds an endpoint, and answers with it and its secret.
func (a *API) CreateWebhook(c echo.Context) error {
	var body struct {
		URL         string   `json:"url"`
		Types       []string `json:"types"`
		Description *string  `json:"description"`
	}
	if err := readFields(c, &body); err != nil {
		return err
	}
	if err := errors.Join(checkTypes(body.Types), checkDescription(body.Description)); err != nil {
		return err
	}
	w, secret, err := a.Webhooks.Create(c.Request().Context(), webhook.NewEndpoint{
		URL: body.URL, Types: body.Types, Description: body.Description,
	})
	if err != nil {
		return webhookProblem(err)
	}
	c.Response().Header().Set("Location", "/api/webhooks/"+w.ID.String())
	return answer(c, http.StatusCreated, webhookSecretJSON{w, secret})
}

// ListWebhooks answers with all endpoints, which are few.
func (a *API) ListWebhooks(c echo.Context) error {
	found, err := a.Webhooks.List(c.Request().Context())
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, listOf(found))
}

// GetWebhook answers with an endpoint.
func (a *API) GetWebhook(c echo.Context) error {
	return answerID(c, http.StatusOK, a.Webhooks.Find)
}

// UpdateWebhook changes the fields in the body. Types that are null become all types.
func (a *API) UpdateWebhook(c echo.Context) error {
	var body struct {
		URL         *string         `json:"url"`
		Types       json.RawMessage `json:"types"` // null is a value
		Description *string         `json:"description"`
		Enabled     *bool           `json:"enabled"`
	}
	if err := readFields(c, &body); err != nil {
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
	return answerID(c, http.StatusOK, func(ctx context.Context, id uuid.UUID) (webhook.Endpoint, error) {
		w, err := a.Webhooks.Update(ctx, id, change)
		return w, webhookProblem(err)
	})
}

// DeleteWebhook removes an endpoint.
func (a *API) DeleteWebhook(c echo.Context) error { return answerNothing(c, a.Webhooks.Delete) }

// How long a secret signs beside the one that replaced it.
const (
	defaultOverlap = 24 * time.Hour
	maxOverlap     = 7 * 24 * time.Hour
)

// RotateWebhook answers with a new secret. The body may be missing.
func (a *API) RotateWebhook(c echo.Context) error {
	body := struct {
		Overlap int64 `json:"overlap_seconds"`
	}{int64(defaultOverlap.Seconds())}
	if err := readFields(c, &body); err != nil {
		return err
	}
	if body.Overlap < 0 || body.Overlap > int64(maxOverlap.Seconds()) {
		return problem.BadRequest("overlap_seconds must be from 0 to %d.", int64(maxOverlap.Seconds()))
	}
	return answerID(c, http.StatusOK, func(ctx context.Context, id uuid.UUID) (webhookSecretJSON, error) {
		w, secret, err := a.Webhooks.Rotate(ctx, id, time.Duration(body.Overlap)*time.Second)
		return webhookSecretJSON{w, secret}, err
	})
}
