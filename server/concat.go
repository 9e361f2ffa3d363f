package server

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/hooks"
)

// A concatenation of our store's, under the final upload's lease: tusd takes none in the POST that creates it.
type concatenation struct {
	handler.ConcatableUpload
	server *Server
	final  handler.Upload
}

func (c concatenation) ConcatUploads(ctx context.Context, partials []handler.Upload) error {
	return note(ctx, c.concat(ctx, partials))
}

func (c concatenation) concat(ctx context.Context, partials []handler.Upload) error {
	info, err := c.final.GetInfo(ctx)
	if err != nil {
		return err
	}
	lock, err := c.server.Locker.NewLock(info.ID)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, c.server.LockTimeout)
	defer cancel()
	// It lets nobody go before: it waits for S3 alone, and who asks in between gets a finished upload.
	if err := lock.Lock(waiting, func() {}); err != nil {
		return err
	}
	defer lock.Unlock() //nolint:errcheck // the locker logs it
	return c.ConcatableUpload.ConcatUploads(ctx, partials)
}

// resolvePartials writes the addresses in Upload-Concat as tusd reads them. A client may name partial uploads by
// relative addresses and by those of any replica (tus 1.0.0, Concatenation, Upload-Concat).
func (s *Server) resolvePartials(r *http.Request) error {
	list, final := strings.CutPrefix(r.Header.Get("Upload-Concat"), "final;")
	if !final {
		return nil
	}
	base := &url.URL{Path: UploadsPath + "/"}
	var resolved []string
	for _, address := range strings.Fields(list) {
		u, err := base.Parse(address)
		if err != nil {
			return handler.ErrInvalidConcat
		}
		id, ours := strings.CutPrefix(u.Path, UploadsPath+"/")
		if _, err := uuid.Parse(id); !ours || err != nil {
			return handler.ErrNotFound
		}
		resolved = append(resolved, s.base()+id)
	}
	if len(resolved) > hooks.MaxPartials { // before tusd looks at each
		return &hooks.Refusal{Cause: hooks.ErrNotPartial, Detail: "Upload-Concat names " + strconv.Itoa(len(resolved)) +
			" partial uploads; the most is " + strconv.Itoa(hooks.MaxPartials) + "."}
	}
	r.Header.Set("Upload-Concat", "final;"+strings.Join(resolved, " "))
	return nil
}

// forgetKnownLength takes Upload-Length from a PATCH that says again what is known: tusd refuses that, but a
// client whose connection was cut after it had declared the length cannot know.
func forgetKnownLength(ctx context.Context, info handler.FileInfo) {
	w, ok := ctx.Value(writerKey{}).(*tusWriter)
	if !ok || w.request.Method != http.MethodPatch || info.SizeIsDeferred {
		return
	}
	if h := w.request.Header; h.Get("Upload-Length") == strconv.FormatInt(info.Size, 10) {
		h.Del("Upload-Length")
	}
}
