package hooks

import (
	"context"
	"io"

	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// A begunBody is a body whose first bytes were read before.
type begunBody struct {
	object.Body
	begin []byte // of it, what was not read again
	err   error  // how the reading ended, if it did
}

// Read implements [io.Reader].
func (b *begunBody) Read(p []byte) (int, error) {
	if len(b.begin) > 0 {
		n := copy(p, b.begin)
		b.begin = b.begin[n:]
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.Body.Read(p)
}

// Ended implements [object.Body].
func (b *begunBody) Ended() bool { return len(b.begin) == 0 && b.Body.Ended() }

// look reads the first bytes of an upload, and ends it if they show that it is not accepted. What is small is left to the worker,
// and so are the parts of a file that comes as several uploads.
func (u *Upload) look(ctx context.Context, body object.Body) (object.Body, error) {
	row := u.Row()
	small := !row.SizeDeferred && row.Size <= mediatype.BeginSize
	if small || row.Kind != storage.Single || u.uploads.Admission == nil || u.uploads.Store.Unavailable() {
		return body, nil
	}
	begun := &begunBody{Body: body, begin: make([]byte, mediatype.BeginSize)}
	n, err := io.ReadFull(body, begun.begin)
	begun.begin, begun.err = begun.begin[:n], err
	if n < mediatype.BeginSize {
		return begun, nil
	}
	if mediaType, refused := u.uploads.Admission.Policy.Types.Refuses(begun.begin); refused {
		return nil, u.refuseType(ctx, mediaType)
	}
	return begun, nil
}

// refuseType ends the upload, of which nothing is kept.
func (u *Upload) refuseType(ctx context.Context, mediaType string) error {
	ctx = context.WithoutCancel(ctx) // a client that goes would begin again otherwise
	failure := storage.Failure{Reason: storage.ReasonTypeNotAllowed, Detail: mediatype.NotAccepted(mediaType)}
	err := u.uploads.DB.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Move(ctx, u.Row().ID, storage.MoveReject.Because(failure))
	})
	if err != nil {
		return err
	}
	u.uploads.Metrics.became(storage.Failed)
	return tenant.Refuse(ErrTypeNotAllowed, "%s", failure.Detail)
}
