package object

import (
	"context"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
)

// Errors of an upload that callers branch on, beside [storage.ErrFenced] and [ErrUnavailable].
var (
	// ErrLost says that S3 no longer has what was stored there. A [*LostError] names the uploads.
	ErrLost = errors.New("stored bytes are gone")
	// ErrTooLong says that a body goes beyond the most that an upload of unknown size may have.
	ErrTooLong = errors.New("body is longer than the upload may be")
	// ErrBeyondLength says that a body goes beyond the length that was declared for its upload.
	ErrBeyondLength = errors.New("body goes beyond the length of the upload")
	// ErrTakenOver says that another request wants the upload, and the body was not read to its end.
	ErrTakenOver = errors.New("another request has taken over")
	// ErrNoBuffer says that a body which must be kept until its checksum is verified has no room to be kept in.
	ErrNoBuffer = errors.New("no room to keep the body until it is verified")
)

// A LostError is an [ErrLost] of these uploads: the one that was worked on, and of a final upload the partial one whose
// object is gone.
type LostError struct{ Uploads []uuid.UUID }

func (e *LostError) Error() string { return fmt.Sprintf("%s: uploads %s", ErrLost, e.Uploads) }

// Unwrap returns [ErrLost].
func (e *LostError) Unwrap() error { return ErrLost }

// An Upload is one request's view of an upload, under that request's lease.
type Upload struct {
	store   *Store
	tenant  uuid.UUID
	row     storage.Upload
	content storage.Content
	lease   *lease.Lease      // nil for a view that writes nothing
	pending *storage.Progress // the whole object is in S3, and this is to be recorded; nil if nothing is
}

// Hold says under which lease the upload was read.
func (u *Upload) Hold(l *lease.Lease) { u.lease = l }

// Row returns the upload's row, with the offset as it is now.
func (u *Upload) Row() storage.Upload {
	row := u.row
	row.Received = u.received()
	return row
}

func (u *Upload) keys() Keys { return Keys{Tenant: u.tenant, Project: u.row.Project, Upload: u.row.ID} }

// received is the offset, over bytes that are in S3 also if that is not recorded yet.
func (u *Upload) received() int64 {
	if u.pending != nil {
		return u.pending.To
	}
	return u.content.Received
}

// Sum returns the SHA-256 of all bytes up to the offset.
func (u *Upload) Sum() ([]byte, error) {
	h, err := resumeHash(u.content.HashState)
	if err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// fence returns that of the lease; [storage.NoFence], which nobody has, without one.
func (u *Upload) fence() int64 {
	if u.lease == nil {
		return storage.NoFence
	}
	return u.lease.Fence()
}

// DeclareLength gives an upload whose size was deferred its size in bytes, as [storage.Tx.DeclareLength] does.
func (u *Upload) DeclareLength(ctx context.Context, length int64) error {
	err := u.store.db.InTenant(ctx, func(tx storage.Tx) error {
		return tx.DeclareLength(ctx, u.row.ID, u.fence(), length)
	})
	if err != nil {
		return err
	}
	u.row.Size, u.row.SizeDeferred, u.row.ChargedBytes = length, false, length
	return nil
}

// Assemble makes the upload's object, once all its bytes are durable, and returns its key and the SHA-256 of its content.
// The bytes of a final upload are those of its partial ones. It can be repeated from any point at which it was cut off, and
// [Upload.Record] is next.
func (u *Upload) Assemble(ctx context.Context) (key string, sum []byte, err error) {
	if u.row.Kind == storage.Final && u.content.Received < u.row.Size {
		if err := u.concatenate(ctx); err != nil {
			return "", nil, err
		}
	}
	if !u.content.Stored && u.pending == nil {
		if err := u.complete(ctx); err != nil {
			return "", nil, err
		}
	}
	if u.pending != nil {
		h, err := resumeHash(u.pending.HashState)
		if err != nil {
			return "", nil, err
		}
		return u.pending.Object, h.Sum(nil), nil
	}
	sum, err = u.Sum()
	return *u.content.ObjectKey, sum, err
}

// Record records in a transaction that the object is there, so that what follows from it can be recorded with it.
func (u *Upload) Record(ctx context.Context, tx storage.Tx) error {
	step := u.pending
	if step == nil {
		return nil
	}
	storage.AfterCommit(tx, func() {
		u.pending = nil
		u.advanced(*step)
	})
	return tx.Advance(ctx, u.row.ID, u.fence(), *step)
}

// Save records that the object is there, and nothing else, so that its bytes are not sent again although what follows from it
// could not be recorded.
func (u *Upload) Save(ctx context.Context) error {
	step := u.pending
	if step == nil {
		return nil
	}
	u.pending = nil
	return u.advance(ctx, *step, nil)
}

// complete makes the object of what is durable.
func (u *Upload) complete(ctx context.Context) error {
	if u.content.TailSize > 0 { // the last bytes came before their client said that they were the last
		w, err := u.newWriter(ctx, nil)
		if err != nil {
			return err
		}
		if err := w.close(nil); err != nil || u.pending != nil {
			return err
		}
	}
	if u.content.MultipartID == nil {
		return fmt.Errorf("assemble upload %s: all bytes are there, but no part is", u.row.ID)
	}
	parts, err := storage.InTenant(ctx, u.store.db, func(tx storage.Tx) ([]storage.Part, error) { return tx.Parts(ctx, u.row.ID) })
	if err != nil {
		return err
	}
	err = u.store.bucket.completeMultipart(ctx, *u.content.ObjectKey, *u.content.MultipartID, parts)
	if errors.Is(err, ErrNoObject) {
		// Either it was completed before, and the answer or our commit was lost, or somebody aborted it.
		err = u.checkAssembled(ctx)
	}
	if err != nil {
		return fmt.Errorf("assemble upload %s: %w", u.row.ID, err)
	}
	u.pending = &storage.Progress{From: u.row.Size, To: u.row.Size, HashState: u.content.HashState, Object: *u.content.ObjectKey}
	return nil
}

func (u *Upload) checkAssembled(ctx context.Context) error {
	size, err := u.store.bucket.Size(ctx, *u.content.ObjectKey)
	switch {
	case err != nil && !errors.Is(err, ErrNoObject):
		return err
	case err != nil || size != u.row.Size:
		return u.lost()
	}
	return nil
}

// lost is the error for an upload whose acknowledged bytes S3 no longer has, together with others.
func (u *Upload) lost(others ...uuid.UUID) error {
	return &LostError{append([]uuid.UUID{u.row.ID}, others...)}
}

// resumeHash continues the SHA-256 that was saved as state; nil begins one.
func resumeHash(state []byte) (hash.Hash, error) {
	h := sha256.New()
	if state == nil {
		return h, nil
	}
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return nil, fmt.Errorf("resume hash: %w", err)
	}
	return h, nil
}
