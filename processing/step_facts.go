package processing

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/facts"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/storage"
)

// readFacts has a child process read the metadata of the file.
func (p *Pipeline) readFacts(ctx context.Context, w *work) error {
	if examine.Documented(w.results.DetectedType) {
		return p.readDocument(ctx, w)
	}
	if !examine.Readable(w.results.DetectedType) {
		return nil
	}
	file, err := p.open(ctx, w)
	if err != nil {
		return err
	}
	found, err := p.Examiner.ReadFacts(ctx, w.keys.Tenant, file, w.results.DetectedType)
	if limit := new(sandbox.LimitError); errors.As(err, &limit) {
		// Only a file made for that has metadata that cost more than an image. The upload has no facts.
		p.Log.WarnContext(ctx, "reading facts exceeds a limit; the upload has none", slog.String("upload_id", w.upload.ID.String()), slog.Any("err", err))
		return nil
	}
	if err != nil {
		return err
	}
	w.results.Facts = record(found, w.results.Facts)
	w.results.Document.Title = cmp.Or(w.results.Document.Title, storage.OrNull(found.Title))
	w.results.Tags = storage.Tags{Tags: found.Tags, Truncated: found.TagsTruncated}
	return nil
}

// readDocument has a confined program read the metadata of a document.
func (p *Pipeline) readDocument(ctx context.Context, w *work) error {
	file, err := p.open(ctx, w)
	if err != nil {
		return err
	}
	document, err := p.Examiner.ReadDocument(ctx, file, w.results.DetectedType)
	if err != nil {
		return err
	}
	w.results.Document = storage.Document{Pages: storage.OrNull(document.Pages), Title: storage.OrNull(document.Title)}
	return nil
}

// record turns the metadata of a file into typed columns; missing metadata stay null. The dimensions that an earlier
// step has drawn are better than those that the file claims.
func record(f facts.Facts, before storage.Facts) storage.Facts {
	width, height := f.Upright()
	r := storage.Facts{
		TakenAt: f.TakenAt, TakenZone: storage.OrNull(f.TakenZone),
		Place: storage.Place{
			Latitude: toCentimetres(f.Latitude), Longitude: toCentimetres(f.Longitude), AltitudeM: f.Altitude, DirectionDeg: f.Direction,
		},
		Camera: storage.Camera{
			CameraMake: storage.OrNull(f.CameraMake), CameraModel: storage.OrNull(f.CameraModel), Lens: storage.OrNull(f.Lens), Software: storage.OrNull(f.Software),
		},
		Orientation: storage.OrNull(int16(f.Orientation)), DurationS: storage.OrNull(f.Duration),
		WidthPx: cmp.Or(before.WidthPx, storage.OrNull(int32(width))), HeightPx: cmp.Or(before.HeightPx, storage.OrNull(int32(height))),
	}
	if local, err := storage.ParseLocalTime(f.TakenLocal); err == nil {
		r.TakenLocal = &local
	}
	return r
}

// toCentimetres rounds degrees to seven places, about a centimetre: EXIF's fractions of degrees, minutes and
// seconds leave noise behind that looks like precision.
func toCentimetres(degrees *float64) *float64 {
	if degrees == nil {
		return nil
	}
	rounded := math.Round(*degrees*1e7) / 1e7
	return &rounded
}
