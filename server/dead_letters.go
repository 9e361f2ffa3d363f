package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
)

func (s *Server) routeDeadLetters(api *echo.Group) {
	api.GET("/admin/dead-letters", s.listDeadLetters)
	api.POST("/admin/dead-letters/retry", s.retryDeadLetters)
	api.GET("/admin/dead-letters/:id", s.getDeadLetter)
	api.DELETE("/admin/dead-letters/:id", s.discardDeadLetter)
	api.POST("/admin/dead-letters/:id/retry", s.retryDeadLetter)
}

// deadLetterJSON is a dead letter as admins are told of it.
type deadLetterJSON struct {
	ID          uuid.UUID           `json:"id"`
	UploadID    uuid.UUID           `json:"upload_id"`
	State       storage.LetterState `json:"state"`
	Kind        string              `json:"kind"`
	Step        string              `json:"step"`
	Error       string              `json:"error"`
	Attempts    int                 `json:"attempts"`
	JobID       *int64              `json:"job_id"`
	TraceID     *string             `json:"trace_id"`
	DiedAt      time.Time           `json:"died_at"`
	RetriedAt   *time.Time          `json:"retried_at"`
	RetriedBy   *string             `json:"retried_by"`
	DiscardedAt *time.Time          `json:"discarded_at"`
	DiscardedBy *string             `json:"discarded_by"`
}

func describeDeadLetter(d storage.DeadLetter) deadLetterJSON {
	return deadLetterJSON{
		ID: d.ID, UploadID: d.Upload, State: d.State, Kind: d.Kind, Step: d.Step, Error: d.Error, Attempts: d.Attempts,
		JobID: d.Job, TraceID: d.TraceID, DiedAt: d.DiedAt, RetriedAt: d.RetriedAt, RetriedBy: d.RetriedBy,
		DiscardedAt: d.DiscardedAt, DiscardedBy: d.DiscardedBy,
	}
}

// listDeadLetters tells one page, newest first. The cursor of the next page is the last one's id.
func (s *Server) listDeadLetters(c echo.Context) error {
	page, err := parseLetterPage(c)
	if err != nil {
		return err
	}
	found, err := s.DeadLetters.List(c.Request().Context(), page)
	if err != nil {
		return err
	}
	items := make([]deadLetterJSON, len(found))
	for i, d := range found {
		items[i] = describeDeadLetter(d)
	}
	var next *uuid.UUID
	if len(items) == page.Limit {
		next = &items[len(items)-1].ID
	}
	return noStore(c, http.StatusOK, map[string]any{"items": items, "next": next})
}

func parseLetterPage(c echo.Context) (p storage.LetterPage, err error) {
	p = storage.LetterPage{Kind: c.QueryParam("kind"), Step: c.QueryParam("step"), State: storage.LetterOpen}
	if err := checkLetterWords(p.Kind, p.Step); err != nil {
		return p, err
	}
	switch state := c.QueryParam("state"); {
	case state == "all":
		p.State = ""
	case state != "":
		if p.State = storage.LetterState(state); !p.State.Known() {
			return p, problem.BadRequest("state must be open, retried, discarded, settled or all.")
		}
	}
	if since := c.QueryParam("since"); since != "" {
		if p.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return p, problem.BadRequest("since must be a time such as 2026-11-20T00:00:00Z.")
		}
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

func checkLetterWords(words ...string) error {
	for _, v := range words {
		if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			return problem.BadRequest("kind and step must be UTF-8 text without NUL characters.")
		}
	}
	return nil
}

func (s *Server) getDeadLetter(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	d, err := s.DeadLetters.Find(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return noStore(c, http.StatusOK, describeDeadLetter(d))
}

func (s *Server) retryDeadLetter(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	d, err := s.DeadLetters.Retry(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return noStore(c, http.StatusOK, describeDeadLetter(d))
}

func (s *Server) discardDeadLetter(c echo.Context) error {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return problem.ErrNotFound
	}
	if err := s.DeadLetters.Discard(c.Request().Context(), id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// maxLettersBody is more than any request to retry many has, in bytes.
const maxLettersBody = 32 << 10

// lettersRequest names letters, or says which open ones.
type lettersRequest struct {
	IDs   []uuid.UUID `json:"ids"`
	Kind  string      `json:"kind"`
	Step  string      `json:"step"`
	Since time.Time   `json:"since"`
	All   bool        `json:"all"`
}

func readLettersRequest(c echo.Context) (r lettersRequest, err error) {
	d := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, maxLettersBody))
	d.DisallowUnknownFields()
	const shape = `{"ids": [ID]}, or of kind, step and since, or {"all": true}, as JSON.`
	if err := d.Decode(&r); err != nil {
		return r, problem.BadRequest("The body must be one of " + shape)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return r, problem.BadRequest("The body must be one JSON object and nothing behind it.")
	}
	filtered := r.Kind != "" || r.Step != "" || !r.Since.IsZero()
	named := 0
	for _, given := range []bool{len(r.IDs) > 0, filtered, r.All} {
		if given {
			named++
		}
	}
	switch {
	case named != 1:
		return r, problem.BadRequest("Say what to retry: one of " + shape)
	case len(r.IDs) > hooks.MaxLetters:
		return r, problem.BadRequest("At most %d dead letters can be retried in one request.", hooks.MaxLetters)
	}
	return r, checkLetterWords(r.Kind, r.Step)
}

// leftLetterJSON is why a letter was not retried.
type leftLetterJSON struct {
	ID     uuid.UUID `json:"id"`
	Type   string    `json:"type"` // of a problem
	Detail string    `json:"detail"`
}

// retryDeadLetters retries many: those named, or open ones, the newest first. There may be more of them.
func (s *Server) retryDeadLetters(c echo.Context) error {
	ctx := c.Request().Context()
	r, err := readLettersRequest(c)
	if err != nil {
		return err
	}
	slices.SortFunc(r.IDs, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	ids, more := slices.Compact(r.IDs), false
	if len(ids) == 0 {
		found, err := s.DeadLetters.List(ctx, storage.LetterPage{
			Limit: hooks.MaxLetters + 1, State: storage.LetterOpen, Kind: r.Kind, Step: r.Step, Since: r.Since,
		})
		if err != nil {
			return err
		}
		more = len(found) > hooks.MaxLetters
		for _, d := range found[:min(len(found), hooks.MaxLetters)] {
			ids = append(ids, d.ID)
		}
	}
	retried, left, err := s.DeadLetters.RetryAll(ctx, ids)
	if err != nil {
		return err
	}
	why := make([]leftLetterJSON, len(left))
	for i, l := range left {
		p, _ := problem.Of(l.Err)
		why[i] = leftLetterJSON{ID: l.ID, Type: p.Type, Detail: p.Detail}
	}
	return noStore(c, http.StatusOK, map[string]any{"retried": len(retried), "left": why, "more": more})
}
