package api

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/server/problem"
)

// ListDeadLetters answers admins with a page of dead letters, newest first.
func (a *API) ListDeadLetters(c echo.Context) error {
	p, err := parseLetterFilter(c)
	if err != nil {
		return err
	}
	return answerPage(c, uuid.Parse, func(ctx context.Context, before uuid.UUID, limit int) ([]deadletter.Letter, error) {
		p.Before, p.Limit = before, limit
		return a.DeadLetters.List(ctx, p)
	}, func(l deadletter.Letter) uuid.UUID { return l.ID })
}

func parseLetterFilter(c echo.Context) (p deadletter.Page, err error) {
	p.Kind, p.Step = c.QueryParam("kind"), c.QueryParam("step")
	switch state := c.QueryParam("state"); state {
	case "":
		p.State = deadletter.Open
	case "all":
	default:
		if p.State = deadletter.State(state); !p.State.Known() {
			return p, problem.BadRequest("state must be open, retried, discarded, settled or all.")
		}
	}
	if since := c.QueryParam("since"); since != "" {
		if p.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return p, problem.BadRequest("since must be a time such as 2026-11-20T00:00:00Z.")
		}
	}
	return p, nil
}

// GetDeadLetter answers admins with a dead letter.
func (a *API) GetDeadLetter(c echo.Context) error {
	return answerID(c, http.StatusOK, a.DeadLetters.Find)
}

// RetryDeadLetter processes the upload of a dead letter again.
func (a *API) RetryDeadLetter(c echo.Context) error {
	return answerID(c, http.StatusOK, a.DeadLetters.Retry)
}

// DiscardDeadLetter records that nothing is to be done about a dead letter.
func (a *API) DiscardDeadLetter(c echo.Context) error { return answerNothing(c, a.DeadLetters.Discard) }

// lettersRequest names dead letters, or selects open ones.
type lettersRequest struct {
	IDs   []uuid.UUID `json:"ids"`
	Kind  string      `json:"kind"`
	Step  string      `json:"step"`
	Since time.Time   `json:"since"`
	All   bool        `json:"all"`
}

func readLettersRequest(c echo.Context) (r lettersRequest, err error) {
	if _, err := readJSON(c, &r); err != nil {
		return r, err
	}
	named := 0
	for _, given := range []bool{len(r.IDs) > 0, r.Kind != "" || r.Step != "" || !r.Since.IsZero(), r.All} {
		if given {
			named++
		}
	}
	switch {
	case named != 1:
		return r, problem.BadRequest(`Say what to retry: one of {"ids": [ID]}, or of kind, step and since, or {"all": true}.`)
	case len(r.IDs) > deadletter.MaxRetries:
		return r, problem.BadRequest("At most %d dead letters can be retried in one request.", deadletter.MaxRetries)
	case !isText(r.Kind) || !isText(r.Step):
		return r, problem.BadRequest("kind and step must be UTF-8 text without NUL characters.")
	}
	return r, nil
}

// leftLetterJSON says why a dead letter was not retried.
type leftLetterJSON struct {
	ID     uuid.UUID `json:"id"`
	Type   string    `json:"type"` // of a problem
	Detail string    `json:"detail"`
}

// RetryDeadLetters retries the dead letters that the body names, or the newest open ones that it selects.
func (a *API) RetryDeadLetters(c echo.Context) error {
	ctx := c.Request().Context()
	r, err := readLettersRequest(c)
	if err != nil {
		return err
	}
	slices.SortFunc(r.IDs, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	ids, more := slices.Compact(r.IDs), false
	if len(ids) == 0 {
		found, err := a.DeadLetters.List(ctx, deadletter.Page{
			Limit: deadletter.MaxRetries + 1, State: deadletter.Open, Kind: r.Kind, Step: r.Step, Since: r.Since,
		})
		if err != nil {
			return err
		}
		more = len(found) > deadletter.MaxRetries
		ids = each(found[:min(len(found), deadletter.MaxRetries)], func(d deadletter.Letter) uuid.UUID { return d.ID })
	}
	retried, left, err := a.DeadLetters.RetryAll(ctx, ids)
	if err != nil {
		return err
	}
	why := each(left, func(l deadletter.NotRetried) leftLetterJSON {
		p, _ := problem.Of(l.Err)
		return leftLetterJSON{ID: l.ID, Type: p.Type, Detail: p.Detail}
	})
	return answer(c, http.StatusOK, map[string]any{"retried": len(retried), "left": why, "more": more})
}
