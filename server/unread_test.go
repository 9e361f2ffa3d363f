package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/test/stack"
)

// next reads one answer of several.
func (l line) next(answers *bufio.Reader) (a answer, closes bool) {
	l.t.Helper()
	stack.Must(l.t, l.SetReadDeadline(time.Now().Add(patience)))
	res, err := http.ReadResponse(answers, nil)
	stack.Must(l.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	stack.Must(l.t, err)
	return answer{res.StatusCode, res.Header, b}, res.Close
}

// wantEnd checks that the server has closed the connection.
func (l line) wantEnd(answers *bufio.Reader) {
	l.t.Helper()
	if b, err := answers.ReadByte(); err == nil {
		l.t.Errorf("the connection goes on with %q", b)
	}
}

// Who is refused is told so before the rest of a large body has come, whatever it is and however it is framed; the server
// then closes the connection, in order. The rest of a small one is awaited, and the connection goes on.
func TestRefusalDoesNotAwaitTheBody(t *testing.T) {
	t.Parallel()
	s := silent(t, patience)
	u := s.user
	url := u.create(mib)
	for name, c := range map[string]struct {
		method, url string
		headers     []string
		status      int
	}{
		"tus":   {"PATCH", url, []string{"Tus-Resumable: 1.0.0", "Upload-Offset: 5", "Content-Type: " + octets}, 409},
		"draft": {"PATCH", url, []string{"Upload-Draft-Interop-Version: 6", "Upload-Offset: 5", "Content-Type: application/partial-upload"}, 409},
		"form":  {"POST", s.uploads(), []string{"Content-Type: multipart/form-data"}, 400},
		"JSON":  {"POST", s.url + "/api/webhooks", []string{"Content-Type: application/json"}, 403},
		"page":  {"GET", s.url + "/problems/nothing", nil, 404},
	} {
		for framing, large := range map[string]bool{"Content-Length: 1000000": true, "Transfer-Encoding: chunked": true, "Content-Length: 10": false} {
			l := u.line(t, c.method, c.url, append(c.headers, framing)...)
			answers := bufio.NewReader(l)
			if !large {
				l.say("0123456789")
			}
			a, closes := l.next(answers)
			a.want(t, c.status, "")
			if closes != large {
				t.Errorf("%s with %s: the answer closes the connection: %t", name, framing, closes)
			}
			if large {
				stack.Must(t, l.Conn.(interface{ CloseWrite() error }).CloseWrite())
				l.wantEnd(answers)
			} else {
				l.ask(u, "GET", s.url+"/api/uploads")
				a, _ := l.next(answers)
				a.want(t, 200, "")
			}
		}
	}
}

// A client that asks before it sends a body is refused without being asked for it (RFC 9110, section 10.1.1).
func TestExpectationIsRefused(t *testing.T) {
	t.Parallel()
	s := silent(t, patience)
	u := s.user
	for _, framing := range []string{"Content-Length: 8000000", "Content-Length: 10", "Transfer-Encoding: chunked"} {
		l := u.line(t, "PATCH", u.create(mib), "Tus-Resumable: 1.0.0", "Upload-Offset: 5", "Content-Type: "+octets, "Expect: 100-continue", framing)
		a, closes := l.next(bufio.NewReader(l))
		if a.want(t, http.StatusConflict, "offset-mismatch"); !closes {
			t.Errorf("%s: the connection stays open, though nobody knows whether the body comes", framing)
		}
	}
}

// What is read after a refusal holds no place of its tenant's and no lease: the next request has both at once.
func TestLingeringHoldsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *server.Config, _ *server.Parts) { c.TenantUploads, c.LeaseTimeout = 1, patience })
	u := s.user
	url := u.create(10)
	refused := u.line(t, "PATCH", url, "Tus-Resumable: 1.0.0", "Upload-Offset: 5", "Content-Type: "+octets, "Content-Length: 8000000")
	refused.hear("a refused body").want(t, http.StatusConflict, "offset-mismatch")
	refused.say(strings.Repeat("x", 4000000))
	u.patch(url, 0, strings.NewReader("0123456789")).want(t, http.StatusNoContent, "")
	refused.say(strings.Repeat("x", 3900000)) // it is still read
}

// A client that sends a body of two lengths is answered, well or not, and its connection is closed (RFC 9112, section 6.1: MUST).
func TestTwoFramings(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	const chunks = "5\r\n01234\r\n0\r\n\r\n"
	for name, c := range map[string]struct{ offset, length, status int }{
		"a PATCH":            {0, 5, 204},
		"a refused PATCH":    {3, 5, 409},
		"the lengths differ": {0, 500, 204},
	} {
		l := u.line(t, "PATCH", u.create(5), "Tus-Resumable: 1.0.0", fmt.Sprint("Upload-Offset: ", c.offset), "Content-Type: "+octets,
			fmt.Sprint("Content-Length: ", c.length), "Transfer-Encoding: chunked")
		l.say(chunks)
		answers := bufio.NewReader(l)
		a, closes := l.next(answers)
		if a.want(t, c.status, ""); !closes {
			t.Errorf("%s: the answer does not close the connection", name)
		}
		l.wantEnd(answers)
	}
	l := u.line(t, "GET", s.url+"/api/uploads", "Content-Length: 5", "Content-Length: 6")
	a, closes := l.next(bufio.NewReader(l))
	if a.status != 400 || !closes {
		t.Errorf("two lengths: %d, closes: %t", a.status, closes)
	}
}

// Headers that are too large, and connections that are too many, are problems like any other.
func TestRefusedConnectionsAreProblems(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *server.Config, _ *server.Parts) { c.Connections.PerAddress = 2 })
	u := s.user
	many := make([]string, 0, 150)
	for i := range cap(many) {
		many = append(many, fmt.Sprintf("A%d: b", i))
	}
	first := u.line(t, "GET", s.url+"/api/uploads", many...)
	first.hear("many headers").want(t, http.StatusRequestHeaderFieldsTooLarge, "headers-too-large")
	first.Close()
	second := u.line(t, "GET", s.url+"/api/uploads", "A: "+strings.Repeat("x", 200<<10))
	second.hear("a long header").want(t, http.StatusRequestHeaderFieldsTooLarge, "headers-too-large")
	second.Close()
	stack.Until(t, "both have gone", func() bool {
		l := u.line(t, "GET", s.url+"/api/uploads")
		defer l.Close()
		return l.hear("a request").status == 200
	})
	for range 2 {
		u.line(t, "GET", s.url+"/api/events")
	}
	stack.Until(t, "an address has as many connections as it may", func() bool {
		l := u.line(t, "GET", s.url+"/api/uploads")
		defer l.Close()
		a := l.hear("one connection too many")
		if a.status == 200 {
			return false
		}
		a.want(t, http.StatusServiceUnavailable, "too-many-connections").wantHeader(t, "Retry-After", "5")
		return true
	})
}

// The longest request that a client has reason to send, with the addresses of 1,000 partial uploads, is read.
func TestLongestRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	address := "https://uploads.constructora-del-sur.example.com.ar" + pathOnly(u.create(5, "Upload-Concat", "partial"))
	l := u.line(t, "POST", s.uploads(), "Tus-Resumable: 1.0.0", "Content-Length: 0",
		"Upload-Metadata: "+metadata("filename", strings.Repeat("x", 200), "note", strings.Repeat("y", 7<<10)),
		"Upload-Concat: final;"+strings.TrimSpace(strings.Repeat(address+" ", 1000)))
	l.hear("the longest request").want(t, http.StatusConflict, "partial-open")
}
