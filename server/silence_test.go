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
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// A line is a connection on which a test says each byte itself. Go's HTTP client would wait for the end of a body that never
// ends before it reports that the server has closed the connection.
type line struct {
	net.Conn
	t *testing.T
}

// line opens a connection and sends the head of a request.
func (u user) line(t *testing.T, method, url string, headers ...string) line {
	t.Helper()
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	conn, err := net.Dial("tcp", host)
	stack.Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	l := line{conn, t}
	l.ask(u, method, url, headers...)
	return l
}

// ask sends the head of a request.
func (l line) ask(u user, method, url string, headers ...string) {
	l.t.Helper()
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	l.say(fmt.Sprintf("%s /%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n",
		method, path, host, u.token, strings.Join(headers, "\r\n")))
}

// patchLine is a line with a PATCH at offset 0.
func (u user) patchLine(t *testing.T, url, framing string) line {
	t.Helper()
	return u.line(t, "PATCH", url, "Tus-Resumable: 1.0.0", "Upload-Offset: 0", "Content-Type: "+octets, framing)
}

func (l line) say(s string) {
	l.t.Helper()
	_, err := io.WriteString(l, s)
	stack.Must(l.t, err)
}

// hear returns the answer.
func (l line) hear(what string) answer {
	l.t.Helper()
	stack.Must(l.t, l.SetReadDeadline(time.Now().Add(patience)))
	res, err := http.ReadResponse(bufio.NewReader(l), nil)
	if err != nil {
		l.t.Fatalf("%s: no answer within %s: %v", what, patience, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	stack.Must(l.t, err)
	if res.Close { // which the parser takes out of the header
		res.Header.Set("Connection", "close")
	}
	return answer{res.StatusCode, res.Header, b}
}

// silent is a server that waits for silent bodies, for so long, and for nothing else.
func silent(t *testing.T, network time.Duration) *site {
	t.Helper()
	return newSite(t, func(c *server.Config, _ *server.Parts) {
		c.NetworkTimeout, c.RequestTimeout = network, time.Hour
	})
}

// However a body is framed, and wherever it falls silent, its client is told to come back as soon as the server has waited for
// as long as it waits, and what had arrived is kept.
func TestSilentBodyIsAnswered(t *testing.T) {
	t.Parallel()
	s := silent(t, 200*time.Millisecond)
	u := s.user
	for name, c := range map[string]struct {
		framing, body string
		kept          int
	}{
		"before its first byte":         {"Content-Length: 1000", "", 0},
		"in the middle":                 {"Content-Length: 1000", "0123456789", 10},
		"far from its end":              {"Content-Length: 1000000", "0123456789", 10},
		"chunked, before its first one": {"Transfer-Encoding: chunked", "", 0},
		"between two chunks":            {"Transfer-Encoding: chunked", "a\r\n0123456789\r\n", 10},
		"in the middle of a chunk":      {"Transfer-Encoding: chunked", "14\r\n0123456789", 10},
	} {
		url := u.create(1_000_000)
		l := u.patchLine(t, url, c.framing)
		l.say(c.body)
		l.hear("silent "+name).want(t, http.StatusLocked, "cut-off")
		u.wantOffset(url, c.kept)
	}
}

// A form falls silent within its fields, and within its file.
func TestSilentFormIsAnswered(t *testing.T) {
	t.Parallel()
	s := silent(t, 200*time.Millisecond)
	for name, body := range map[string]string{
		"before its first byte": "",
		"within a field":        "--b\r\nContent-Disposition: form-data; name=\"project\"\r\n\r\nto",
		"within its file":       "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n0123456789",
	} {
		l := s.user.line(t, "POST", s.uploads(), "Content-Type: multipart/form-data; boundary=b", "Content-Length: 1000")
		l.say(body)
		l.hear("a form that is silent "+name).want(t, http.StatusLocked, "cut-off")
	}
}

// The body of any other request has a time to arrive in, and who takes longer is told so.
func TestSilentRequestIsAnswered(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *server.Config, _ *server.Parts) { c.RequestTimeout = 2 * time.Second })
	for _, framing := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
		l := s.user.line(t, "POST", s.url+"/api/batches", "Content-Type: application/json", framing)
		l.hear("a silent request").want(t, http.StatusRequestTimeout, "too-slow")
	}
}

