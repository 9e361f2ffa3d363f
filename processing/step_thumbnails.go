package processing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/storage"
)

// thumbnailSizes are the sizes of thumbnails, in pixels of the long side.
var thumbnailSizes = []int{160, 480, 1600}

const webp = "image/webp"

// ThumbnailConfig says which images get thumbnails.
type ThumbnailConfig struct {
	MaxPixels int `name:"max-pixels" help:"Largest image that gets thumbnails, in pixels. Larger images complete without them."`
}

// DefaultThumbnailConfig is used where nothing is set.
func DefaultThumbnailConfig() ThumbnailConfig { return ThumbnailConfig{MaxPixels: 268402689} }

// Validate reports what is wrong with c.
func (c ThumbnailConfig) Validate() error {
	if c.MaxPixels < 1 {
		return fmt.Errorf("TRAMO_MAX_PIXELS: %d is less than 1", c.MaxPixels)
	}
	return nil
}

// draw has thumbnails drawn in a child process, and stores them. No file fails here, not even one that nothing can decode: it is
// scanned, and what was sent, and another program may open it.
func (p *Pipeline) draw(ctx context.Context, w *work) error {
	if !examine.Drawable(w.results.DetectedType) || w.results.Drawn.NoThumbnail != nil {
		return nil
	}
	file, err := p.open(ctx, w)
	if err != nil {
		return err
	}
	drawing, err := p.Examiner.Draw(ctx, w.keys.Tenant, file, examine.DrawRequest{
		ContentType: w.results.DetectedType, Sizes: thumbnailSizes, MaxPixels: p.MaxPixels,
	})
	var unreadable *examine.UnreadableError
	var limit *sandbox.LimitError
	switch {
	case errors.As(err, &unreadable):
		p.Log.InfoContext(ctx, "file cannot be decoded; the upload has no thumbnails", slog.String("upload_id", w.upload.ID.String()), slog.String("err", unreadable.Cause))
		drawing = examine.Drawing{NoThumbnail: examine.NoThumbnailUnreadable}
	case errors.As(err, &limit) && (limit.Limit != sandbox.LimitTime || w.Exhausted):
		// In a child that had drawn nothing before, so that another attempt would hit the same limit. Only time may run out because
		// the machine is busy.
		p.Log.WarnContext(ctx, "drawing thumbnails exceeds a limit; the upload has none", slog.String("upload_id", w.upload.ID.String()), slog.Any("err", err))
		drawing = examine.Drawing{NoThumbnail: limit.Limit}
	case err != nil:
		return err
	}
	w.results.Facts.WidthPx, w.results.Facts.HeightPx = storage.OrNull(int32(drawing.Width)), storage.OrNull(int32(drawing.Height))
	w.results.Drawn = storage.Drawn{
		Partial: drawing.Partial, Placeholder: storage.OrNull(drawing.Placeholder), NoThumbnail: storage.OrNull(drawing.NoThumbnail),
	}
	w.results.Thumbnails, err = p.store(ctx, w, drawing.Thumbnails)
	return err
}

// store puts the thumbnails under their keys; doing it twice changes nothing.
func (p *Pipeline) store(ctx context.Context, w *work, drawn []examine.Thumbnail) ([]storage.Thumbnail, error) {
	thumbnails := make([]storage.Thumbnail, len(drawn))
	for i, t := range drawn {
		key := w.keys.Thumbnail(t.Size)
		size := int64(len(t.WebP))
		if err := p.Bucket.Put(ctx, key, webp, bytes.NewReader(t.WebP), size); err != nil {
			return nil, unavailable(err)
		}
		thumbnails[i] = storage.Thumbnail{
			Size: t.Size, WidthPx: t.Width, HeightPx: t.Height, Bytes: size, ContentType: webp, ObjectKey: key,
		}
	}
	return thumbnails, nil
}
