package object

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/storage"
)

// A story is what the timeline is told of one request that brought bytes.
type story struct {
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

// tell writes the story of a request that is over: where it went on from, if it was not the first, and how far
// it came. The bytes are safe with or without it.
func (w *writer) tell(ctx context.Context, slot *leaseSlot, err error) {
	w.mu.Lock()
	brought := w.at > w.story.from
	w.mu.Unlock()
	atOnce := w.story.from == 0 && w.content.Received == w.row.Size // "uploaded" says enough
	if err == nil && (!brought || atOnce) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTime)
	defer cancel()
	err = w.store.db.InTenant(ctx, func(tx storage.Tx) error {
		if w.story.from > 0 {
			e := storage.Entry{Event: storage.EventResumed, At: w.story.began, Offset: &w.story.from, Duration: slot.waited}
			if err := tx.Append(ctx, w.row.ID, e); err != nil {
				return err
			}
		}
		return tx.Append(ctx, w.row.ID, storage.Entry{
			Event: storage.EventReceived, Offset: &w.content.Received, Duration: time.Since(w.story.began),
			Detail: map[string]any{
				"bytes": w.content.Received - w.story.from, "checkpoints": w.story.checkpoints, "parts": w.story.parts,
				"ended": w.ending(slot, err),
			},
		})
	})
	if err != nil {
		w.store.log.WarnContext(ctx, "timeline has a gap", slog.String("upload_id", w.row.ID.String()), slog.Any("err", err))
	}
}

func (w *writer) ending(slot *leaseSlot, err error) string {
	switch {
	case errors.Is(err, ErrChecksum):
		return endedChecksum
	case errors.Is(err, ErrUnavailable):
		return endedOutage
	case slot.letGo.Load(), errors.Is(err, handler.ErrFileLocked):
		return endedTakenOver
	case err != nil:
		return endedOtherwise
	case w.content.Received == w.row.Size && !w.row.SizeDeferred:
		return endedWhole
	case slot.cut == nil:
		return endedOrderly
	case errors.Is(slot.cut, handler.ErrServerShutdown):
		return endedShutdown
	}
	return endedCut
}

// WatchBody lets the store know how the body of a request that has a lease slot ended. tusd keeps that to
// itself.
func WatchBody(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	return watchedBody{body, ctx, slotIn(ctx)}
}

type watchedBody struct {
	io.ReadCloser
	ctx  context.Context //nolint:containedctx // the request's, which knows why the server ends it
	slot *leaseSlot
}

// Read implements [io.Reader].
func (b watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.slot.cut = err
		if cause := context.Cause(b.ctx); errors.Is(cause, handler.ErrServerShutdown) {
			b.slot.cut = cause
		}
	}
	return n, err
}
