package server

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage/object"
)

// nameUploadProtocol puts into every answer to an upload's writer, a refusal included, what the client's protocol wants
// in all answers: Tus-Resumable (tus 1.0.0), or the version of the IETF draft and nothing of tus. No proxy may store any.
func nameUploadProtocol(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !writesUploads(c) {
			return next(c)
		}
		h := c.Response().Header()
		h.Set("Cache-Control", "no-store") // tus 1.0.0, HEAD: MUST
		if v := draftVersion(c.Request()); v != "" {
			h.Set(draftHeader, v)
		} else if !isForm(c.Request()) {
			h.Set("Tus-Resumable", tusVersion)
		}
		return next(c)
	}
}

// writesUploads reports whether the request's route is one of the upload protocols'.
func writesUploads(c echo.Context) bool {
	switch c.Request().Method {
	case http.MethodPost, http.MethodHead, http.MethodPatch, http.MethodDelete:
		path := c.Path()
		return path == UploadsPath || path == UploadsPath+"/" || path == UploadsPath+"/:id"
	}
	return false
}

// A tusWriter completes tusd's successes and holds its errors back, to say them as problems.
type tusWriter struct {
	http.ResponseWriter
	request *http.Request
	most    int64                 // bytes of an upload, here
	upload  handler.Upload        // what the answer is about, once that is known
	status  int                   // of the answer, once it is given
	sent    int64                 // bytes of its body
	held    int                   // status of an error held back; 0 for none
	body    []byte                // what tusd says of it: its code, a colon, a text
	cause   error                 // what our own parts told tusd, if the error is theirs
	told    func(problem.Problem) // hears of a problem before the client does
}

// Unwrap gives [http.ResponseController] the connection.
func (w *tusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *tusWriter) WriteHeader(status int) {
	switch {
	case status < http.StatusOK: // an interim answer; the final one follows
		w.ResponseWriter.WriteHeader(status)
	case status >= http.StatusBadRequest:
		w.held = status
	case w.claimsTooMuch():
		w.held, w.cause = http.StatusBadRequest, problem.ErrIncomplete
	default:
		w.describe()
		if draftVersion(w.request) != "" {
			status = w.acknowledgeDraft(status)
		}
		w.status = status
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *tusWriter) Write(b []byte) (int, error) {
	if w.held == 0 {
		return w.ResponseWriter.Write(b)
	}
	w.body = append(w.body, b...)
	return len(b), nil
}

// describe tells of the upload what tusd does not: when it expires (tus 1.0.0, Upload-Expires: MUST in every
// answer to PATCH). tusd gives HEAD the length of the upload as that of a body which GET does not have.
func (w *tusWriter) describe() {
	h := w.Header()
	if w.request.Method == http.MethodHead {
		h.Del("Content-Length")
	}
	if u, ok := w.upload.(object.Expiring); ok && w.request.Method != http.MethodDelete {
		if at, ok := u.Expires(); ok {
			h.Set("Upload-Expires", httpTime(at))
		}
	}
}

// httpTime formats t as IMF-fixdate (RFC 9110, section 5.6.7).
func httpTime(t time.Time) string { return t.UTC().Format(http.TimeFormat) }

// info is what is known of the upload now.
func (w *tusWriter) info() (info handler.FileInfo, ok bool) {
	if w.upload == nil {
		return info, false
	}
	info, err := w.upload.GetInfo(w.request.Context())
	return info, err == nil
}

// finish sends the error that is there, if one is, and returns what of it is for the log alone.
func (w *tusWriter) finish(err error) (cause error) {
	if err == nil && w.held == 0 {
		return nil
	}
	if err == nil {
		err = w.cause
	}
	if err == nil {
		code, _, _ := strings.Cut(string(w.body), ":")
		err = handler.Error{ErrorCode: code, Message: string(w.body)}
	}
	p, known := problem.Of(err)
	switch {
	case errors.Is(err, handler.ErrMaxSizeExceeded):
		p.Facts = map[string]any{"max_bytes": w.most}
	case known:
	case w.held == http.StatusMethodNotAllowed:
		p, _ = problem.Of(problem.ErrMethod)
	case w.cause == nil && w.held != 0 && w.held < http.StatusInternalServerError:
		p, cause = problem.Tus(w.held), err
	default:
		cause = err
	}
	w.describe()
	draft := draftVersion(w.request) != ""
	if info, ok := w.info(); ok && draft && (info.SizeIsDeferred || info.Offset < info.Size) {
		w.Header().Set("Upload-Offset", strconv.FormatInt(info.Offset, 10)) // drafts, Upload Append: MUST
	}
	if p.Status == http.StatusPreconditionFailed && !draft {
		w.Header().Set("Tus-Version", tusVersion) // tus 1.0.0, Tus-Resumable: MUST on 412
	}
	w.told(p)
	w.status, w.sent = problem.Write(w.ResponseWriter, w.request.Method, p)
	return cause
}
