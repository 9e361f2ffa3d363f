package processing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/storage"
)

// decideType detects the media type from the content. File names and declared types do not count.
func (p *Pipeline) decideType(ctx context.Context, w *work) error {
	file, err := p.open(ctx, w)
	if err != nil {
		return err
	}
	found, err := p.inspect(ctx, w, file)
	if err != nil {
		return err
	}
	kind := found.Type
	if found.Protected {
		w.results.Drawn.NoThumbnail = storage.OrNull(examine.NoThumbnailProtected)
	}
	declared := ""
	if w.upload.DeclaredType != nil {
		declared = *w.upload.DeclaredType
	}
	w.results.DetectedType = kind
	w.results.TypeMismatch = mediatype.Mismatch(declared, kind)
	switch {
	case w.results.TypeMismatch && !p.Types.AllowMismatch:
		return reject(storage.ReasonTypeMismatch, "This file was sent as %s, but it is not one. Check that it opens, and send it again.", declared)
	case !p.Types.Allows(kind):
		return reject(storage.ReasonTypeNotAllowed, "%s", mediatype.NotAccepted(kind))
	}
	return nil
}

// inspect says what the file is. What a container holds is looked for in a child process: a stranger wrote its list of contents.
func (p *Pipeline) inspect(ctx context.Context, w *work, file *os.File) (mediatype.Found, error) {
	head := make([]byte, min(w.upload.Size, mediatype.HeadSize))
	if _, err := file.ReadAt(head, 0); err != nil {
		return mediatype.Found{}, fmt.Errorf("read the file's head: %w", err)
	}
	begins := mediatype.Found{Type: mediatype.Detect(head)}
	if !mediatype.IsContainer(begins.Type) {
		return begins, nil
	}
	found, err := p.Examiner.Inspect(ctx, w.keys.Tenant, file)
	if limit := new(sandbox.LimitError); errors.As(err, &limit) {
		p.Log.WarnContext(ctx, "looking into a container exceeds a limit; its first bytes decide", slog.String("upload_id", w.upload.ID.String()), slog.Any("err", err))
		return begins, nil
	}
	return found, err
}
