package object

import (
	"context"
	"errors"
	"net/http"

	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/storage"
)

// ErrEmpty says that an upload turned out to have no content. It has ended.
var ErrEmpty = handler.NewError("ERR_UPLOAD_EMPTY", "upload has no content", http.StatusUnprocessableEntity)

// AsLengthDeclarableUpload implements [handler.LengthDeferrerDataStore].
func (s *Store) AsLengthDeclarableUpload(u handler.Upload) handler.LengthDeclarableUpload {
	return u.(*upload)
}

// DeclareLength implements [handler.LengthDeclarableUpload]. When all bytes are there already, the upload is
// finished by what tusd calls next, or by the next HEAD.
func (u *upload) DeclareLength(ctx context.Context, length int64) error {
	if length == 0 && u.content.Received == 0 {
		if err := u.Terminate(ctx); err != nil { // nothing can come of it, and it holds room
			return err
		}
		return ErrEmpty
	}
	u.takeFence(ctx)
	err := u.store.db.InTenant(ctx, func(tx storage.Tx) error {
		return tx.DeclareLength(ctx, u.row.ID, u.fence, length)
	})
	switch {
	case errors.Is(err, storage.ErrFenced):
		return handler.ErrFileLocked
	case errors.Is(err, storage.ErrBadLength), errors.Is(err, storage.ErrWrongStatus):
		return handler.ErrInvalidUploadLength
	case err != nil:
		return err
	}
	u.row.Size, u.row.SizeDeferred, u.row.ChargedBytes = length, false, length
	return nil
}

// takeFence completes the view of an upload that was opened before its lease was taken, as tusd does in a
// creation that brings content.
func (u *upload) takeFence(ctx context.Context) {
	if u.fence == 0 {
		u.fence = fenceIn(ctx)
	}
}
