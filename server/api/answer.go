package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
)

// answer sends v as JSON, which no cache may store: it changes, and it is for one user.
func answer(c echo.Context, status int, v any) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(status, v)
}

// answerID calls do with the id in the path and answers with its result.
func answerID[T any](c echo.Context, status int, do func(context.Context, uuid.UUID) (T, error)) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	v, err := do(c.Request().Context(), id)
	if err != nil {
		return err
	}
	return answer(c, status, v)
}

// answerNothing calls do with the id in the path and answers without a body.
func answerNothing(c echo.Context, do func(context.Context, uuid.UUID) error) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	if err := do(c.Request().Context(), id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// A list is one page of a collection. Next is the cursor of the page that follows; it is null on the last.
type list[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next"`
}

func listOf[T any](items []T) list[T] {
	if items == nil {
		items = []T{} // encoded as [], not as null
	}
	return list[T]{Items: items}
}

// Bounds of the parameter limit.
const (
	defaultLimit = 50
	maxLimit     = 500
)

// answerPage answers with the page that the parameters limit and cursor ask for. A cursor is the key of the last item of
// the page before, which parse reads; its zero value begins at the first page. A page with fewer items than limit is the
// last. Before it reads, it refuses parameters that are not text.
func answerPage[K, T any](c echo.Context, parse func(string) (K, error), read func(ctx context.Context, cursor K, limit int) ([]T, error), key func(T) K) error {
	limit, cursor, err := parsePage(c, parse)
	if err != nil {
		return err
	}
	items, err := read(c.Request().Context(), cursor, limit)
	if err != nil {
		return err
	}
	page := listOf(items)
	if len(items) == limit {
		next := fmt.Sprint(key(items[limit-1]))
		page.Next = &next
	}
	return answer(c, http.StatusOK, page)
}

func parsePage[K any](c echo.Context, parse func(string) (K, error)) (limit int, cursor K, err error) {
	if err := requireTexts(c.QueryParams()); err != nil {
		return limit, cursor, err
	}
	limit = defaultLimit
	if s := c.QueryParam("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > maxLimit {
			return limit, cursor, problem.BadRequest("limit must be a number from 1 to %d.", maxLimit)
		}
	}
	if s := c.QueryParam("cursor"); s != "" {
		if cursor, err = parse(s); err != nil {
			return limit, cursor, problem.BadRequest("cursor must be the value of next in the previous page.")
		}
	}
	return limit, cursor, nil
}

// parseSeq reads the sequence number of an entry of a log.
func parseSeq(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && n < 1 {
		err = strconv.ErrRange
	}
	return n, err
}

// each applies describe to all items.
func each[S, T any](items []S, describe func(S) T) []T {
	described := make([]T, len(items))
	for i, item := range items {
		described[i] = describe(item)
	}
	return described
}
