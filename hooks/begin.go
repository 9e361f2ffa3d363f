package hooks

import (
	"context"

	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// A watchedBody is a body whose first bytes are looked at as they pass.
type watchedBody struct {
	object.Body
	types   mediatype.Policy
	begin   []byte // up to [mediatype.BeginSize] bytes
	refused string // the type that is not accepted; "" for none
}

// Read implements [io.Reader]. Once it has read the first bytes, and they show that the file is not accepted, it brings no more.
// Bytes of a slow client pass before that: they must become durable in time.
func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	missing := mediatype.BeginSize - len(b.begin)
	if missing == 0 || n == 0 {
		return n, err
	}
	b.begin = append(b.begin, p[:min(n, missing)]...)
	if len(b.begin) == mediatype.BeginSize {
		if mediaType, refused := b.types.Refuses(b.begin); refused {
			b.refused = mediaType
			return 0, object.ErrRefused
		}
	}
	return n, err
}

// watch looks at the first bytes of an upload as they arrive; nil leaves it to the worker: what is small, and the parts of a
// file that comes as several uploads.
func (u *Upload) watch(offset int64, body object.Body) *watchedBody {
	row := u.Row()
	small := !row.SizeDeferred && row.Size <= mediatype.BeginSize
	if offset != 0 || small || row.Kind != storage.Single || u.uploads.Admission == nil {
		return nil
	}
	return &watchedBody{Body: body, types: u.uploads.Admission.Policy.Types}
}

// refuseType ends the upload, of which nothing is kept.
func (u *Upload) refuseType(ctx context.Context, mediaType string) error {
	ctx = context.WithoutCancel(ctx) // a client that goes would begin again otherwise
	failure := storage.Failure{Reason: storage.ReasonTypeNotAllowed, Detail: mediatype.NotAccepted(mediaType)}
	if err := u.uploads.end(ctx, u.Row().ID, storage.MoveReject.Because(failure), u.held); err != nil {
		return err
	}
	u.uploads.Metrics.became(storage.Failed)
	u.uploads.release(ctx, u.Row().ID)
	return tenant.Refuse(ErrTypeNotAllowed, "%s", failure.Detail)
}
