// Package problem knows how an error is told to a client: one table from error to status, type, title and text, the
// writer of application/problem+json (RFC 9457), and the pages that explain each type. Middleware and handlers return
// errors; [Handler] writes them. Nothing else knows the status of an error.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// Path is what the types of problems begin with, and where they are explained.
const Path = "/problems"

// ContentType is the media type of a problem.
const ContentType = "application/problem+json"

// Errors of HTTP itself, for the rooms of server. Each has a row in the table.
var (
	ErrUnauthorized     = errors.New("no valid token")
	ErrSuspended        = errors.New("tenant is suspended")
	ErrKeysUnavailable  = errors.New("the keys that verify tokens are not available")
	ErrBadRequest       = errors.New("request is not valid")
	ErrNotFound         = errors.New("no such resource")
	ErrMethod           = errors.New("resource has no such method")
	ErrBodyTooLarge     = errors.New("request body is too large")
	ErrTooSlow          = errors.New("request body came too slowly")
	ErrForeignOrigin    = errors.New("origin is not allowed")
	ErrRateLimited      = errors.New("too many requests")
	ErrSlowDown         = errors.New("too many requests to uploads")
	ErrTenantBusy       = errors.New("tenant has as many uploads in progress as it may")
	ErrTooManyListeners = errors.New("too many listeners")
	ErrBadTicket        = errors.New("no such ticket") // it never existed, was used, or is too old
	ErrBadLink          = errors.New("no such link")   // it was changed, is too old, or leads elsewhere
	ErrWebhookURL       = errors.New("URL is not allowed for webhooks")
	ErrIncomplete       = errors.New("request declares the upload complete, but bytes are missing")
	ErrDraftHeader      = errors.New("header does not belong to this method")
	ErrTusVersion       = errors.New("version of tus is not supported")
	ErrUploadOffset     = errors.New("Upload-Offset is missing or not valid")
	ErrOffsetMismatch   = errors.New("Upload-Offset is not the offset of the upload")
	ErrUploadLength     = errors.New("Upload-Length is missing or not valid")
	ErrTwoLengths       = errors.New("Upload-Length and Upload-Defer-Length exclude each other")
	ErrDeferLength      = errors.New("Upload-Defer-Length is not valid")
	ErrContentType      = errors.New("content type is not that of an upload")
	ErrUploadConcat     = errors.New("Upload-Concat is not valid")
	ErrUploadChecksum   = errors.New("Upload-Checksum is not valid")
	ErrFinal            = errors.New("a final upload takes no bytes")
	ErrNotImplemented   = errors.New("not implemented")
	ErrSilent           = errors.New("body was silent for too long")
	ErrCutOff           = errors.New("connection was cut off")
	ErrGaveWay          = errors.New("body was slow while others waited")
	ErrHeadTooLarge     = errors.New("request line and headers are too large")

	ErrTooManyConnections = errors.New("too many connections")
)

// A Problem is an error as a client sees it (RFC 9457). Type is stable and documented in docs/reference/problems.md;
// Detail tells a person what to do next. It never shows an internal cause. Facts are extension members (section
// 3.2), for programs.
type Problem struct {
	Type   string
	Title  string
	Status int
	Detail string
	Facts  map[string]any
}

// Name is the last segment of the type.
func (p Problem) Name() string { return strings.TrimPrefix(p.Type, Path+"/") }

// IsDenial reports whether the problem says that an authenticated user may not do something. The 403 of tus for a final
// upload does not: it is about the upload's state.
func (p Problem) IsDenial() bool { return p.Status == http.StatusForbidden && p.Name() != "final" }

// Name returns the name of the problem that err is told as.
func Name(err error) string {
	p, _ := Of(err)
	return p.Name()
}

// BadRequest returns an error for a request that a person must correct.
func BadRequest(format string, args ...any) error {
	return tenant.Refuse(ErrBadRequest, format, args...)
}

