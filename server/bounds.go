package server

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
)

// maxHeader bounds a request's headers, in bytes. A final upload names up to [hooks.MaxPartials] addresses in one.
const maxHeader = 256 << 10

// Bounds are what a request may take of the server.
type bounds struct {
	body      int64 // bytes; 0 if whoever reads it bounds it
	unhurried bool  // takes as long as its network needs: whoever serves it bounds the silence
}

// routeBounds are those of routes that need others than most, by method and pattern.
var routeBounds = map[string]bounds{
	"POST " + UploadsPath:             {unhurried: true},
	"POST " + UploadsPath + "/":       {unhurried: true},
	"PATCH " + UploadsPath + "/:id":   {unhurried: true},
	"POST /api/batches":               {body: 8 << 20},
	"POST /api/batches/:id/uploads":   {body: 8 << 20},
	"GET /api/events":                 {unhurried: true},
	"GET /api/tenants/:tenant/export": {unhurried: true},
	"GET /api/tenants/:id/export":     {unhurried: true},
}

// bound keeps a request from holding a connection, or memory, for longer than it is worth: a client that sends or
// reads a byte now and then must not get as much as one that uploads.
func (s *Server) bound(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		b, special := routeBounds[r.Method+" "+c.Path()]
		if !special {
			b.body = s.MaxBody
		}
		// Neither fails on a connection; where there is none, as in some tests, there is nothing to bound. net/http
		// takes both back before the connection's next request.
		connection := http.NewResponseController(c.Response())
		// What was not read of a body, net/http reads when the handler is done. tusd has set deadlines of its own.
		defer func() { _ = connection.SetReadDeadline(time.Now().Add(s.RequestTime)) }()
		if b.unhurried {
			return next(c)
		}
		late := time.Now().Add(s.RequestTime)
		_ = connection.SetReadDeadline(late)
		_ = connection.SetWriteDeadline(late.Add(s.RequestTime))
		if r.ContentLength > b.body {
			return bodyTooLarge(b.body)
		}
		body := &boundedBody{ReadCloser: http.MaxBytesReader(c.Response(), r.Body, b.body), most: b.body}
		r.Body = body
		err := next(c)
		if err != nil && body.err != nil {
			return body.err // whatever the handler took it for
		}
		return err
	}
}

func bodyTooLarge(most int64) error {
	return &hooks.Refusal{Cause: problem.ErrBodyTooLarge, Detail: "The body of this request may have " + humanize.IBytes(uint64(most)) + ". Send less at a time."}
}

// A boundedBody remembers why it ended early.
type boundedBody struct {
	io.ReadCloser
	most int64
	err  error
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		b.err = bodyTooLarge(b.most)
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.err = problem.ErrTooSlow
	}
	return n, err
}
