package tus

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// An exchange is one request and its answer. It completes tusd's successes and holds its errors back, to tell them as
// problems.
//
// It is the one value of a request's context beside identity and trace: tusd calls its data store and its locker with that
// context, and with nothing else that belongs to the request.
type exchange struct {
	http.ResponseWriter
	handler  *Handler
	request  *http.Request
	body     *body
	checksum *object.Check           // of the body; nil for none
	denied   func(p problem.Problem) // is called with a problem before the client is told

	connection  *http.ResponseController // fails only where there is no connection, as in some tests
	interrupted atomic.Bool              // tusd reads no more of the body

	locked *hooks.Upload // once tusd has locked an upload, or the exchange has created one that is written next
	upload *upload       // that the answer is about, once that is known

	status int    // of the answer, once it is given
	sent   int64  // bytes of its body
	held   int    // status of an error held back; 0 for none
	text   []byte // what tusd says of it: its code, a colon, a text
	cause  error  // the first error of ours, which tusd has only passed on
}

type exchangeKey struct{}

func newExchange(h *Handler, c echo.Context) *exchange {
	x := &exchange{
		ResponseWriter: c.Response().Writer, handler: h, connection: http.NewResponseController(c.Response().Writer),
		denied: func(p problem.Problem) { h.Denied(c, p) },
	}
	x.request = c.Request().WithContext(context.WithValue(c.Request().Context(), exchangeKey{}, x))
	x.body = &body{ReadCloser: x.request.Body, exchange: x}
	x.request.Body = x.body
	x.awaitNothing()
	return x
}

// exchangeOf returns the exchange of the request that ctx comes from.
func exchangeOf(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

// close gives the lease back, if there is one still.
func (x *exchange) close() {
	if x.locked != nil {
		x.locked.Close(x.request.Context())
	}
}

// note keeps the first error that an exchange meets, and returns err.
func (x *exchange) note(err error) error {
	if x.cause == nil {
		x.cause = err
	}
	return err
}

// Unwrap gives [http.ResponseController] the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (x *exchange) WriteHeader(status int) {
	switch {
	case status < http.StatusOK: // an interim answer; the final one follows
		x.ResponseWriter.WriteHeader(status)
	case status >= http.StatusBadRequest:
		x.held = status
	case x.claimsTooMuch():
		x.held, x.cause = http.StatusBadRequest, problem.ErrIncomplete
	default:
		x.describe()
		if draftVersion(x.request) != "" {
			status = x.acknowledgeDraft(status)
		}
		x.status = status
		x.allowAnswer()
		x.ResponseWriter.WriteHeader(status)
	}
}

// Write implements [http.ResponseWriter].
func (x *exchange) Write(b []byte) (int, error) {
	if x.held == 0 {
		return x.ResponseWriter.Write(b)
	}
	x.text = append(x.text, b...)
	return len(b), nil
}

// describe tells of the upload what tusd does not: when it expires (tus 1.0.0, Upload-Expires: MUST in every answer to
// PATCH). tusd gives HEAD the length of the upload as that of a body which GET does not have.
func (x *exchange) describe() {
	h := x.Header()
	if x.request.Method == http.MethodHead {
		h.Del("Content-Length")
		if h.Get(metadataHeader) != "" { // of which tusd forgets order and spelling
			h.Set(metadataHeader, x.upload.metadata())
		}
	}
	if x.upload == nil || x.request.Method == http.MethodDelete {
		return
	}
	if at, ok := x.upload.expires(); ok {
		h.Set("Upload-Expires", httpTime(at))
	}
}

// httpTime formats t as IMF-fixdate (RFC 9110, section 5.6.7).
func httpTime(t time.Time) string { return t.UTC().Format(http.TimeFormat) }

// info is what is known of the upload now.
func (x *exchange) info() (info handler.FileInfo, ok bool) {
	if x.upload == nil {
		return info, false
	}
	return x.upload.info(), true
}

// finish sends the error that is there, if one is, and returns what of it is for the log alone.
func (x *exchange) finish() (cause error) {
	if x.status != 0 || x.cause == nil && x.held == 0 {
		return nil
	}
	err := x.cause
	if err == nil {
		code, _, _ := strings.Cut(string(x.text), ":")
		err = translate(code)
	}
	if errors.As(x.body.cut, new(*tenant.Refusal)) { // tusd takes it for silence
		err = x.body.cut
	}
	p, known := problem.Of(err)
	switch {
	case errors.Is(err, hooks.ErrTooLarge) && p.Facts == nil:
		p.Facts = map[string]any{"max_bytes": x.handler.maxSize}
	case known:
	case x.held == http.StatusMethodNotAllowed:
		p, _ = problem.Of(problem.ErrMethod)
	case x.cause == nil && x.held != 0 && x.held < http.StatusInternalServerError:
		p, cause = problem.Tus(x.held), err
	default:
		cause = err
	}
	x.describe()
	draft, creates := draftVersion(x.request) != "", x.request.Method == http.MethodPost
	if creates && x.upload != nil { // whose address its client has from nowhere else
		x.Header().Set("Location", x.handler.address(x.request.Header, x.request.Host, x.upload.id))
	}
	if info, ok := x.info(); ok && (draft || creates && !info.IsFinal) && (info.SizeIsDeferred || info.Offset < info.Size) {
		x.Header().Set("Upload-Offset", strconv.FormatInt(info.Offset, 10)) // drafts, Upload Append: MUST
	}
	if p.Status == http.StatusPreconditionFailed && !draft {
		x.Header().Set("Tus-Version", Version) // tus 1.0.0, Tus-Resumable: MUST on 412
	}
	x.denied(p)
	x.allowAnswer()
	x.status, x.sent = problem.Write(x.ResponseWriter, x.request.Method, p)
	return cause
}
