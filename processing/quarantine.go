package processing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
)

const (
	// seizeTime is how long whoever holds an upload's lease, a client that asks for its offset, may take to let go.
	seizeTime = 20 * time.Second
	// leaveTime bounds the removal of what a relocation leaves behind. What is not removed then the inventory finds.
	leaveTime = 30 * time.Second
)

// A relocation moves an upload's object to another key, under the upload's lease: a copy, then the rows in a transaction
// that shows the lease's fence, then the old one goes. No key is used twice, for each has the fence of its lease. So
// wherever it is cut off, rows name one whole object, and nobody ever needs the other: the reconciler, which touches
// nothing under a lease, finds that by its inventory.
type relocation struct {
	*Pipeline
	upload   uuid.UUID
	lease    *lease.Lease
	from, to string
	pictures []string // that go with the old place
}

// relocate copies the object to the key that is made of the lease's fence. Who gets a relocation must end it.
func (p *Pipeline) relocate(ctx context.Context, w *work, key func(fence int64) string) (*relocation, error) {
	waiting, cancel := context.WithTimeout(ctx, seizeTime)
	defer cancel()
	held, err := p.Leases.Acquire(waiting, w.upload.ID, nil) // which is given up to nobody
	if errors.Is(err, lease.ErrHeld) {
		err = fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
	}
	if err != nil {
		return nil, fmt.Errorf("take the lease to move an object: %w", err)
	}
	r := &relocation{Pipeline: p, upload: w.upload.ID, lease: held, from: *w.upload.ObjectKey, to: key(held.Fence())}
	if err := p.Bucket.Copy(ctx, r.from, r.to, w.upload.Size); err != nil {
		r.end(ctx)
		if errors.Is(err, object.ErrNoObject) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
	}
	return r, nil
}

// quarantine records that the upload fails, and that its object is where it was copied to.
func (r *relocation) quarantine(ctx context.Context, tx storage.Tx, was storage.Status, f storage.Failure, s storage.Scan) (err error) {
	r.pictures, err = tx.Quarantine(ctx, r.upload, storage.Quarantining{
		Status: was, Failure: f, Scan: s, Fence: r.lease.Fence(), From: r.from, To: r.to,
	})
	return err
}

// leave removes what the rows, once committed, do not name any more.
func (r *relocation) leave(ctx context.Context) {
	if r == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime) // the job may be over
	defer cancel()
	for _, key := range append(r.pictures, r.from) {
		if err := r.Bucket.Delete(ctx, key); err != nil {
			r.Log.WarnContext(ctx, "moved object left something in S3", slog.String("upload_id", r.upload.String()), slog.Any("err", err))
			return
		}
	}
}

// end gives the lease back.
func (r *relocation) end(ctx context.Context) {
	if r == nil {
		return
	}
	if err := r.lease.Release(ctx); err != nil {
		r.Log.WarnContext(ctx, "lease not given back", slog.Any("err", err))
	}
}

func (o outcome) end(ctx context.Context) { o.moved.end(ctx) }

// condemned is why an upload fails of which the scanner has found that it is not clean.
func condemned(s storage.Scan) *rejection {
	f := storage.Failure{
		Reason: storage.ReasonInfected,
		Detail: fmt.Sprintf("A virus was found in this file (%s). Nobody will be able to open it here.", s.Signature),
	}
	if s.Verdict == storage.ScanUnscannable {
		f.Reason = storage.ReasonUnscannable
		f.Detail = fmt.Sprintf("This file cannot be checked for viruses (%s). Send it without a password, or unpacked.", s.Signature)
	}
	return &rejection{f}
}

// quarantine copies an object that is not clean to where nobody can have it, tagged. The transaction that ends the
// upload makes that the object's place. One that is in quarantine already, and was to leave it, gets another place there.
func (p *Pipeline) quarantine(ctx context.Context, w *work) error {
	rejected := condemned(*w.results.Scan)
	r, err := p.relocate(ctx, w, w.keys.Quarantine)
	if err != nil {
		return err
	}
	if err := p.Bucket.Tag(ctx, r.to, "scan", rejected.Reason); err != nil {
		r.end(ctx)
		return fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
	}
	w.moved = r
	return rejected
}

// bringHome moves an object that is in quarantine, and may leave it, to where it can be linked.
func (p *Pipeline) bringHome(ctx context.Context, w *work) error {
	if !object.IsQuarantined(*w.upload.ObjectKey) {
		return nil
	}
	r, err := p.relocate(ctx, w, w.keys.Original)
	if err != nil {
		return err
	}
	defer r.end(ctx)
	err = p.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := w.Fence(ctx, tx); err != nil {
			return err
		}
		return tx.MoveObject(ctx, r.upload, r.lease.Fence(), r.from, r.to)
	})
	if err != nil {
		return err
	}
	w.upload.ObjectKey = &r.to
	r.leave(ctx)
	return nil
}
