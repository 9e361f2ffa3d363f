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

// bound keeps a request from holding a connection, or memory, for longer than it is worth: a client that sends or reads a
// byte now and then must not get as much as one that uploads.
func (s *Server) bound(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		most := s.bodies[r.Method+" "+c.Path()]
		if most == 0 {
			most = s.MaxBody
		}
		// Neither fails on a connection; where there is none, as in some tests, there is nothing to bound. net/http
		// takes both back before the connection's next request.
		connection := http.NewResponseController(c.Response())
		// What was not read of a body, net/http reads when the handler is done. tusd has set deadlines of its own.
		defer func() { _ = connection.SetReadDeadline(time.Now().Add(s.RequestTimeout)) }()
		if most == streamed {
			return next(c)
		}
		late := time.Now().Add(s.RequestTimeout)
		_ = connection.SetReadDeadline(late)
		_ = connection.SetWriteDeadline(late.Add(s.RequestTimeout))
		if r.ContentLength > most {
			return bodyTooLarge(most)
		}
		body := &boundedBody{ReadCloser: http.MaxBytesReader(c.Response(), r.Body, most), most: most}
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
