package server

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
)

func (s *Server) routeUploads(api *echo.Group) {
	api.GET("/uploads", s.listUploads)
	api.GET("/uploads/:id", s.getUpload)
	api.GET("/uploads/:id/timeline", s.getTimeline)
	api.GET("/uploads/:id/tags", s.getTags)
	api.GET("/uploads/:id/receipt", s.getReceipt)
}

// getUpload tells an upload's state. It takes no lease and so never disturbs a running PATCH.
func (s *Server) getUpload(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	answer, err := s.reader.Upload(c.Request().Context(), id)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, answer)
}

// Bounds of the limit parameter.
const (
	defaultLimit = 50
	maxLimit     = 500
)

// listUploads tells one page of uploads, newest first. The cursor of the next page is the last one's id.
func (s *Server) listUploads(c echo.Context) error {
	page, err := parsePage(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	if page.Deleted, err = wantsDeleted(c); err != nil {
		return err
	}
	us, items, err := s.reader.Uploads(ctx, func(ctx context.Context, tx storage.Tx) ([]storage.Upload, error) {
		return tx.Uploads(ctx, page)
	})
	if err != nil {
		return err
	}
	if page.Near != nil {
		for i, u := range us {
			far := math.Round(page.Near.Distance(*u.Latitude, *u.Longitude)*10) / 10
			items[i].DistanceM = &far
		}
	}
	var next *uuid.UUID
	if len(items) == page.Limit {
		next = &items[len(items)-1].ID
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, map[string]any{"items": items, "next": next})
}

func parsePage(c echo.Context) (storage.Page, error) {
	p := storage.Page{
		Project: c.QueryParam("project"),
		Batch:   c.QueryParam("batch"),
		Status:  storage.Status(c.QueryParam("status")),
	}
	for _, name := range []string{"project", "batch"} {
		if v := c.QueryParam(name); !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			return p, problem.BadRequest("%s must be UTF-8 text without NUL characters.", name)
		}
	}
	if p.Status != "" && !p.Status.Known() {
		return p, problem.BadRequest("status must be one of an upload's: pending, uploading, uploaded, processing, completed, failed, expired, cancelled or joined.")
	}
	var err error
	if p.Near, err = parseNear(c.QueryParam("near")); err != nil {
		return p, err
	}
	if p.Taken, err = parseTaken(c.QueryParam("taken")); err != nil {
		return p, err
	}
	if p.Limit, err = parseLimit(c); err != nil {
		return p, err
	}
	if s := c.QueryParam("cursor"); s != "" {
		id, err := uuid.Parse(s)
		if err != nil {
			return p, errBadCursor
		}
		p.Before = id
	}
	return p, nil
}

var errBadCursor = problem.BadRequest("cursor must be what the page before told as next.")

func parseLimit(c echo.Context) (int, error) {
	s := c.QueryParam("limit")
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		return 0, problem.BadRequest("limit must be a number from 1 to %d.", maxLimit)
	}
	return n, nil
}
