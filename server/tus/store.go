package tus

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// tusd sends the text of an error that it does not know to the client and forgets the error. Each error of ours is noted in
// its exchange on its way through tusd, so that the answer can be made from the error itself.

// A store is [hooks.Uploads] as tusd drives it: it opens the upload of the exchange in ctx.
type store struct{ *Handler }

// NewUpload implements [handler.DataStore]. The upload is created already; it is opened once tusd has taken its lease.
func (s store) NewUpload(ctx context.Context, info handler.FileInfo) (handler.Upload, error) {
	x := exchangeOf(ctx)
	id, err := uuid.Parse(info.ID)
	if err != nil {
		return nil, x.note(err)
	}
	x.upload = &upload{exchange: x, id: id, created: info}
	return x.upload, nil
}

// GetUpload implements [handler.DataStore]. tusd calls it under the upload's lease, except for the partial uploads of a
// final one.
func (s store) GetUpload(ctx context.Context, name string) (handler.Upload, error) {
	x := exchangeOf(ctx)
	id, err := uuid.Parse(name)
	if err != nil {
		return nil, x.note(storage.ErrNotFound)
	}
	u := &upload{exchange: x, id: id}
	switch {
	case x.locked == nil:
		u.Upload, err = s.uploads.View(ctx, id)
		return u, x.note(err)
	case x.request.Method == http.MethodDelete:
		err = x.locked.ContinueToEnd(ctx)
	default:
		err = x.locked.Continue(ctx)
	}
	if err == nil {
		u.Upload, x.upload = x.locked, u
		forgetKnownLength(x.request, u.info())
	}
	return u, x.note(err)
}

// AsTerminatableUpload implements [handler.TerminaterDataStore].
func (s store) AsTerminatableUpload(u handler.Upload) handler.TerminatableUpload { return u.(*upload) }

// AsLengthDeclarableUpload implements [handler.LengthDeferrerDataStore].
func (s store) AsLengthDeclarableUpload(u handler.Upload) handler.LengthDeclarableUpload {
	return u.(*upload)
}

// AsConcatableUpload implements [handler.ConcaterDataStore].
func (s store) AsConcatableUpload(u handler.Upload) handler.ConcatableUpload { return u.(*upload) }

// An upload is one of an exchange's.
type upload struct {
	*hooks.Upload // nil until its lease is taken, of one that the exchange creates
	exchange      *exchange
	id            uuid.UUID
	created       handler.FileInfo
}

// open continues an upload that the exchange has created, once its lease is taken.
func (u *upload) open(ctx context.Context) error {
	if u.Upload != nil {
		return nil
	}
	if err := u.exchange.locked.Continue(ctx); err != nil {
		return err
	}
	u.Upload = u.exchange.locked
	return nil
}

// info is what is known of the upload now.
func (u *upload) info() handler.FileInfo {
	if u.Upload == nil {
		return u.created
	}
	row := u.Row()
	partials := make([]string, len(row.Partials))
	for i, id := range row.Partials {
		partials[i] = id.String()
	}
	return handler.FileInfo{
		ID:             row.ID.String(),
		IsPartial:      row.Kind == storage.Partial,
		IsFinal:        row.Kind == storage.Final,
		PartialUploads: partials,
		Size:           row.Size,
		SizeIsDeferred: row.SizeDeferred,
		Offset:         row.Received,
		MetaData:       row.Metadata,
	}
}

// metadata is the upload's Upload-Metadata (tus 1.0.0, Creation: MUST be as its client gave it).
func (u *upload) metadata() string {
	if given := u.Row().MetadataHeader; given != nil {
		return *given
	}
	return formatMetadata(u.Row().Metadata)
}

// expires returns when the upload expires unless more of it arrives.
func (u *upload) expires() (time.Time, bool) {
	if u.Upload == nil {
		return u.exchange.handler.uploads.Expiry.FromNow(), !u.created.IsFinal // whose bytes are all there
	}
	return u.Expires()
}

// GetInfo implements [handler.Upload].
func (u *upload) GetInfo(context.Context) (handler.FileInfo, error) { return u.info(), nil }

