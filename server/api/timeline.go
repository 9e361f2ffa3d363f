package api

import (
	"context"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/storage"
)

// ListTimeline answers with a page of an upload's timeline, oldest first. Fields that an event does not have are null.
func (a *API) ListTimeline(c echo.Context) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	return answerPage(c, parseSeq, func(ctx context.Context, after int64, limit int) ([]storage.TimelineEntry, error) {
		return read(ctx, a.DB, func(ctx context.Context, tx storage.Tx) ([]storage.TimelineEntry, error) {
			return tx.Timeline(ctx, id, after, limit)
		})
	}, func(e storage.TimelineEntry) int64 { return e.Seq })
}
