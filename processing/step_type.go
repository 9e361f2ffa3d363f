package processing

import (
	"context"
	"fmt"

	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/storage"
)

// decideType detects the media type from the content. File names and declared types do not count.
func (p *Pipeline) decideType(ctx context.Context, w *work) error {
	file, err := p.open(ctx, w)
	if err != nil {
		return err
	}
	head := make([]byte, min(w.upload.Size, mediatype.HeadSize))
	if _, err := file.ReadAt(head, 0); err != nil {
		return fmt.Errorf("read the file's head: %w", err)
	}
	kind := mediatype.Detect(head)
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
		return reject(storage.ReasonTypeNotAllowed, "Files of this kind (%s) are not accepted here.", kind)
	}
	return nil
}
