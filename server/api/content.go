package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// thumbnailLinkLife is how long S3 serves a thumbnail by a redirect of ours, which a browser follows at once. It may keep the
// redirect for a little less.
const thumbnailLinkLife = 5 * time.Minute

// GetContent gives the content of an upload.
func (a *API) GetContent(c echo.Context) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	content, err := a.Contents.Original(c.Request().Context(), id)
	if err != nil {
		return err
	}
	name := ""
	if content.Upload.Filename != nil {
		name = *content.Upload.Filename
	}
	p := object.Presentation{Life: object.LinkLife, Cache: "private"} // the link is for whom it was made, no cache between
	p.Type, p.Disposition = present(content.Type, name, id.String())
	return a.give(c, content, p, 0)
}

// GetThumbnail gives the thumbnail that was drawn for a box of the size in the path.
func (a *API) GetThumbnail(c echo.Context) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	size, err := strconv.Atoi(c.Param("size"))
	if err != nil || size <= 0 {
		return problem.ErrNotFound
	}
	ctx := c.Request().Context()
	content, err := a.Contents.Thumbnail(ctx, id, size)
	if err != nil {
		return err
	}
	p := object.Presentation{Life: thumbnailLinkLife, Cache: cacheFor(thumbnailLinkLife)}
	p.Type, p.Disposition = present(content.Type, "", id.String()+"-"+c.Param("size"))
	var keep time.Duration
	if c.QueryParams().Has(resource.LinkParameter) { // only then the address is the user's own
		who, err := tenant.From(ctx)
		if err != nil {
			return err
		}
		keep = min(time.Until(content.Until), time.Until(who.Expires))
	}
	return a.give(c, content, p, keep)
}

// give sends a client that may have the content to S3, or sends the content itself. The client may keep the answer for that
// time; 0 for no time.
func (a *API) give(c echo.Context, content hooks.Content, p object.Presentation, keep time.Duration) error {
	if a.ServeContent {
		return a.send(c, content, p, keep)
	}
	// S3 answers ranges and conditions: a client sends their headers along.
	p.Method = c.Request().Method
	link, err := a.Bucket.LinkAs(c.Request().Context(), content.Keys, content.Key, p)
	if err != nil {
		return err
	}
	cache := "no-store" // the link expires
	if keep = min(keep, p.Life-time.Minute); keep > 0 {
		cache = cacheFor(keep)
	}
	c.Response().Header().Set("Cache-Control", cache)
	return c.Redirect(http.StatusFound, link)
}

func cacheFor(d time.Duration) string { return fmt.Sprintf("private, max-age=%d", int(d.Seconds())) }

// send sends content, for clients that cannot reach S3.
func (a *API) send(c echo.Context, content hooks.Content, p object.Presentation, keep time.Duration) error {
	r, w := c.Request(), c.Response()
	h, etag := w.Header(), etagOf(content)
	status, body := http.StatusOK, &object.Opened{ReadCloser: http.NoBody, Size: content.Size}
	switch {
	case matches(r.Header.Get("If-None-Match"), etag):
		status = http.StatusNotModified
	case r.Method == http.MethodGet:
		wanted := r.Header.Get("Range")
		if condition := r.Header.Get("If-Range"); condition != "" && condition != etag { // RFC 9110, section 13.1.5
			wanted = ""
		}
		var err error
		if body, err = a.Bucket.Open(r.Context(), content.Keys, content.Key, wanted); err != nil {
			if errors.Is(err, object.ErrNoSuchRange) {
				h.Set("Content-Range", fmt.Sprintf("bytes */%d", content.Size))
			}
			return err
		}
	}
	defer body.Close()
	h.Set("ETag", etag)
	h.Set("Cache-Control", "private, no-cache")
	if keep > 0 {
		h.Set("Cache-Control", cacheFor(keep))
	}
	if status == http.StatusNotModified {
		return c.NoContent(status)
	}
	h.Set("Content-Type", p.Type)
	h.Set("Content-Disposition", p.Disposition)
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(body.Size, 10))
	if body.ContentRange != "" {
		status = http.StatusPartialContent
		h.Set("Content-Range", body.ContentRange)
	}
	w.WriteHeader(status)
	a.stream(w, body)
	return nil
}

// stream sends a body to a client that accepts some of it in each NetworkTimeout. Otherwise, and when S3 fails, it closes the
// connection, so that the client sees that the rest is missing; it can ask for it by a range.
func (a *API) stream(w *echo.Response, body io.Reader) {
	const piece = 256 << 10 // bytes
	connection := http.NewResponseController(w)
	for {
		_ = connection.SetWriteDeadline(time.Now().Add(a.NetworkTimeout)) // fails only where there is no connection
		_, err := io.CopyN(w, body, piece)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// etagOf changes when the upload is processed again.
func etagOf(content hooks.Content) string {
	sum := sha256.New()
	fmt.Fprint(sum, content.Key, content.Size, content.Upload.CompletedAt.UnixMicro())
	return `"` + hex.EncodeToString(sum.Sum(nil)[:8]) + `"`
}

// matches evaluates If-None-Match (RFC 9110, section 13.1.2), which compares weakly.
func matches(condition, etag string) bool {
	for one := range strings.SplitSeq(condition, ",") {
		if one = strings.TrimSpace(one); one == "*" || strings.TrimPrefix(one, "W/") == etag {
			return true
		}
	}
	return false
}
