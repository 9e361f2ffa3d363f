package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/connection"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/tenant"
)

// maxHeader bounds a request's line and headers, in bytes: a final upload names up to [hooks.MaxPartials] addresses, of some
// 100 bytes each, beside a token and metadata.
const maxHeader = 128 << 10

// headerTimeout is how long a request's line and headers may take to arrive.
const headerTimeout = 10 * time.Second

// heads bounds what requests cost before they are known. A thousand connections that never end their headers cost 15 KiB
// each, which is net/http's, as much again for lines and free bytes, and the memory, all together.
var heads = connection.Heads{Size: maxHeader, Lines: 100, Free: 8 << 10, Memory: 8 << 20}

// listener puts bounds around one.
func (s *Server) listener(l *net.TCPListener) *connection.Listener {
	return &connection.Listener{
		TCPListener: l, Config: s.Connections, Heads: &heads, Metrics: s.Metrics.connections,
		Key: func(a netip.Addr) string {
			if s.TrustedProxies.contain(a) {
				return "" // behind it are others
			}
			return ratelimit.AddressKey(a.String())
		},
		Refusal: func(r connection.Reason) []byte {
			p, _ := problem.Of(refusedConnections[r])
			return problem.Raw(p)
		},
	}
}

// refusedConnections are the errors of connections that are refused.
var refusedConnections = map[connection.Reason]error{
	connection.InAll: problem.ErrTooManyConnections, connection.FromAddress: problem.ErrTooManyConnections,
	connection.HeadMemory: problem.ErrTooManyConnections,
	connection.HeadSize:   problem.ErrHeadTooLarge, connection.HeadLines: problem.ErrHeadTooLarge,
}

// awaitHead tells a connection that it is idle.
func awaitHead(c net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		connection.Await(c)
	}
}

// bound limits the body and the time of requests other than uploads, so that a client that sends or reads a byte now and
// then cannot hold a connection or memory.
func (s *Server) bound(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		most := s.bodies[r.Method+" "+c.Path()]
		if most == 0 {
			most = s.MaxBody
		}
		// Setting a deadline fails only where there is no connection, as in some tests. net/http resets both deadlines
		// before the connection's next request.
		connection := http.NewResponseController(c.Response())
		if errors.Is(context.Cause(r.Context()), context.Canceled) {
			// A read deadline has passed after an earlier request's body: net/http cancels all requests of the connection
			// then. The client of this one waits.
			r = r.WithContext(context.WithoutCancel(r.Context()))
			c.SetRequest(r)
			c.Response().Header().Set(echo.HeaderConnection, "close")
		}
		body := &boundedBody{ReadCloser: r.Body, most: most}
		r.Body = body
		// After the handler net/http reads the rest of the body, before it sends the answer. Handlers of streams have set
		// deadlines of their own.
		defer func() {
			if body.late {
				_ = body.Close() // at once, because the deadline has passed: a silent client would delay its answer
				return
			}
			_ = connection.SetReadDeadline(time.Now().Add(s.RequestTimeout))
		}()
		if most == streamed {
			return next(c)
		}
		late := time.Now().Add(s.RequestTimeout)
		if r.ContentLength != 0 { // else nothing is read, but by net/http, which would take the deadline for the client's end
			_ = connection.SetReadDeadline(late)
		}
		_ = connection.SetWriteDeadline(late.Add(s.RequestTimeout))
		if r.ContentLength > most {
			return bodyTooLarge(most)
		}
		body.ReadCloser = http.MaxBytesReader(c.Response(), body.ReadCloser, most)
		err := next(c)
		if err != nil && body.err != nil {
			return body.err // the handler may have wrapped or replaced it
		}
		return err
	}
}

func bodyTooLarge(most int64) error {
	return tenant.Refuse(problem.ErrBodyTooLarge, "The body of this request may have at most %s. Send less in each request.", humanize.IBytes(uint64(most)))
}

// A boundedBody remembers why it ended early.
type boundedBody struct {
	io.ReadCloser
	most int64
	late bool // a read met its deadline
	err  error
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		b.err = bodyTooLarge(b.most)
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.late, b.err = true, problem.ErrTooSlow
	}
	return n, err
}
