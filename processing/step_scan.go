package processing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/tramo/tramo/processing/clamd"
	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// ScanReply is how long a scan waits for clamd's verdict once clamd has the whole file. It is above clamd's own MaxScanTime, two
// minutes by default, and leaves a job of [queue.Config.Timeout] the time to be recorded.
const ScanReply = 150 * time.Second

// A ScanPolicy says which files clamd scans, and what happens to larger ones.
type ScanPolicy struct {
	Max      int64  `name:"scan-max" type:"bytes" help:"Largest file that clamd scans: the same as its StreamMaxLength and MaxFileSize, and less than 2GiB."`
	Oversize string `name:"scan-oversize" help:"What happens to a file above TRAMO_SCAN_MAX: fail, or pass, which completes it unscanned."`
}

// Values of [ScanPolicy.Oversize].
const (
	FailOversize = "fail"
	PassOversize = "pass"
)

// DefaultScanPolicy is used where nothing is set.
func DefaultScanPolicy() ScanPolicy { return ScanPolicy{Max: 512 << 20, Oversize: FailOversize} }

// Validate reports what is wrong with p.
func (p ScanPolicy) Validate() error {
	var errs []error
	// clamd says OK to larger files without having read them (clamd.conf(5), MaxFileSize).
	if p.Max < 1 || p.Max > math.MaxInt32 {
		errs = append(errs, fmt.Errorf("TRAMO_SCAN_MAX: clamd scans between 1 byte and %d, not %d", math.MaxInt32, p.Max))
	}
	if p.Oversize != FailOversize && p.Oversize != PassOversize {
		errs = append(errs, fmt.Errorf("TRAMO_SCAN_OVERSIZE: %q is neither fail nor pass", p.Oversize))
	}
	return errors.Join(errs...)
}

// scan has clamd scan the object while it is downloaded. An upload goes on only if clamd found it clean, or if an admin released it
// in spite of the same signature. Then its object leaves quarantine, if it was there.
func (p *Pipeline) scan(ctx context.Context, w *work) error {
	step := p.scanWhole
	if w.upload.Size > p.Scans.Max {
		step = p.oversize
	}
	if err := step(ctx, w); err != nil {
		return err
	}
	return p.leaveQuarantine(ctx, w)
}

func (p *Pipeline) scanWhole(ctx context.Context, w *work) error {
	var found decision
	err := p.fetch(ctx, w, func(r io.Reader) (enough bool, err error) {
		found, err = p.look(ctx, w, r)
		// clamd may report a signature before it has read the whole file.
		return found != passes, err
	})
	switch {
	case err != nil:
		return err
	case found == isTooLarge: // the limit of this clamd is lower than ours
		return p.oversize(ctx, w)
	case found == isInfected:
		w.moved, err = p.mover().BeginQuarantine(ctx, w.upload, w.keys, w.results.Scan.Failure())
		if err != nil {
			return err
		}
		return &rejection{w.results.Scan.Failure()}
	}
	return nil
}

// leaveQuarantine moves an object that may leave quarantine, if it is there, to where it can be linked.
func (p *Pipeline) leaveQuarantine(ctx context.Context, w *work) error {
	if !object.IsQuarantined(*w.upload.ObjectKey) {
		return nil
	}
	move, err := p.mover().Begin(ctx, w.upload, w.keys.Original)
	if err != nil {
		return err
	}
	defer move.End(ctx)
	err = p.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := w.Fence(ctx, tx); err != nil {
			return err
		}
		return move.Restore(ctx, tx)
	})
	if err != nil {
		return err
	}
	key := move.To()
	w.upload.ObjectKey = &key
	move.Clean(ctx)
	return nil
}

// A decision is what follows from clamd's verdict on an upload.
type decision int

const (
	isInfected decision = iota // or unscannable
	isTooLarge
	passes
)

// look has clamd scan r, and keeps the verdict in w's results. A file that passes was read to its end.
func (p *Pipeline) look(ctx context.Context, w *work, r io.Reader) (decision, error) {
	verdict, err := p.Scanner.Scan(ctx, r)
	trouble := new(clamd.Trouble)
	switch {
	case errors.As(err, &trouble) && ctx.Err() == nil:
		return isInfected, fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
	case err != nil:
		return isInfected, err // the file itself may be the cause: this costs an attempt
	case verdict.TooLarge:
		return isTooLarge, nil
	case verdict.Clean && verdict.Bytes != w.upload.Size:
		return isInfected, fmt.Errorf("upload %s: %d bytes were scanned of %d", w.upload.ID, verdict.Bytes, w.upload.Size)
	}
	w.results.Scan = recordOf(verdict)
	if verdict.Clean {
		return passes, nil
	}
	return p.lookForRelease(ctx, w, verdict.Signature, r)
}

// lookForRelease passes an upload that an admin released from quarantine in spite of that signature, and then reads r to its end.
func (p *Pipeline) lookForRelease(ctx context.Context, w *work, signature string, r io.Reader) (decision, error) {
	var released []string
	err := p.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		released, err = quarantine.Released(ctx, tx, w.upload.ID)
		return err
	})
	if err != nil || !slices.Contains(released, signature) {
		return isInfected, err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return isInfected, fmt.Errorf("%w: read object: %w", queue.ErrUnavailable, err)
	}
	return passes, nil
}

// recordOf turns a verdict of clamd's into the scan that is kept.
func recordOf(v clamd.Verdict) *quarantine.Scan {
	s := &quarantine.Scan{
		Verdict: storage.ScanInfected, Signature: v.Signature, At: time.Now(),
		Engine: v.Version.Engine, Signatures: v.Version.Signatures, SignedAt: v.Version.SignedAt,
	}
	switch {
	case v.Clean:
		s.Verdict = storage.ScanClean
	case v.Unscannable:
		s.Verdict = storage.ScanUnscannable
	}
	return s
}

// oversize fails or passes a file that is larger than clamd scans.
func (p *Pipeline) oversize(ctx context.Context, w *work) error {
	if p.Scans.Oversize != PassOversize {
		return reject(storage.ReasonTooLargeToScan, "This file is too large to be checked for viruses: at most %s are. Send it in parts.", humanize.IBytes(uint64(p.Scans.Max)))
	}
	w.results.Scan = &quarantine.Scan{Verdict: storage.ScanOversizePassed, At: time.Now()}
	_, err := p.open(ctx, w) // the object is still compared with what was received
	return err
}
