package server_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// presigned is in every link of S3's, and in nothing else.
const presigned = "X-Amz-Signature"

var uploadInPath = regexp.MustCompile(`/uploads/([0-9a-f-]{36})`)

// guarded fails the test when an answer or a stream has a presigned link before an entry in the audit log covers it. Every
// server of the tests is behind it.
func (s *site) guarded(t testing.TB, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&guard{ResponseWriter: w, check: func(sent []byte, what string) {
			if !bytes.Contains(sent, []byte(presigned)) {
				return
			}
			subject := ""
			if found := uploadInPath.FindSubmatch(sent); found != nil {
				subject = string(found[1])
			}
			var n int
			err := s.admin.QueryRow(context.WithoutCancel(r.Context()), `
				select count(*) from audit where request_id = $1 and action in ('upload.content', 'tenant.export')
				  or action = 'upload.thumbnails' and outcome = 'done' and subject = $2 and at > now() - interval '1 hour'`,
				w.Header().Get("X-Request-Id"), subject).Scan(&n)
			if err != nil || n == 0 {
				t.Errorf("%s %s: a presigned link in %s without an audit entry (%v)", r.Method, r.URL.Path, what, err)
			}
		}}, r)
	})
}

// A guard checks what an answer says before it says it.
type guard struct {
	http.ResponseWriter
	check func(sent []byte, what string)
}

func (g *guard) Unwrap() http.ResponseWriter { return g.ResponseWriter }

func (g *guard) WriteHeader(status int) {
	for name, values := range g.Header() {
		g.check([]byte(strings.Join(values, "\n")), name)
	}
	g.ResponseWriter.WriteHeader(status)
}

func (g *guard) Write(p []byte) (int, error) {
	g.check(p, "the body")
	return g.ResponseWriter.Write(p)
}

func (g *guard) Flush() { _ = http.NewResponseController(g.ResponseWriter).Flush() }

// Hijack implements [http.Hijacker], for WebSockets.
func (g *guard) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(g.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	guarded := &guardedConn{conn, g.check}
	return guarded, bufio.NewReadWriter(rw.Reader, bufio.NewWriter(guarded)), nil
}

type guardedConn struct {
	net.Conn
	check func(sent []byte, what string)
}

func (c *guardedConn) Write(p []byte) (int, error) {
	c.check(p, "the WebSocket")
	return c.Conn.Write(p)
}
