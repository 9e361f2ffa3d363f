package api

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks/erasure"
)

// erasureJSON is an erasure.
type erasureJSON struct {
	ID          uuid.UUID     `json:"id"`
	Kind        erasure.Kind  `json:"kind"`
	Subject     *string       `json:"subject"` // the upload's id or the user's; null for the tenant
	State       erasure.State `json:"state"`
	RequestedBy string        `json:"requested_by"`
	RequestedAt time.Time     `json:"requested_at"`
	ApprovedBy  *string       `json:"approved_by"`
	ApprovedAt  *time.Time    `json:"approved_at"`
	CancelledBy *string       `json:"cancelled_by"`
	EndedAt     *time.Time    `json:"ended_at"`
	Uploads     int64         `json:"uploads"` // removed so far
	Objects     int64         `json:"objects"` // removed from S3 so far
}

func describeErasure(e erasure.Erasure) erasureJSON {
	return erasureJSON{
		ID: e.ID, Kind: e.Kind, Subject: e.Subject, State: e.State, RequestedBy: e.RequestedBy, RequestedAt: e.RequestedAt,
		ApprovedBy: e.ApprovedBy, ApprovedAt: e.ApprovedAt, CancelledBy: e.CancelledBy, EndedAt: e.EndedAt,
		Uploads: e.Uploads, Objects: e.Objects,
	}
}

// RequestErasure asks for an upload, a user's uploads or the tenant to be removed for good.
func (a *API) RequestErasure(c echo.Context) error {
	var body struct {
		Upload uuid.UUID `json:"upload"`
		User   string    `json:"user_id"`
		Tenant bool      `json:"tenant"`
	}
	if _, err := readJSON(c, &body); err != nil {
		return err
	}
	e, err := a.Erasures.Request(c.Request().Context(), erasure.Request(body))
	if err != nil {
		return err
	}
	return acceptErasure(c, e)
}

func acceptErasure(c echo.Context, e erasure.Erasure) error {
	c.Response().Header().Set("Location", "/api/erasures/"+e.ID.String())
	return answer(c, http.StatusAccepted, describeErasure(e))
}

// ListErasures answers with a page of erasures, newest first.
func (a *API) ListErasures(c echo.Context) error {
	return answerPage(c, uuid.Parse, func(ctx context.Context, before uuid.UUID, limit int) ([]erasureJSON, error) {
		found, err := a.Erasures.List(ctx, before, limit)
		return each(found, describeErasure), err
	}, func(e erasureJSON) uuid.UUID { return e.ID })
}

// GetErasure answers with an erasure.
func (a *API) GetErasure(c echo.Context) error {
	return answerErasure(c, http.StatusOK, a.Erasures.Find)
}

// ApproveErasure starts the erasure of a tenant that another admin asked for.
func (a *API) ApproveErasure(c echo.Context) error {
	return answerErasure(c, http.StatusAccepted, a.Erasures.Approve)
}

// CancelErasure takes back the request to erase a tenant.
func (a *API) CancelErasure(c echo.Context) error {
	return answerErasure(c, http.StatusOK, a.Erasures.Cancel)
}

func answerErasure(c echo.Context, status int, do func(context.Context, uuid.UUID) (erasure.Erasure, error)) error {
	return answerID(c, status, func(ctx context.Context, id uuid.UUID) (erasureJSON, error) {
		e, err := do(ctx, id)
		return describeErasure(e), err
	})
}
