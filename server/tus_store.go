package server

import (
	"context"
	"io"

	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/storage/object"
)

// tusd sends the text of an error that it does not know to the client and forgets the error. What stands
// in this file notes each error of our parts on its way through tusd, so that the answer can be made from
// the error itself.

type writerKey struct{}

// note keeps the first error that a request meets for its [tusWriter].
func note(ctx context.Context, err error) error {
	if w, ok := ctx.Value(writerKey{}).(*tusWriter); ok && w.cause == nil {
		w.cause = err
	}
	return err
}

// opened tells a request's [tusWriter] which upload the answer is about.
func opened(ctx context.Context, u handler.Upload, err error) handler.Upload {
	if w, ok := ctx.Value(writerKey{}).(*tusWriter); ok && err == nil {
		w.upload = u
	}
	return notingUpload{u}
}

type notingStore struct {
	store  *object.Store
	server *Server
}

func (s notingStore) NewUpload(ctx context.Context, info handler.FileInfo) (handler.Upload, error) {
	u, err := s.store.NewUpload(ctx, info)
	return opened(ctx, u, err), note(ctx, err)
}

func (s notingStore) GetUpload(ctx context.Context, id string) (handler.Upload, error) {
	u, err := s.store.GetUpload(ctx, id)
	return opened(ctx, u, err), note(ctx, err)
}

func (s notingStore) AsTerminatableUpload(u handler.Upload) handler.TerminatableUpload {
	return notingTermination{s.store.AsTerminatableUpload(u.(notingUpload).Upload)}
}

func (s notingStore) AsLengthDeclarableUpload(u handler.Upload) handler.LengthDeclarableUpload {
	return notingDeclaration{s.store.AsLengthDeclarableUpload(u.(notingUpload).Upload)}
}

func (s notingStore) AsConcatableUpload(u handler.Upload) handler.ConcatableUpload {
	return concatenation{s.store.AsConcatableUpload(u.(notingUpload).Upload), s.server, u}
}

type notingUpload struct{ handler.Upload }

func (u notingUpload) GetInfo(ctx context.Context) (handler.FileInfo, error) {
	info, err := u.Upload.GetInfo(ctx)
	if err == nil {
		forgetKnownLength(ctx, info)
	}
	return info, note(ctx, err)
}

func (u notingUpload) WriteChunk(ctx context.Context, offset int64, src io.Reader) (int64, error) {
	n, err := u.Upload.WriteChunk(ctx, offset, src)
	return n, note(ctx, err)
}

func (u notingUpload) FinishUpload(ctx context.Context) error {
	return note(ctx, u.Upload.FinishUpload(ctx))
}

type notingTermination struct{ handler.TerminatableUpload }

func (t notingTermination) Terminate(ctx context.Context) error {
	return note(ctx, t.TerminatableUpload.Terminate(ctx))
}

type notingDeclaration struct{ handler.LengthDeclarableUpload }

func (d notingDeclaration) DeclareLength(ctx context.Context, length int64) error {
	return note(ctx, d.LengthDeclarableUpload.DeclareLength(ctx, length))
}

type notingLocker struct{ handler.Locker }

func (l notingLocker) NewLock(id string) (handler.Lock, error) {
	lock, err := l.Locker.NewLock(id)
	return notingLock{lock}, err
}

type notingLock struct{ lock handler.Lock }

func (l notingLock) Lock(ctx context.Context, letGo func()) error {
	return note(ctx, l.lock.Lock(ctx, letGo))
}

func (l notingLock) Unlock() error { return l.lock.Unlock() }
