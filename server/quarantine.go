package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/storage"
)

func (s *Server) routeQuarantine(api *echo.Group) {
	api.GET("/admin/quarantine", s.listQuarantine)
	api.POST("/admin/quarantine/:id/release", s.releaseQuarantined)
	api.DELETE("/admin/quarantine/:id", s.eraseQuarantined)
}

// scanJSON is what the virus scanner said of an upload, the last time that it was asked.
type scanJSON struct {
	Verdict    storage.ScanVerdict `json:"verdict"`
	Signature  *string             `json:"signature"`
	ScannedAt  *time.Time          `json:"scanned_at"`
	Engine     *string             `json:"engine"`
	Signatures *int64              `json:"signatures"` // the version of the scanner's daily database
	SignedAt   *time.Time          `json:"signed_at"`
	ReleasedAt *time.Time          `json:"released_at"` // when an admin let it out of quarantine last
}

func describeScan(s storage.Scanned) *scanJSON {
	if s.ScanVerdict == nil {
		return nil
	}
	return &scanJSON{
		Verdict: *s.ScanVerdict, Signature: s.ScanSignature, ScannedAt: s.ScannedAt, Engine: s.ScanEngine,
		Signatures: s.ScanSignatures, SignedAt: s.ScanSignedAt, ReleasedAt: s.ReleasedAt,
	}
}

// quarantinedJSON is an upload in quarantine as admins are told of it. Nothing in it leads to its content.
type quarantinedJSON struct {
	ID         uuid.UUID    `json:"id"`
	Project    string       `json:"project"`
	BatchID    *uuid.UUID   `json:"batch_id"`
	User       string       `json:"user"`
	Filename   *string      `json:"filename"`
	Size       int64        `json:"size"`
	UploadedAt *time.Time   `json:"uploaded_at"`
	Failure    *failureJSON `json:"failure"`
	Scan       *scanJSON    `json:"scan"`
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
			UploadedAt: u.UploadedAt, Failure: describeFailure(u), Scan: describeScan(u.Scanned),
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
		return errNotFound
	}
	var body struct {
		Reason string `json:"reason"`
	}
	d := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, maxReleaseBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil {
		return refuse(`The body must be {"reason": "why this file is safe"}, as JSON.`)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return refuse("The body must be one JSON object and nothing behind it.")
	}
	ctx := c.Request().Context()
	if err := s.Quarantine.Release(ctx, id, body.Reason); err != nil {
		return err
	}
	answer, err := s.readUpload(ctx, id)
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
		return errNotFound
	}
	e, err := s.Quarantine.Erase(c.Request().Context(), id)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Location", "/api/erasures/"+e.ID.String())
	return answerErasure(c, http.StatusAccepted, e)
}
