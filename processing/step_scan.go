package processing

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tramo/tramo/processing/clamd"
	"github.com/tramo/tramo/storage"
)

// scan has clamd look at the object while it is downloaded. Nothing goes on without its word that it is clean.
func (p *Pipeline) scan(ctx context.Context, w *work) error {
	var verdict clamd.Verdict
	err := p.fetch(ctx, w, func(r io.Reader) (enough bool, err error) {
		verdict, err = p.Scanner.Scan(ctx, r)
		if errors.Is(err, clamd.ErrAway) && ctx.Err() == nil {
			return false, fmt.Errorf("%w: %w", errBusy, err)
		}
		// Of another error perhaps this very file is the cause: it costs an attempt. What is not clean clamd may
		// have said before it had everything.
		return !verdict.Clean, err
	})
	if err != nil {
		return err
	}
	if verdict.Clean && verdict.Bytes != w.upload.Size {
		return fmt.Errorf("upload %s: %d bytes were scanned of %d", w.upload.ID, verdict.Bytes, w.upload.Size)
	}
	if !verdict.Clean {
		return p.quarantine(ctx, w, verdict)
	}
	return nil
}

// quarantine tags an object that is not clean. It is never processed further and never linked.
func (p *Pipeline) quarantine(ctx context.Context, w *work, v clamd.Verdict) error {
	reason := storage.ReasonInfected
	rejected := reject(reason, "A virus was found in this file (%s). Nobody will be able to open it here.", v.Signature)
	if v.Unscannable {
		reason = storage.ReasonUnscannable
		rejected = reject(reason, "This file cannot be checked for viruses (%s). Send it without a password, or unpacked.", v.Signature)
	}
	if err := p.Bucket.Tag(ctx, *w.upload.ObjectKey, "scan", reason); err != nil {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	return rejected
}
