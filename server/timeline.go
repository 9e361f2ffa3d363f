package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
)

// entryJSON is an entry of an upload's timeline. What an event has no use for is null.
type entryJSON struct {
	Event      storage.Event  `json:"event"`
	At         time.Time      `json:"at"`
	Offset     *int64         `json:"offset"` // of the upload then, bytes
	Replica    *string        `json:"replica"`
	DurationMS *int32         `json:"duration_ms"` // until at
	TraceID    *string        `json:"trace_id"`
	Detail     map[string]any `json:"detail"`
}

// getTimeline tells one page of what happened to an upload, the oldest first. The cursor of the next page
// is the last entry's number.
func (s *Server) getTimeline(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	limit, err := parseLimit(c)
	if err != nil {
		return err
	}
	var after int64
	if cursor := c.QueryParam("cursor"); cursor != "" {
		if after, err = strconv.ParseInt(cursor, 10, 64); err != nil || after < 0 {
			return errBadCursor
		}
	}
	ctx := c.Request().Context()
	var entries []storage.TimelineEntry
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		entries, err = tx.Timeline(ctx, id, after, limit)
		return err
	})
	if err != nil {
		return err
	}
	items := make([]entryJSON, len(entries))
	for i, e := range entries {
		items[i] = entryJSON{
			Event: e.Event, At: e.At, Offset: e.Offset, Replica: e.Replica, DurationMS: e.DurationMS, TraceID: e.TraceID, Detail: e.Detail,
		}
	}
	var next *string
	if len(entries) == limit {
		last := strconv.FormatInt(entries[len(entries)-1].Seq, 10)
		next = &last
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, map[string]any{"items": items, "next": next})
}
