package processing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/dustin/go-humanize"

	"github.com/tramo/tramo/processing/clamd"
	"github.com/tramo/tramo/storage"
)

// A ScanPolicy says what clamd takes, and what becomes of the rest.
type ScanPolicy struct {
	Max          int64 // bytes; clamd's StreamMaxLength and MaxFileSize
	PassOversize bool  // what is larger goes on unscanned, and does not fail
}

// Validate reports what is wrong with p.
func (p ScanPolicy) Validate() error {
	// Of more clamd says OK and has not looked (clamd.conf(5), MaxFileSize).
	if p.Max < 1 || p.Max > math.MaxInt32 {
		return fmt.Errorf("clamd takes between 1 byte and %d, not %d", math.MaxInt32, p.Max)
	}
	return nil
}

// scan has clamd look at the object while it is downloaded. Nothing goes on without its word that it is clean.
func (p *Pipeline) scan(ctx context.Context, w *work) error {
	if w.upload.Size > p.Scans.Max {
		return p.oversize(ctx, w)
	}
	var verdict clamd.Verdict
	err := p.fetch(ctx, w, func(r io.Reader) (enough bool, err error) {
		verdict, err = p.Scanner.Scan(ctx, r)
		if trouble := new(clamd.Trouble); errors.As(err, &trouble) && ctx.Err() == nil {
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
	switch {
	case verdict.TooLarge: // for this clamd, whose configuration says less than ours
		return p.oversize(ctx, w)
	case !verdict.Clean:
		return p.quarantine(ctx, w, verdict)
	}
	return nil
}

// oversize is what becomes of a file that is larger than clamd takes.
func (p *Pipeline) oversize(ctx context.Context, w *work) error {
	if !p.Scans.PassOversize {
		return reject(storage.ReasonTooLargeToScan, "This file is too large to be checked for viruses: at most %s are. Send it in parts.", humanize.IBytes(uint64(p.Scans.Max)))
	}
	_, err := p.open(ctx, w) // what was received is still compared with what is there
	return err
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
