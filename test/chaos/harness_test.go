package chaos

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// A failing seed is worth nothing if it does not replay.
func TestPlanFollowsFromItsSeed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for seed := range uint64(50) {
		once, again := newPlan(seed).String(), newPlan(seed).String()
		if once != again {
			t.Fatalf("seed %d gives two plans:\n%s%s", seed, once, again)
		}
		_, once, _ = strings.Cut(once, "\n") // past the seed's number
		if seen[once] {
			t.Errorf("seed %d gives the plan of another", seed)
		}
		seen[once] = true
	}
}

// Only an answer that had been received before a request was sent binds the request's answer.
func TestSetbacks(t *testing.T) {
	t.Parallel()
	at := func(sent, answered time.Duration, offset int64) exchange {
		return exchange{sent: sent, answered: answered, offset: offset}
	}
	for name, c := range map[string]struct {
		exchanges []exchange
		want      int
	}{
		"forward":                         {[]exchange{at(0, 1, 5), at(2, 3, 5), at(4, 5, 9)}, 0},
		"back":                            {[]exchange{at(0, 1, 5), at(2, 3, 4)}, 1},
		"back, but at the same time":      {[]exchange{at(0, 4, 5), at(2, 3, 4)}, 0},
		"back, past a concurrent request": {[]exchange{at(0, 1, 5), at(2, 9, 6), at(3, 4, 4)}, 1},
		"nothing told":                    {[]exchange{at(0, 1, 5), at(2, 3, -1)}, 0},
		"to zero":                         {[]exchange{at(0, 1, 5), at(2, 3, 0)}, 1},
	} {
		if got := setbacks(c.exchanges); len(got) != c.want {
			t.Errorf("%s: %d setbacks, want %d: %v", name, len(got), c.want, got)
		}
	}
}

// A line that has fallen silent passes on, once it speaks again, what was sent meanwhile; one that is cut does not.
func TestLine(t *testing.T) {
	t.Parallel()
	begun, received := make(chan struct{}, 2), make(chan int64, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		n, _ := io.Copy(io.Discard, r.Body) // a cut is an error here
		received <- n
	}))
	t.Cleanup(server.Close)
	l, err := newLine("127.0.0.1:1", server.URL) // no server listens at the first
	stack.Must(t, err)
	t.Cleanup(l.close)
	send := func(body string) net.Conn {
		conn, err := net.Dial("tcp", l.listener.Addr().String())
		stack.Must(t, err)
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: s\r\nContent-Length: 5\r\n\r\n"+body); err != nil {
			t.Fatal(err)
		}
		return conn
	}

	l.stall()
	send("whole")
	select {
	case n := <-received:
		t.Errorf("%d bytes passed a silent line", n)
	case <-time.After(50 * time.Millisecond):
	}
	l.resume()
	stack.Want(t, stack.Receive(t, "number of bytes", received), 5, "bytes that arrived after the silence")

	stack.Receive(t, "request", begun)
	conn := send("ha")
	stack.Receive(t, "request", begun)
	l.cutAfter(1)
	if _, err := io.WriteString(conn, "l"); err != nil {
		t.Fatal(err)
	}
	if n := stack.Receive(t, "number of bytes", received); n >= 3 {
		t.Errorf("%d bytes passed, and the line was to be cut at the third", n)
	}
}
