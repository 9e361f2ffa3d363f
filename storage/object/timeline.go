package object

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tramo/tramo/storage"
)

// A progress is what one request that brought bytes has done so far, for the timeline.
type progress struct {
	began       time.Time
	from        int64 // offset, bytes
	checkpoints int   // tails written
	parts       int   // parts, and the object
}

// How a request that brought bytes can end, as the timeline says it.
const (
	endedWhole     = "whole"       // the upload has all its bytes
	endedOrderly   = "end_of_body" // the client sends the rest with another request
	endedCut       = "connection_lost"
	endedTakenOver = "taken_over" // another request wanted the upload, or its lease was lost
	endedShutdown  = "server_stopping"
	endedChecksum  = "checksum_mismatch"
	endedOutage    = "storage_unavailable"
	endedOtherwise = "error"
)

// tell appends to the timeline what a request did that has ended: where it resumed, if it was not the first, and up to which
// offset it came. The bytes are durable with or without the entry.
func (w *writer) tell(ctx context.Context, err error) {
	w.mu.Lock()
	brought := w.at > w.progress.from
	w.mu.Unlock()
	atOnce := w.progress.from == 0 && w.received() == w.row.Size // the event "uploaded" says enough
	if err == nil && (!brought || atOnce) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	received := w.received()
	err = w.store.db.InTenant(ctx, func(tx storage.Tx) error {
		if w.progress.from > 0 {
			tx.Append(ctx, w.row.ID, storage.Entry{
				Event: storage.EventResumed, At: w.progress.began, Offset: &w.progress.from, Duration: w.lease.Waited(),
			})
		}
		tx.Append(ctx, w.row.ID, storage.Entry{
			Event: storage.EventReceived, Offset: &received, Duration: time.Since(w.progress.began),
			Detail: map[string]any{
				"bytes": received - w.progress.from, "checkpoints": w.progress.checkpoints, "parts": w.progress.parts,
				"ended": w.ending(err),
			},
		})
		return nil
	}, storage.PlannedOnce)
	if err != nil {
		w.store.log.WarnContext(ctx, "timeline not written", slog.String("upload_id", w.row.ID.String()), slog.Any("err", err))
	}
}

func (w *writer) ending(err error) string {
	switch {
	case errors.Is(err, ErrChecksum):
		return endedChecksum
	case errors.Is(err, ErrUnavailable):
		return endedOutage
	case w.lease.Wanted(), errors.Is(err, storage.ErrFenced):
		return endedTakenOver
	case err != nil:
		return endedOtherwise
	case w.received() == w.row.Size && !w.row.SizeDeferred:
		return endedWhole
	}
	switch cut := w.body.Cut(); {
	case cut == nil:
		return endedOrderly
	case errors.Is(cut, ErrStopping):
		return endedShutdown
	}
	return endedCut
}