// WriteChunk implements [handler.Upload]. tusd's reader ends early and without an error when the client's connection drops,
// and tusd says so afterwards.
func (u *upload) WriteChunk(ctx context.Context, offset int64, src io.Reader) (n int64, err error) {
	if err = u.open(ctx); err != nil {
		return 0, u.exchange.note(err)
	}
	if announced := u.exchange.request.ContentLength; u.Row().SizeDeferred && offset+announced > u.Row().ChargedBytes {
		err = u.TooLong() // before the client pays for bytes that are refused
	} else {
		n, err = u.Write(ctx, offset, &source{Reader: src, body: u.exchange.body}, u.exchange.checksum)
	}
	if err != nil && u.exchange.request.Method == http.MethodPost {
		u.abandon(ctx, err)
	}
	return n, u.exchange.note(err)
}

// abandonTimeout bounds the cancellation of the upload of a refused creation.
const abandonTimeout = 10 * time.Second

// abandon cancels an upload whose creation is refused because of cause, to release its quota at once, if nothing of it was kept
// and its client would not come back for it: by its client_id, or by the address in a draft's interim answer. A body beyond
// the declared length is of another file.
func (u *upload) abandon(ctx context.Context, cause error) {
	x, row := u.exchange, u.Row()
	resumable := row.ClientID != nil || draftVersion(x.request) != ""
	if row.Received > 0 || resumable && !errors.Is(cause, object.ErrBeyondLength) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTimeout)
	defer cancel()
	if err := u.Cancel(ctx); err != nil {
		x.handler.uploads.Log.WarnContext(ctx, "upload of a refused creation is left to expire",
			slog.String("upload_id", u.id.String()), slog.Any("err", err))
		return
	}
	x.upload = nil
	x.Header().Del("Location") // which the answer to a draft has from the beginning
}

// FinishUpload implements [handler.Upload].
func (u *upload) FinishUpload(ctx context.Context) error {
	err := u.open(ctx)
	if err == nil {
		err = u.Finish(ctx)
	}
	return u.exchange.note(err)
}

// DeclareLength implements [handler.LengthDeclarableUpload].
func (u *upload) DeclareLength(ctx context.Context, length int64) error {
	return u.exchange.note(u.Upload.DeclareLength(ctx, length))
}

// Terminate implements [handler.TerminatableUpload].
func (u *upload) Terminate(ctx context.Context) error { return u.exchange.note(u.Cancel(ctx)) }

// ConcatUploads implements [handler.ConcatableUpload]. tusd takes no lease in the POST that creates a final upload. Which
// partial uploads it has is in its row.
func (u *upload) ConcatUploads(ctx context.Context, _ []handler.Upload) error {
	return u.exchange.note(u.exchange.handler.uploads.Concatenate(ctx, u.id, u.exchange.handler.LeaseTimeout))
}

// GetReader implements [handler.Upload] by refusing: an upload is never read before it is scanned, and then by a link.
func (u *upload) GetReader(context.Context) (io.ReadCloser, error) {
	return nil, handler.ErrNotImplemented
}

// A locker is leases as tusd knows them.
type locker struct{ *Handler }

// NewLock implements [handler.Locker].
func (l locker) NewLock(id string) (handler.Lock, error) { return &lock{id: id}, nil }

type lock struct {
	id       string
	exchange *exchange // once it is locked
}

// Lock implements [handler.Lock]. A wait that ends in vain is [lease.ErrHeld] (423), because clients retry that, and never
// tusd's lock timeout (500), after which tus-js-client begins again from byte 0.
func (l *lock) Lock(ctx context.Context, requestUnlock func()) error {
	x := exchangeOf(ctx)
	id, err := uuid.Parse(l.id)
	if err != nil {
		return x.note(storage.ErrNotFound)
	}
	l.exchange = x
	if x.locked != nil { // the exchange has created it
		x.locked.OnWant(requestUnlock)
		return nil
	}
	if x.request.Method == http.MethodHead {
		if x.locked, err = x.handler.uploads.Peek(ctx, id); err != nil || x.locked != nil {
			return x.note(err)
		}
	}
	x.locked, err = x.handler.uploads.Acquire(ctx, id, requestUnlock)
	return x.note(err)
}

// Unlock implements [handler.Lock]. It runs when the request is over, dropped connections included.
func (l *lock) Unlock() error {
	l.exchange.close()
	return nil
}
