package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/test/stack"
)

// dial opens a connection of the test's own and sends the beginning of a request over it.
func (u user) dial(method, path, headers string) net.Conn {
	u.t.Helper()
	r := u.request(method, u.uploads, nil)
	conn, err := net.Dial("tcp", r.URL.Host) //nolint:noctx // it is closed below
	stack.Must(u.t, err)
	u.t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n%s\r\n", method, path, r.URL.Host, u.token, headers)
	stack.Must(u.t, err)
	return conn
}

// answer reads one.
func read(t *testing.T, from *bufio.Reader) answer {
	t.Helper()
	res, err := http.ReadResponse(from, nil)
	stack.Must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	stack.Must(t, err)
	return answer{res.StatusCode, res.Header, b}
}

// A client that announces a body and sends none, or a byte now and then, is disconnected after RequestTimeout on every
// route. Only uploads may take longer.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	const limit = 300 * time.Millisecond
	s := newSite(t, func(c *server.Config, _ *server.Parts) { c.RequestTimeout = limit })
	upload := pathOnly(s.user.create(1000))
	for _, c := range []struct{ method, path, headers string }{
		{"GET", "/", ""},
		{"GET", "/nothing", ""},
		{"GET", "/problems/", ""},
		{"GET", "/api/uploads", ""},
		{"POST", "/api/nothing", ""},
		{"GET", upload + "/content", ""},
		{"DELETE", upload, "Tus-Resumable: 1.0.0\r\n"},
		{"POST", "/api/uploads", "Tus-Resumable: 9\r\n"},                  // refused before its body is read
		{"PATCH", upload, "Tus-Resumable: 1.0.0\r\nUpload-Offset: 5\r\n"}, // so is this
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			t.Parallel()
			conn := s.user.dial(c.method, c.path, c.headers+"Content-Length: 1000\r\n")
			began := time.Now()
			dripping := make(chan struct{})
			go func() { // until the connection is closed
				defer close(dripping)
				tick := time.NewTicker(limit / 10)
				defer tick.Stop()
				for range tick.C {
					if _, err := conn.Write([]byte("x")); err != nil {
						return
					}
				}
			}()
			_, _ = io.Copy(io.Discard, conn) // until the server closes or resets the connection
			conn.Close()
			stack.Receive(t, "end of the slow client", dripping)
			if took := time.Since(began); took > patience/2 {
				t.Errorf("the connection was held for %s", took)
			}
		})
	}

	// A PATCH may be slower than all of these, also on a connection that has had a limit.
	conn := s.user.dial("GET", "/api/uploads", "")
	answers := bufio.NewReader(conn)
	read(t, answers).want(t, 200, "")
	address := pathOnly(s.user.create(10))
	_, err := fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: %s\r\nContent-Length: 10\r\n\r\n",
		address, s.user.token, octets)
	stack.Must(t, err)
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for range 10 {
		<-tick.C
		_, err := conn.Write([]byte("x"))
		stack.Must(t, err)
	}
	read(t, answers).want(t, 204, "")
}

// The body of a request other than an upload may have 1 MiB, whatever length it announces.
func TestLargeRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *server.Config, _ *server.Parts) { c.MaxBody = 1000 })
	body := strings.Repeat("x", 1001)
	s.user.do("GET", s.uploads(), strings.NewReader(body)).want(t, 413, "request-too-large").wantText(t, "1000 B")
	s.user.do("GET", s.uploads(), strings.NewReader(body[:1000])).want(t, 200, "")
	s.user.do("POST", s.uploads(), strings.NewReader(body), "Upload-Length", "1001", "Content-Type", octets).want(t, 201, "")
}

func (s *site) uploads() string { return s.url + server.UploadsPath }
