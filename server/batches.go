package server

import (
	"context"
	"net/http"
	"strings"
	"time"
	_ "time/tzdata" // days are those of a site, wherever this runs
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
)

// BatchesPath is where batches live.
const BatchesPath = "/api/batches"

func (s *Server) routeBatches(api *echo.Group) {
	api.POST("/batches", s.createBatch)
	api.GET("/batches", s.listBatches)
	api.GET("/batches/:id", s.getBatch)
	api.PATCH("/batches/:id", s.renameBatch)
	api.POST("/batches/:id/uploads", s.addToBatch)
	api.POST("/batches/:id/retry", s.retryBatch)
	api.POST("/batches/:id/cancel", s.cancelBatch)
	api.POST("/uploads/:id/retry", s.retryUpload)
}

// batchDetailJSON is a batch with what needs somebody's attention.
type batchDetailJSON struct {
	resource.CountedBatch
	Stuck  troubleJSON `json:"stuck"`
	Failed troubleJSON `json:"failed"`
}

// troubleJSON has the first of Count uploads.
type troubleJSON struct {
	Count int64               `json:"count"`
	Items []troubleUploadJSON `json:"items"`
}

// maxTrouble is how many uploads a list of trouble has at most.
const maxTrouble = 100

// troubleUploadJSON is an upload that needs somebody's attention.
type troubleUploadJSON struct {
	ID         uuid.UUID         `json:"id"`
	ClientID   *string           `json:"client_id"`
	UserID     string            `json:"user_id"`
	Filename   *string           `json:"filename"`
	Status     storage.Status    `json:"status"`
	Offset     int64             `json:"offset"`
	Size       *int64            `json:"size"`
	LastByteAt time.Time         `json:"last_byte_at"` // the last sign of life: a byte, or that it was begun
	Failure    *resource.Failure `json:"failure"`
}

func describeTrouble(us []storage.Upload) []troubleUploadJSON {
	items := make([]troubleUploadJSON, len(us))
	for i, u := range us {
		items[i] = troubleUploadJSON{
			ID: u.ID, ClientID: u.ClientID, UserID: u.UserID, Filename: u.Filename, Status: u.Status, Offset: u.Received,
			LastByteAt: u.TouchedAt, Failure: resource.FailureOf(u),
		}
		if !u.SizeDeferred {
			items[i].Size = &us[i].Size
		}
	}
	return items
}

// getBatch tells a batch's state.
func (s *Server) getBatch(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	return s.tellBatch(c, id)
}

func (s *Server) tellBatch(c echo.Context, id uuid.UUID) error {
	ctx := c.Request().Context()
	var answer batchDetailJSON
	err := s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		answer, err = s.detailBatch(ctx, tx, id)
		return err
	})
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, answer)
}

func (s *Server) detailBatch(ctx context.Context, tx storage.Tx, id uuid.UUID) (j batchDetailJSON, err error) {
	b, err := tx.Batch(ctx, id)
	if err != nil {
		return j, err
	}
	totals, err := tx.BatchTotals(ctx, id)
	if err != nil {
		return j, err
	}
	j.CountedBatch = resource.CountedBatchOf(b, totals[id])
	stuck, n, err := tx.StuckUploads(ctx, id, s.Batches.StalledAfter, maxTrouble)
	if err != nil {
		return j, err
	}
	j.Stuck = troubleJSON{n, describeTrouble(stuck)}
	failed, n, err := tx.FailedUploads(ctx, id, maxTrouble)
	j.Failed = troubleJSON{n, describeTrouble(failed)}
	return j, err
}

// listBatches tells one page of batches, newest first. The cursor of the next page is the last one's id.
func (s *Server) listBatches(c echo.Context) error {
	page, err := parseBatchPage(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	items := []resource.CountedBatch{}
	err = s.DB.InTenant(ctx, func(tx storage.Tx) error {
		bs, err := tx.Batches(ctx, page)
		if err != nil {
			return err
		}
		ids := make([]uuid.UUID, len(bs))
		for i, b := range bs {
			ids[i] = b.ID
		}
		totals, err := tx.BatchTotals(ctx, ids...)
		for _, b := range bs {
			items = append(items, resource.CountedBatchOf(b, totals[b.ID]))
		}
		return err
	})
	if err != nil {
		return err
	}
	var next *uuid.UUID
	if len(items) == page.Limit {
		next = &items[len(items)-1].ID
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, map[string]any{"items": items, "next": next})
}

func parseBatchPage(c echo.Context) (p storage.BatchPage, err error) {
	p.Project, p.State = c.QueryParam("project"), storage.BatchState(c.QueryParam("state"))
	if !utf8.ValidString(p.Project) || strings.ContainsRune(p.Project, 0) {
		return p, problem.BadRequest("project must be UTF-8 text without NUL characters.")
	}
	if p.State != "" && !p.State.Known() {
		return p, problem.BadRequest("state must be one of a batch's: open, completed, failed or cancelled.")
	}
	if p.From, p.To, err = parseDay(c.QueryParam("day"), c.QueryParam("tz")); err != nil {
		return p, err
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

// parseDay returns when a day begins and ends in a zone of the IANA database, UTC if none is named. Where clocks are
// changed it has 23 hours, or 25.
func parseDay(day, zone string) (from, to time.Time, err error) {
	if zone == "Local" { // which is Go's name for wherever this runs
		zone = "?"
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return from, to, problem.BadRequest("tz must be a time zone of the IANA database, such as America/Bogota.")
	}
	if day == "" {
		return from, to, nil
	}
	if from, err = time.ParseInLocation(time.DateOnly, day, loc); err != nil {
		return from, to, problem.BadRequest("day must be a day such as 2026-11-22.")
	}
	return from, from.AddDate(0, 0, 1), nil
}

// renameBatch takes what may be changed of a batch.
func (s *Server) renameBatch(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	var to struct {
		Name string `json:"name"`
	}
	if _, err := readJSON(c, &to); err != nil {
		return err
	}
	if err := s.Batches.Rename(c.Request().Context(), id, to.Name); err != nil {
		return err
	}
	return s.tellBatch(c, id)
}

func (s *Server) cancelBatch(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	if _, err := s.Batches.Cancel(c.Request().Context(), id); err != nil {
		return err
	}
	return s.tellBatch(c, id)
}

// retriedJSON is what became of the uploads of a batch that had ended badly.
type retriedJSON struct {
	Retried   []uuid.UUID         `json:"retried"`
	SendAgain []troubleUploadJSON `json:"send_again"`
	Refused   []troubleUploadJSON `json:"refused"`
}

func (s *Server) retryBatch(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	r, err := s.Batches.Retry(c.Request().Context(), id)
	if err != nil {
		return err
	}
	answer := retriedJSON{Retried: make([]uuid.UUID, len(r.Retried)), SendAgain: describeTrouble(r.SendAgain), Refused: describeTrouble(r.Refused)}
	for i, u := range r.Retried {
		answer.Retried[i] = u.ID
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, answer)
}

func (s *Server) retryUpload(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	if err := s.Batches.RetryUpload(c.Request().Context(), id); err != nil {
		return err
	}
	return s.getUpload(c)
}
