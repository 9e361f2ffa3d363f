package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// Why an upload cannot go on.
var (
	ErrExpired       = errors.New("upload has expired")
	ErrGone          = errors.New("upload has ended and takes no more bytes")
	ErrNotFinished   = errors.New("upload has all its bytes, and could not be finished just now")
	ErrPartOfAnother = errors.New("upload is part of another upload")
)

// Uploads is the life of an upload: it is created, opened under its lease, written, and finished or cancelled. Every
// protocol goes this way.
type Uploads struct {
	Admission *Admission // lets uploads begin; nil where none does
	DB        *storage.DB
	Queue     *queue.Queue
	Bucket    *object.Bucket
	Store     *object.Store
	Leases    *lease.Manager
	Expiry    Expiry
	Metrics   *Metrics
	Log       *slog.Logger

	Erasures *erasure.Service // of uploads that take no more bytes
}

// MayUpload returns the user in ctx, and [tenant.ErrForbidden] unless its role may create and write uploads.
func MayUpload(ctx context.Context) (tenant.Identity, error) {
	who, err := tenant.From(ctx)
	if err == nil && !who.Role.CanUpload() {
		err = tenant.ErrForbidden
	}
	return who, err
}

// Create is [Admission.Admit], unless bytes could not be kept at present: that is [object.ErrUnavailable].
func (s *Uploads) Create(ctx context.Context, r Request) (Admitted, error) {
	if s.Store.Unavailable() {
		return Admitted{}, object.ErrUnavailable
	}
	return s.Admission.Admit(ctx, r)
}

// CreateHeld is Create for a request that writes next: it takes the lease of a new upload in the transaction that creates it.
// u is nil for an upload that the client has created before, and if the lease could not be taken then: it is to be opened.
// Whoever gets it must close it.
func (s *Uploads) CreateHeld(ctx context.Context, r Request) (a Admitted, u *Upload, err error) {
	if s.Store.Unavailable() {
		return Admitted{}, nil, object.ErrUnavailable
	}
	a, err = s.Admission.Admit(ctx, r, func(tx storage.Tx, id uuid.UUID) error {
		u = nil // of a transaction that failed
		if l := s.Leases.AcquireNew(tx, id); l != nil {
			u = &Upload{s.Store.Read(tx, id), s, l}
			u.Hold(l)
		}
		return nil
	})
	if err != nil || a.Existing {
		return a, nil, err
	}
	return a, u, nil
}

// An Upload is one request's view of an upload.
type Upload struct {
	*object.Upload
	uploads *Uploads
	lease   *lease.Lease // nil for a view
}

// View reads an upload that the user in ctx may write, without its lease: nothing can be done with it.
func (s *Uploads) View(ctx context.Context, id uuid.UUID) (*Upload, error) {
	u, err := s.open(ctx, id, nil)
	if err != nil {
		return nil, err
	}
	who, err := tenant.From(ctx)
	if err == nil && !who.MayWrite(u.Row().UserID) { // a lease is given to nobody else
		return nil, storage.ErrNotYours
	}
	return u, s.check(u.Row())
}

// Peek reads an upload that the user in ctx may write, as it is while nobody writes it: it takes no lease, and nothing can be
// done with it. u is nil if somebody has the lease, or if the upload has all its bytes and is to be finished: then only whoever
// acquires it can tell its offset.
func (s *Uploads) Peek(ctx context.Context, id uuid.UUID) (u *Upload, err error) {
	var free bool
	err = s.DB.InTenant(ctx, func(tx storage.Tx) error {
		u = &Upload{Upload: s.Store.Read(tx, id), uploads: s}
		lease.Free(tx, id, &free)
		return nil
	}, storage.PlannedOnce)
	if err != nil {
		return nil, err
	}
	who, err := tenant.From(ctx)
	if err == nil && !who.MayWrite(u.Row().UserID) {
		return nil, storage.ErrNotYours
	}
	if !free || u.unfinished() {
		return nil, err
	}
	return u, err
}

// Open waits for so long at most until it has acquired an upload, and continues it. Whoever opens an upload must close it.
func (s *Uploads) Open(ctx context.Context, id uuid.UUID, wait time.Duration, wanted func()) (*Upload, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	u, err := s.Acquire(waiting, id, wanted)
	if err != nil {
		return nil, err
	}
	if err := u.Continue(ctx); err != nil {
		u.Close(ctx)
		return nil, err
	}
	return u, nil
}

// Acquire takes the lease on an upload of the user in ctx, and reads the upload in the same transaction. wanted is
// [lease.Manager.Acquire]'s. Nothing may be done with the upload before it is continued. Whoever acquires it must close it.
func (s *Uploads) Acquire(ctx context.Context, id uuid.UUID, wanted func()) (*Upload, error) {
	var o *object.Upload
	l, err := s.Leases.AcquireAnd(ctx, id, wanted, func(tx storage.Tx) { o = s.Store.Read(tx, id) })
	if err != nil {
		return nil, err
	}
	o.Hold(l)
	return &Upload{o, s, l}, nil
}

