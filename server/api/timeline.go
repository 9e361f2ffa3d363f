package api

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/storage"
)

// entryJSON is an entry of an upload's timeline. Fields that an event does not have are null.
type entryJSON struct {
	Event      storage.Event  `json:"event"`
	At         time.Time      `json:"at"`
	Offset     *int64         `json:"offset"` // of the upload then, bytes
	Replica    *string        `json:"replica"`
	DurationMS *int32         `json:"duration_ms"` // until at
	TraceID    *string        `json:"trace_id"`
	Detail     map[string]any `json:"detail"`
	seq        int64
}

// ListTimeline answers with a page of an upload's timeline, oldest first.
func (a *API) ListTimeline(c echo.Context) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	return answerPage(c, parseSeq, func(ctx context.Context, after int64, limit int) ([]entryJSON, error) {
		entries, err := read(ctx, a.DB, func(ctx context.Context, tx storage.Tx) ([]storage.TimelineEntry, error) {
			return tx.Timeline(ctx, id, after, limit)
		})
		return each(entries, describeEntry), err
	}, func(e entryJSON) int64 { return e.seq })
}

func describeEntry(e storage.TimelineEntry) entryJSON {
	return entryJSON{
		Event: e.Event, At: e.At, Offset: e.Offset, Replica: e.Replica, DurationMS: e.DurationMS, TraceID: e.TraceID, Detail: e.Detail,
		seq: e.Seq,
	}
}
