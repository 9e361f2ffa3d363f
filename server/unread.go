package server

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/tramo/tramo/server/connection"
	"github.com/tramo/tramo/server/tus"
)

// nearlyOver is how many bytes of a body net/http may read before it sends the answer, so that the connection can be used
// again. When more is left, the answer is sent first, and the connection is closed once its client has read it.
const nearlyOver = 64 << 10

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := &answering{ResponseWriter: w, connection: connection.From(r.Context()), length: r.ContentLength}
	a.closes = a.connection.Begin(r.Method, r.RequestURI, r.Proto)
	r = r.WithContext(r.Context()) // a copy: net/http looks at the body of the original
	if r.Body != nil && r.Body != http.NoBody {
		a.body = &arriving{ReadCloser: r.Body}
		r.Body = a.body
	}
	s.handler.ServeHTTP(a, tus.OverrideMethod(r))
	a.end()
}

// An answering is the writer of an answer. It decides what becomes of a body of which not all is read by then.
type answering struct {
	http.ResponseWriter
	body       *arriving // nil for none
	connection *connection.Conn
	length     int64 // of the body in bytes, -1 if it is unknown
	closes     bool  // the connection, after the answer
	answered   bool
}

// Unwrap gives [http.ResponseController] the connection.
func (a *answering) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (a *answering) WriteHeader(status int) {
	if status >= http.StatusOK && !a.answered {
		a.answered = true
		left, known := a.left()
		// A success whose body ends somewhere behind it is hardly far from its end.
		a.closes = a.closes || left > nearlyOver || !known && status >= http.StatusBadRequest
		if a.closes {
			a.Header().Set("Connection", "close") // net/http sends the answer at once, then
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (a *answering) Write(b []byte) (int, error) {
	if !a.answered {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(b)
}

// left is how many bytes of the body have not been read; known is false where only its client knows.
func (a *answering) left() (n int64, known bool) {
	switch {
	case a.body == nil || a.body.ended.Load():
		return 0, true
	case a.length < 0:
		return -1, false
	}
	return a.length - a.body.read.Load(), true
}

// end leaves the rest of the body to the connection. The request is over by then: it holds no place, no lease and no buffer.
func (a *answering) end() {
	left, known := a.left()
	if left == 0 && known {
		return
	}
	a.connection.Leave(left)
	if a.closes {
		// net/http would read on here, with all that it keeps for a request.
		_ = http.NewResponseController(a.ResponseWriter).SetReadDeadline(time.Now())
	}
}

// An arriving body counts what is read of it.
type arriving struct {
	io.ReadCloser
	read  atomic.Int64 // bytes
	ended atomic.Bool  // at its client's end
}

// Read implements [io.Reader].
func (b *arriving) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
	return n, err
}