// OpenUnder opens an upload under a lease that is held already, and continues it.
func (s *Uploads) OpenUnder(ctx context.Context, id uuid.UUID, l *lease.Lease) (*Upload, error) {
	u, err := s.open(ctx, id, l)
	if err != nil {
		return nil, err
	}
	return u, u.Continue(ctx)
}

// Continue prepares an upload to go on. One that has all its bytes but was never finished, because a server died or a
// dependency failed just then, is finished first, so that no client sees an offset equal to the size of an upload that is
// not complete; if that fails now, it is [ErrNotFinished]. So is a final upload: its bytes are all there from the beginning
// (tus 1.0.0, Concatenation). One that takes no more bytes and has no content is [ErrGone], or [ErrExpired].
func (u *Upload) Continue(ctx context.Context) error {
	if err := u.uploads.check(u.Row()); err != nil {
		return err
	}
	return u.resume(ctx)
}

// ContinueToEnd is [Upload.Continue] for a request that ends the upload: also one that has failed.
func (u *Upload) ContinueToEnd(ctx context.Context) error {
	if row := u.Row(); row.Status != storage.Failed {
		return u.Continue(ctx)
	}
	return u.resume(ctx)
}

// OnWant sets what is called when another request wants the upload ([lease.Lease.OnWant]).
func (u *Upload) OnWant(call func()) { u.lease.OnWant(call) }

func (s *Uploads) open(ctx context.Context, id uuid.UUID, l *lease.Lease) (*Upload, error) {
	u, err := s.Store.Open(ctx, id, l)
	if err != nil {
		return nil, err
	}
	return &Upload{u, s, l}, nil
}

// check tells an upload whose bytes count from one that has ended.
func (s *Uploads) check(u storage.Upload) error {
	switch {
	case s.Expiry.passed(u):
		return ErrExpired
	case u.Status == storage.Cancelled,
		u.Status == storage.Failed && (u.UploadedAt == nil || *u.FailureReason == storage.ReasonLost):
		return ErrGone
	}
	return nil
}

// resume finishes an upload whose finish was cut off.
func (u *Upload) resume(ctx context.Context) error {
	if !u.unfinished() {
		return nil
	}
	err := u.Finish(ctx)
	if err == nil {
		return nil
	}
	u.uploads.Log.ErrorContext(ctx, "upload has all its bytes but cannot be finished",
		slog.String("upload_id", u.Row().ID.String()), slog.Any("err", err))
	for _, final := range []error{ErrGone, object.ErrLost, storage.ErrFenced} { // trying again finishes none of these
		if errors.Is(err, final) {
			return err
		}
	}
	return ErrNotFinished
}

// unfinished reports whether the upload has all that it takes to be finished, and is not.
func (u *Upload) unfinished() bool {
	row := u.Row()
	return row.Status.Receiving() && row.UploadedAt == nil && !row.SizeDeferred &&
		(row.Received == row.Size || row.Kind == storage.Final)
}

// Concatenate assembles a final upload and finishes it, under its lease, for which it waits for so long at most. One that is
// finished is left as it is.
func (s *Uploads) Concatenate(ctx context.Context, id uuid.UUID, wait time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	// It does not give up the lease on request: it waits for S3 only, and a request that waits for it gets a finished upload.
	u, err := s.Acquire(waiting, id, nil)
	if err != nil {
		return err
	}
	defer u.Close(ctx)
	if err := s.check(u.Row()); err != nil || !u.unfinished() {
		return err
	}
	return u.Finish(ctx)
}

// Write is [object.Upload.Write]. Once all bytes are there, [Upload.Finish] must be next. An upload of which S3 has lost bytes ends, and so does one whose first bytes show that it is not
// accepted, before its client pays for the rest: that is [ErrTypeNotAllowed].
func (u *Upload) Write(ctx context.Context, offset int64, body object.Body, check *object.Check) (int64, error) {
	watched := u.watch(offset, body)
	if watched != nil {
		body = watched
	}
	n, err := u.Upload.Write(ctx, offset, body, check)
	if errors.Is(err, object.ErrRefused) {
		return n, u.refuseType(ctx, watched.refused)
	}
	if errors.Is(err, object.ErrTooLong) {
		err = u.TooLong()
	}
	return n, u.endLost(ctx, err)
}

// TooLong refuses a body with more bytes than the upload, of unknown size, may have.
func (u *Upload) TooLong() error {
	most := u.Row().ChargedBytes
	return &tenant.Refusal{
		Cause:  object.ErrTooLong,
		Detail: fmt.Sprintf("The file has more than %s, which is the most.", humanize.IBytes(uint64(most))),
		Facts:  map[string]any{"max_bytes": most},
	}
}

