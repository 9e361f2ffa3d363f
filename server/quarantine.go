package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
)

func (s *Server) routeQuarantine(api *echo.Group) {
	api.GET("/admin/quarantine", s.listQuarantine)
	api.POST("/admin/quarantine/:id/release", s.releaseQuarantined)
	api.DELETE("/admin/quarantine/:id", s.eraseQuarantined)
}

// quarantinedJSON is an upload in quarantine as admins are told of it. Nothing in it leads to its content.
type quarantinedJSON struct {
	ID         uuid.UUID         `json:"id"`
	Project    string            `json:"project"`
	BatchID    *uuid.UUID        `json:"batch_id"`
	User       string            `json:"user"`
	Filename   *string           `json:"filename"`
	Size       int64             `json:"size"`
	UploadedAt *time.Time        `json:"uploaded_at"`
	Failure    *resource.Failure `json:"failure"`
	Scan       *resource.Scan    `json:"scan"`
}

func (s *Server) listQuarantine(c echo.Context) error {
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
	found, err := s.Quarantine.List(c.Request().Context(), before, limit)
	if err != nil {
		return err
	}
	items := make([]quarantinedJSON, len(found))
	for i, u := range found {
		items[i] = quarantinedJSON{
			ID: u.ID, Project: u.Project, BatchID: u.BatchID, User: u.UserID, Filename: u.Filename, Size: u.Size,
			UploadedAt: u.UploadedAt, Failure: resource.FailureOf(u), Scan: resource.ScanOf(u.Scanned),
		}
	}
	var next *uuid.UUID
	if len(found) == limit {
		next = &found[len(found)-1].ID
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, map[string]any{"items": items, "next": next})
}

// maxReleaseBody is more than any release has, in bytes.
const maxReleaseBody = 8 << 10

// releaseQuarantined answers with the upload, which is uploaded again.
func (s *Server) releaseQuarantined(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	var body struct {
		Reason string `json:"reason"`
	}
	d := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, maxReleaseBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		return problem.BadRequest(`The body must be {"reason": "why this file is safe"}, as JSON.`)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return problem.BadRequest("The body must be one JSON object and nothing behind it.")
	}
	ctx := c.Request().Context()
	if err := s.Quarantine.Release(ctx, id, body.Reason); err != nil {
		return err
	}
	answer, err := s.reader.Upload(ctx, id)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusAccepted, answer)
}

// eraseQuarantined answers with the erasure that removes the upload.
func (s *Server) eraseQuarantined(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	e, err := s.Quarantine.Erase(c.Request().Context(), id)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Location", "/api/erasures/"+e.ID.String())
	return answerErasure(c, http.StatusAccepted, e)
}