// Bytes take longer to become durable than the server waits for silent bodies: the answer comes all the same.
func TestSilentBodyIsAnsweredAfterASlowFlush(t *testing.T) {
	t.Parallel()
	s := silent(t, 200*time.Millisecond)
	u := s.user
	url := u.create(1000)
	held := s.transaction(t, `select from contents where upload_id = $1 for update`, idOf(url))
	l := u.patchLine(t, url, "Transfer-Encoding: chunked")
	l.say("a\r\n0123456789\r\n")
	s.run(t, `select pg_sleep(1)`)
	stack.Must(t, held.Commit(t.Context()))
	l.hear("silent while its bytes become durable").want(t, http.StatusLocked, "cut-off")
	u.wantOffset(url, 10)
}

// A request waits longer for its lease than the server waits for silent bodies. One that has sent its bytes meanwhile is not
// taken for silent; one that has not is told so.
func TestWaitForALeaseIsNotSilence(t *testing.T) {
	t.Parallel()
	s := silent(t, 200*time.Millisecond)
	u := s.user
	for body, want := range map[string]int{"0123456789": http.StatusNoContent, "01234": http.StatusLocked} {
		url := u.create(10)
		ctx := tenant.With(t.Context(), u.who)
		held, err := s.leases.Acquire(ctx, idOf(url), nil)
		stack.Must(t, err)
		l := u.patchLine(t, url, "Content-Length: 10")
		l.say(body)
		s.run(t, `select pg_sleep(1)`)
		stack.Must(t, held.Release(ctx))
		l.hear("a request that waited for its lease").want(t, want, "")
		u.wantOffset(url, len(body))
	}
}

// An answer that takes long, as that of a large final upload, is told all the same.
func TestSlowAnswerIsTold(t *testing.T) {
	t.Parallel()
	s := silent(t, 100*time.Millisecond)
	u := s.user
	partial := u.create(10, "Upload-Concat", "partial")
	u.patch(partial, 0, strings.NewReader("0123456789")).want(t, http.StatusNoContent, "")
	held := s.transaction(t, `lock table river_job in exclusive mode`)
	done := make(chan answer, 1)
	go func() { done <- u.do("POST", u.uploads, nil, "Upload-Concat", "final;"+partial) }()
	s.run(t, `select pg_sleep(1)`)
	stack.Must(t, held.Commit(t.Context()))
	stack.Receive(t, "answer to the creation of a final upload", done).want(t, http.StatusCreated, "")
}

// A request without a body takes longer than the server waits for silent bodies: neither it nor what follows on its connection
// is cut off.
func TestSlowRequestKeepsItsConnection(t *testing.T) {
	t.Parallel()
	s := silent(t, 100*time.Millisecond)
	held := s.transaction(t, `select from tenants where id = $1 for update`, s.user.who.Tenant)
	headers := []string{"Tus-Resumable: 1.0.0", "Upload-Length: 10", "Content-Length: 0"}
	l := s.user.line(t, "POST", s.uploads(), headers...)
	s.run(t, `select pg_sleep(1)`)
	stack.Must(t, held.Commit(t.Context()))
	l.hear("a slow creation").want(t, http.StatusCreated, "")
	l.ask(s.user, "POST", s.uploads(), headers...)
	l.hear("the creation that follows it").want(t, http.StatusCreated, "")
}

// A request is interrupted for another one. When its body has arrived, what follows on its connection is answered; in the
// middle of its body, the answer says that the connection ends.
func TestInterruptedRequestKeepsItsConnection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	for body, closes := range map[string]bool{"0123456789": false, "01234": true} {
		url := u.create(1000)
		held := s.transaction(t, `select from contents where upload_id = $1 for update`, idOf(url))
		l := u.patchLine(t, url, "Content-Length: 10")
		l.say(body)
		s.run(t, `select pg_sleep(0.5)`)
		other := make(chan answer, 1)
		go func() { other <- u.do("HEAD", url, nil) }()
		s.run(t, `select pg_sleep(0.5)`)
		stack.Must(t, held.Commit(t.Context()))
		interrupted := l.hear("a request that another interrupts").want(t, http.StatusLocked, "busy")
		stack.Receive(t, "answer to the request that interrupts", other).want(t, http.StatusOK, "")
		if got := interrupted.header.Get("Connection") == "close"; got != closes {
			t.Fatalf("after %d bytes of 10 the connection closes: %t", len(body), got)
		}
		if !closes {
			l.ask(u, "GET", url, "")
			l.hear("the request that follows it").want(t, http.StatusOK, "")
		}
	}
}