// DeclareLength gives an upload of unknown size its size in bytes. When all bytes are there already, Finish is next. One
// that turns out to have no content ends, and is [ErrEmpty]. A size above what it may have is [ErrTooLarge], and another that
// it cannot have [storage.ErrBadLength].
func (u *Upload) DeclareLength(ctx context.Context, length int64) error {
	if length == 0 && u.Row().Received == 0 {
		if err := u.Cancel(ctx); err != nil { // nothing can come of it, and it holds quota
			return err
		}
		return tenant.Refuse(ErrEmpty, "The upload has ended. Choose a file that has content.")
	}
	err := u.Upload.DeclareLength(ctx, length)
	switch {
	case errors.Is(err, storage.ErrTooLarge):
		return tooLarge(length, u.Row().ChargedBytes)
	case errors.Is(err, storage.ErrWrongStatus):
		return storage.ErrBadLength
	}
	return err
}

// finishTimeout bounds the transaction that finishes an upload. Its client may have gone.
const finishTimeout = 30 * time.Second

// Finish makes the upload's object, and then "complete" true, in one transaction ([Uploads.Record]), which also gives the lease
// back. Only after it returns nil may the client hear success. It can be repeated.
func (u *Upload) Finish(ctx context.Context) error {
	key, sum, err := u.Assemble(ctx)
	if err != nil {
		return u.endLost(ctx, err)
	}
	row := u.Row()
	recording, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	err = u.uploads.Record(recording, row, key, sum, func(tx storage.Tx) error {
		if err := u.Record(recording, tx); err != nil {
			return err
		}
		u.lease.ReleaseIn(tx)
		return nil
	})
	if err != nil {
		if saved := u.Save(recording); saved != nil && !errors.Is(saved, storage.ErrFenced) { // its client sends the last bytes again
			u.uploads.Log.WarnContext(ctx, "offset not saved", slog.String("upload_id", row.ID.String()), slog.Any("err", saved))
		}
		if errors.Is(err, storage.ErrWrongStatus) { // its batch was cancelled while the last bytes came, which asks for no lease
			u.uploads.release(recording, row.ID)
			return ErrGone
		}
		return err
	}
	if row.Kind == storage.Final {
		if err := u.RemovePartials(context.WithoutCancel(ctx)); err != nil {
			u.uploads.logRemains(ctx, row.ID, err)
		}
	}
	return nil
}

// Cancel takes the upload back (tus 1.0.0, Termination), removes what S3 has of it, and then refunds its quota. If S3 is away,
// the upload is cancelled all the same, and stays charged until the reconciler has removed it. One that takes no more bytes is
// deleted, and can be restored for a while; one that is part of another is [ErrPartOfAnother].
func (u *Upload) Cancel(ctx context.Context) error {
	id := u.Row().ID
	err := u.uploads.cancel(ctx, id, u.held)
	if errors.Is(err, storage.ErrWrongStatus) {
		if err = u.uploads.Erasures.Delete(ctx, id); errors.Is(err, storage.ErrWrongStatus) {
			return ErrPartOfAnother
		}
		return err
	}
	if err != nil {
		return err
	}
	u.uploads.release(ctx, id)
	return nil
}

// Expires is [Expiry.Of] for the upload as it is now.
func (u *Upload) Expires() (at time.Time, ok bool) { return u.uploads.Expiry.Of(u.Row()) }

// Close gives the lease back, if there is one still.
func (u *Upload) Close(ctx context.Context) {
	if u.lease != nil {
		u.lease.Close(ctx)
	}
}

// endLost ends the uploads of which S3 no longer has acknowledged bytes, and returns err: their clients must begin new ones,
// under the same client ids if they like.
func (u *Upload) endLost(ctx context.Context, err error) error {
	var lost *object.LostError
	if !errors.As(err, &lost) {
		return err
	}
	row := u.Row()
	for _, id := range lost.Uploads {
		ended := u.uploads.lose(context.WithoutCancel(ctx), id, u.held)
		switch {
		case errors.Is(ended, storage.ErrFenced): // what u misses is where the request that has taken over has put it
			return ended
		case errors.Is(ended, storage.ErrWrongStatus): // it has ended before
		case ended != nil:
			return fmt.Errorf("end lost upload %s: %w", id, ended)
		case id != row.ID || row.Kind != storage.Final: // whose bytes are its partial uploads'
			u.uploads.Metrics.offsetsLost.Inc()
			u.uploads.Log.ErrorContext(ctx, "acknowledged bytes are gone from S3", slog.String("upload_id", id.String()))
		}
	}
	u.uploads.release(ctx, lost.Uploads...)
	return err
}
