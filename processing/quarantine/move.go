package quarantine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
)

const (
	// leaseTimeout bounds the wait for the upload's lease: a client that asks for the offset may hold it.
	leaseTimeout = 20 * time.Second
	// cleanTimeout bounds the deletion of the objects that a move leaves behind. The inventory finds what is not deleted then.
	cleanTimeout = 30 * time.Second
)

// A Mover moves the objects of uploads into quarantine and out of it.
type Mover struct {
	Bucket *object.Bucket
	Leases *lease.Manager
	Log    *slog.Logger
}

// A Move of an upload's object to another key, under the upload's lease: a copy, then the rows in a transaction that shows the
// lease's fence, then the old object is deleted. No key is used twice, for each has the fence of its lease. So wherever a move is
// cut off, the rows name one whole object, and nobody ever needs the other: the inventory finds it.
type Move struct {
	mover      *Mover
	upload     storage.Upload
	lease      *lease.Lease
	from, to   string
	thumbnails []string // that are deleted with the old object
}

// Begin copies the object to the key that is made of the lease's fence. Whoever gets a move must call End.
func (m *Mover) Begin(ctx context.Context, u storage.Upload, key func(fence int64) string) (*Move, error) {
	waiting, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	held, err := m.Leases.Acquire(waiting, u.ID, nil) // which is given up to nobody
	if errors.Is(err, lease.ErrHeld) {
		err = fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
	}
	if err != nil {
		return nil, fmt.Errorf("take the lease to move an object: %w", err)
	}
	move := &Move{mover: m, upload: u, lease: held, from: *u.ObjectKey, to: key(held.Fence())}
	if err := m.Bucket.Copy(ctx, move.from, move.to, u.Size); err != nil {
		return nil, move.giveUp(ctx, fmt.Errorf("move an object: %w", err))
	}
	return move, nil
}

// BeginQuarantine copies the object to where nobody can have it, and tags it with why the upload fails. An object that is in
// quarantine already, and was to leave it, gets another key there.
func (m *Mover) BeginQuarantine(ctx context.Context, u storage.Upload, keys object.Keys, f storage.Failure) (*Move, error) {
	move, err := m.Begin(ctx, u, keys.Quarantine)
	if err != nil {
		return nil, err
	}
	switch err := m.Bucket.Tag(ctx, move.to, u.Size, "scan", f.Reason); {
	case errors.Is(err, object.ErrUnsupported): // the key says it, too
		m.Log.WarnContext(ctx, "object in quarantine has no tag", slog.String("upload_id", u.ID.String()), slog.Any("err", err))
	case err != nil:
		return nil, move.giveUp(ctx, err)
	}
	return move, nil
}

// giveUp ends a move that no row knows of. Its copy is deleted, so that attempts do not leave one each: S3 may fail for hours.
func (m *Move) giveUp(ctx context.Context, cause error) error {
	m.delete(ctx, m.to)
	m.End(ctx)
	if errors.Is(cause, object.ErrNoObject) || errors.Is(cause, object.ErrUnsupported) {
		return cause // waiting does not help
	}
	return fmt.Errorf("%w: %w", queue.ErrUnavailable, cause)
}

// To is the key of the copy.
func (m *Move) To() string { return m.to }

// Quarantine records that the upload fails, and that its object is where it was copied to. Before, the upload was in the status
// from: [storage.Processing], or [storage.Completed] if newer signatures found something.
func (m *Move) Quarantine(ctx context.Context, tx storage.Tx, from storage.Status, s Scan) (err error) {
	m.thumbnails, err = Place(ctx, tx, m.upload.ID, Placement{
		From: from, Failure: s.Failure(), Scan: s, Fence: m.lease.Fence(), Key: m.from, New: m.to,
	})
	return err
}

// Restore records that the object of an upload in processing is where it was copied to. Without the lease it is [storage.ErrFenced];
// if the object is elsewhere by now, or the upload has ended, [storage.ErrWrongStatus].
func (m *Move) Restore(ctx context.Context, tx storage.Tx) error {
	if err := tx.RequireLease(ctx, m.upload.ID, m.lease.Fence()); err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, `
		update uploads set object_key = $4 where tenant_id = $1 and id = $2 and status = 'processing' and object_key = $3
			and deleted_at is null`, tx.Tenant, m.upload.ID, m.from, m.to)
	if err != nil {
		return fmt.Errorf("move object: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return storage.ErrWrongStatus
	}
	return nil
}

// Clean deletes the objects that the rows, once committed, do not name any more.
func (m *Move) Clean(ctx context.Context) {
	if m != nil {
		m.delete(ctx, append(m.thumbnails, m.from)...)
	}
}

func (m *Move) delete(ctx context.Context, keys ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout) // the job may be over
	defer cancel()
	for _, key := range keys {
		if err := m.mover.Bucket.Delete(ctx, key); err != nil {
			m.mover.Log.WarnContext(ctx, "moved object left something in S3", slog.String("upload_id", m.upload.ID.String()), slog.Any("err", err))
			return
		}
	}
}

// End releases the lease.
func (m *Move) End(ctx context.Context) {
	if m == nil {
		return
	}
	if err := m.lease.Release(ctx); err != nil {
		m.mover.Log.WarnContext(ctx, "lease not released", slog.Any("err", err))
	}
}
