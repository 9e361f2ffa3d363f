package api

import (
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks/erasure"
)

// RequestErasure asks for an upload, a user's uploads or the tenant to be removed for good.
func (a *API) RequestErasure(c echo.Context) error {
	var body struct {
		Upload uuid.UUID `json:"upload_id"`
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
	return answer(c, http.StatusAccepted, e)
}

// ListErasures answers with a page of erasures, newest first.
func (a *API) ListErasures(c echo.Context) error {
	return answerPage(c, uuid.Parse, a.Erasures.List, func(e erasure.Erasure) uuid.UUID { return e.ID })
}

// GetErasure answers with an erasure.
func (a *API) GetErasure(c echo.Context) error {
	return answerID(c, http.StatusOK, a.Erasures.Find)
}

// ApproveErasure starts the erasure of a tenant that another admin asked for.
func (a *API) ApproveErasure(c echo.Context) error {
	return answerID(c, http.StatusAccepted, a.Erasures.Approve)
}

// CancelErasure takes back the request to erase a tenant.
func (a *API) CancelErasure(c echo.Context) error {
	return answerID(c, http.StatusOK, a.Erasures.Cancel)
}