// Of returns what a client is told of err. known is false for an error that the table does not have, which is then
// worth a log entry.
func Of(err error) (p Problem, known bool) {
	for _, row := range table {
		if !slices.ContainsFunc(row.causes, func(cause error) bool { return errors.Is(err, cause) }) {
			continue
		}
		p = row.Problem
		var r *tenant.Refusal
		if errors.As(err, &r) {
			p.Detail, p.Facts = r.Detail, r.Facts
		}
		var m *batch.ManifestError
		if errors.As(err, &m) {
			p.Facts = map[string]any{"errors": entryProblems(m)}
		}
		return p, true
	}
	p = internal
	gone := errors.Is(err, context.Canceled) // the client, which is no news; whoever reads the answer all the same tries again
	if gone || storage.IsUnavailable(err) {
		p, _ = Of(object.ErrUnavailable)
	}
	return p, gone
}

// An entryProblem is what is wrong with one entry of a manifest.
type entryProblem struct {
	Index    int    `json:"index"` // from 0
	ClientID string `json:"client_id"`
	Type     string `json:"type"`
	Detail   string `json:"detail"`
}

func entryProblems(m *batch.ManifestError) []entryProblem {
	found := make([]entryProblem, len(m.Entries))
	for i, e := range m.Entries {
		p, _ := Of(e.Err)
		found[i] = entryProblem{e.Index, e.ClientID, p.Type, p.Detail}
	}
	return found
}

// Handler returns echo's error handler: every error of every route leaves through it. tell is called before the
// client is answered.
func Handler(tell func(echo.Context, Problem)) echo.HTTPErrorHandler {
	return func(err error, c echo.Context) {
		if c.Response().Committed {
			return
		}
		var he *echo.HTTPError
		if errors.As(err, &he) && he.Code < http.StatusInternalServerError {
			switch he.Code {
			case http.StatusNotFound:
				err = ErrNotFound
			case http.StatusMethodNotAllowed:
				err = ErrMethod
			default:
				err = ErrBadRequest
			}
		}
		p, known := Of(err)
		if !known {
			SetCause(c, err)
		}
		tell(c, p)
		Write(c.Response(), c.Request().Method, p)
	}
}

const causeKey = "cause"

// SetCause keeps, for the request log, an error that the client is not shown.
func SetCause(c echo.Context, err error) { c.Set(causeKey, err) }

// Cause returns what [SetCause] kept, nil if nothing.
func Cause(c echo.Context) error {
	err, _ := c.Get(causeKey).(error)
	return err
}

// Write sends p and returns the status and the number of bytes sent. A HEAD never gets a 5xx but 423: on a 5xx
// tus-js-client drops the upload's URL and starts again from byte 0.
func Write(w http.ResponseWriter, method string, p Problem) (status int, sent int64) {
	if method == http.MethodHead && p.Status >= http.StatusInternalServerError {
		p.Status = http.StatusLocked
	}
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="tramo"`) // RFC 6750, section 3
	case http.StatusLocked, http.StatusServiceUnavailable:
		if h.Get("Retry-After") == "" {
			h.Set("Retry-After", "1")
		}
	}
	w.WriteHeader(p.Status)
	if method == http.MethodHead {
		return p.Status, 0
	}
	n, _ := w.Write(p.json(h.Get(echo.HeaderXRequestID))) // an error means that the client has gone
	return p.Status, int64(n)
}

// Raw is a whole HTTP/1.1 answer, for a connection on which no request is known and which is closed after it.
func Raw(p Problem) []byte {
	body := p.json("")
	retry := ""
	if p.Status == http.StatusServiceUnavailable {
		retry = "Retry-After: 5\r\n"
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: no-store\r\n%sConnection: close\r\n\r\n%s",
		p.Status, http.StatusText(p.Status), ContentType, len(body), retry, body)
}

// json is the body. The request id finds the request in the logs, for a person who asks for help.
func (p Problem) json(requestID string) []byte {
	members := map[string]any{
		"type": p.Type, "title": p.Title, "status": p.Status, "detail": p.Detail, "request_id": requestID,
	}
	for name, value := range p.Facts {
		if _, standard := members[name]; !standard {
			members[name] = value
		}
	}
	text, err := json.Marshal(members)
	if err != nil {
		panic(err) // it is text and numbers
	}
	return text
}
