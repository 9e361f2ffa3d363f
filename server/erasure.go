package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

func (s *Server) routeErasure(api *echo.Group) {
	api.POST("/uploads/:id/restore", s.restoreUpload)
	api.POST("/erasures", s.requestErasure)
	api.GET("/erasures", s.listErasures)
	api.GET("/erasures/:id", s.getErasure)
	api.POST("/erasures/:id/approve", s.approveErasure)
	api.POST("/erasures/:id/cancel", s.cancelErasure)
	api.GET("/tenants/:id/export", s.exportTenant)
}

// wantsDeleted reads the parameter deleted, which is for managers: for others, what is deleted does not exist.
func wantsDeleted(c echo.Context) (bool, error) {
	v := c.QueryParam("deleted")
	if v == "" {
		return false, nil
	}
	deleted, err := strconv.ParseBool(v)
	if err != nil {
		return false, problem.BadRequest("deleted must be true or false.")
	}
	who, err := tenant.From(c.Request().Context())
	if err == nil && deleted && !who.Role.CanManage() {
		return false, &hooks.Refusal{Cause: hooks.ErrForbidden, Detail: "Only a manager of the company sees what is deleted."}
	}
	return deleted, err
}

// restoreUpload answers with the upload as it is again.
func (s *Server) restoreUpload(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	if err := s.Erasures.Restore(c.Request().Context(), id); err != nil {
		return err
	}
	return s.getUpload(c)
}

// erasureJSON is an erasure as the API tells it.
type erasureJSON struct {
	ID          uuid.UUID            `json:"id"`
	Kind        string               `json:"kind"`
	Subject     *string              `json:"subject"` // the upload's id or the user's; null for the tenant
	State       storage.ErasureState `json:"state"`
	RequestedBy string               `json:"requested_by"`
	RequestedAt time.Time            `json:"requested_at"`
	ApprovedBy  *string              `json:"approved_by"`
	ApprovedAt  *time.Time           `json:"approved_at"`
	CancelledBy *string              `json:"cancelled_by"`
	EndedAt     *time.Time           `json:"ended_at"`
	Uploads     int64                `json:"uploads"` // removed so far
	Objects     int64                `json:"objects"` // removed from S3 so far
}

func describeErasure(e storage.Erasure) erasureJSON {
	return erasureJSON{
		ID: e.ID, Kind: e.Kind, Subject: e.Subject, State: e.State, RequestedBy: e.RequestedBy, RequestedAt: e.RequestedAt,
		ApprovedBy: e.ApprovedBy, ApprovedAt: e.ApprovedAt, CancelledBy: e.CancelledBy, EndedAt: e.EndedAt,
		Uploads: e.Uploads, Objects: e.Objects,
	}
}

func answerErasure(c echo.Context, status int, e storage.Erasure) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(status, describeErasure(e))
}

// maxErasureBody is more than any request for an erasure has, in bytes.
const maxErasureBody = 4 << 10

func (s *Server) requestErasure(c echo.Context) error {
	var body struct {
		Upload uuid.UUID `json:"upload"`
		User   string    `json:"user"`
		Tenant bool      `json:"tenant"`
	}
	d := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, maxErasureBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		return problem.BadRequest(`The body must be one of {"upload": ID}, {"user": ID} and {"tenant": true}, as JSON.`)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return problem.BadRequest("The body must be one JSON object and nothing behind it.")
	}
	e, err := s.Erasures.Request(c.Request().Context(), hooks.EraseRequest{Upload: body.Upload, User: body.User, Tenant: body.Tenant})
	if err != nil {
		return err
	}
	c.Response().Header().Set("Location", "/api/erasures/"+e.ID.String())
	return answerErasure(c, http.StatusAccepted, e)
}

func (s *Server) listErasures(c echo.Context) error {
	limit, err := parseLimit(c)
	if err != nil {
		return err
	}
	var before uuid.UUID
	if cursor := c.QueryParam("cursor"); cursor != "" {
		if before, err = uuid.Parse(cursor); err != nil {
			return errBadCursor
		}
	}
	found, err := s.Erasures.List(c.Request().Context(), before, limit)
	if err != nil {
		return err
	}
	items := make([]erasureJSON, len(found))
	for i, e := range found {
		items[i] = describeErasure(e)
	}
	var next *uuid.UUID
	if len(found) == limit {
		next = &found[len(found)-1].ID
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, map[string]any{"items": items, "next": next})
}

func (s *Server) getErasure(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	e, err := s.Erasures.Find(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return answerErasure(c, http.StatusOK, e)
}

func (s *Server) approveErasure(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	e, err := s.Erasures.Approve(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return answerErasure(c, http.StatusAccepted, e)
}

func (s *Server) cancelErasure(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	e, err := s.Erasures.Cancel(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return answerErasure(c, http.StatusOK, e)
}
