package connection_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/server/connection"
	"github.com/tramo/tramo/test/stack"
)

// A bench is a listener with a server that refuses every body, or whatever else handle does.
type bench struct {
	*connection.Listener
	registry *prometheus.Registry
}

// listen starts one.
func listen(t *testing.T, shape func(*bench), handle http.HandlerFunc) *bench {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	stack.Must(t, err)
	b := &bench{registry: prometheus.NewRegistry()}
	b.Listener = &connection.Listener{
		TCPListener: tcp.(*net.TCPListener), Config: connection.DefaultConfig(), Metrics: connection.NewMetrics(b.registry),
		Refusal: func(r connection.Reason) []byte {
			return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(r), r)
		},
	}
	shape(b)
	hs := httptest.NewUnstartedServer(handle)
	_ = hs.Listener.Close() // httptest's own
	hs.Listener = b.Listener
	hs.Config.ConnContext = connection.Context
	hs.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateIdle {
			connection.Await(c)
		}
	}
	if b.Heads == nil {
		hs.StartTLS()
	} else {
		hs.Start()
	}
	t.Cleanup(hs.Close)
	return b
}

// dial connects to it.
func (b *bench) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", b.Addr().String())
	stack.Must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// metric is the value of one.
func (b *bench) metric(t *testing.T, name string) int {
	t.Helper()
	families, err := b.registry.Gather()
	stack.Must(t, err)
	for _, f := range families {
		if f.GetName() == name {
			n := 0.0
			for _, m := range f.GetMetric() {
				n += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
			return int(n)
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// until waits until a metric has a value.
func (b *bench) until(t *testing.T, name string, want int) {
	t.Helper()
	stack.Until(t, fmt.Sprintf("%s is %d", name, want), func() bool { return b.metric(t, name) == want })
}

// answer reads one, with its body.
func answer(t *testing.T, c io.Reader) (status int, body string, closes bool) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	stack.Must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	stack.Must(t, err)
	return res.StatusCode, string(text), res.Close
}

var bounds = connection.Heads{Size: 128 << 10, Lines: 100, Free: 8 << 10, Memory: 8 << 20}

func plain(b *bench) { b.Heads = &bounds }

// refuse answers as a server does that does not want the body.
func refuse(w http.ResponseWriter, r *http.Request) {
	c := connection.From(r.Context())
	c.Begin(r.Method, r.RequestURI, r.Proto)
	w.Header().Set("Connection", "close")
	http.Error(w, "no", http.StatusConflict)
	c.Leave(r.ContentLength)
}

// A client that sends all of a body that nobody wants, and only then reads, gets the answer, by TLS as well.
func TestAnswerOutlivesTheRestOfTheBody(t *testing.T) {
	t.Parallel()
	for name, shape := range map[string]func(*bench){"plain": plain, "TLS": func(*bench) {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := listen(t, shape, refuse)
			c := b.dial(t)
			if name == "TLS" {
				c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { return nil }})
			}
			const size = 8 << 20
			_, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
			stack.Must(t, err)
			b.until(t, "tramo_connections_lingering", 1) // the answer is given, and the server has closed the connection
			_, err = c.Write(make([]byte, size))
			stack.Must(t, err)
			if status, body, _ := answer(t, c); status != http.StatusConflict || body != "no\n" {
				t.Errorf("%d %q", status, body)
			}
			c.Close()
			b.until(t, "tramo_connections", 0)
		})
	}
}

// What lingers is bounded in bytes, in time and in number, and whoever stops waits for it.
func TestLingeringIsBounded(t *testing.T) {
	t.Parallel()
	post := func(t *testing.T, b *bench) net.Conn {
		t.Helper()
		c := b.dial(t)
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
		stack.Must(t, err)
		_, _, _ = answer(t, c)
		return c
	}
	t.Run("bytes", func(t *testing.T) {
		t.Parallel()
		b := listen(t, func(b *bench) { plain(b); b.Discard = 1 << 20 }, refuse)
		c := post(t, b)
		sent, err := io.Copy(c, io.LimitReader(endless{}, 1<<30))
		if err == nil {
			t.Errorf("%d bytes were taken", sent)
		}
		b.until(t, "tramo_connections", 0)
	})
	t.Run("time", func(t *testing.T) {
		t.Parallel()
		b := listen(t, func(b *bench) { plain(b); b.DiscardTimeout = 100 * time.Millisecond }, refuse)
		post(t, b)
		b.until(t, "tramo_connections", 0)
	})
	t.Run("number", func(t *testing.T) {
		t.Parallel()
		const most = 512
		b := listen(t, plain, refuse)
		for range most {
			post(t, b)
		}
		b.until(t, "tramo_connections_lingering", most)
		post(t, b)
		b.until(t, "tramo_connections_lingering", most)
		b.until(t, "tramo_connections", most) // one of them has been closed
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Connections are bounded by address and in all; who is refused is told, and who leaves makes room.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	for name, shape := range map[string]func(*bench){
		"address": func(b *bench) { b.PerAddress = 2; b.Key = netip.Addr.String },
		"all":     func(b *bench) { b.Max, b.PerAddress = 2, 2 },
	} {
		b := listen(t, func(b *bench) { plain(b); shape(b) }, refuse)
		first := b.dial(t)
		b.dial(t)
		b.until(t, "tramo_connections", 2)
		third := b.dial(t)
		_, err := third.Write(make([]byte, 1<<20)) // whatever it sends first
		stack.Must(t, err)
		if status, body, closes := answer(t, third); status != http.StatusServiceUnavailable || body != name || !closes {
			t.Errorf("%s: %d %q", name, status, body)
		}
		first.Close()
		b.until(t, "tramo_connections", 1)
		again := b.dial(t)
		_, err = io.WriteString(again, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		stack.Must(t, err)
		if status, _, _ := answer(t, again); status != http.StatusConflict {
			t.Errorf("%s: %d", name, status)
		}
	}
}

// The head of a request is bounded in bytes and in lines, on each request of a connection, and is answered all the same. A body
// behind it is not counted.
func TestHeadIsBounded(t *testing.T) {
	t.Parallel()
	b := listen(t, plain, func(w http.ResponseWriter, r *http.Request) {
		connection.From(r.Context()).Begin(r.Method, r.RequestURI, r.Proto)
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})
	long := "GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", 120<<10) + "\r\n\r\n"
	for name, c := range map[string]struct {
		asked  []string
		status int
		body   string
	}{
		"long":                    {[]string{long, long}, 200, "0 <nil>"},
		"a body of lines":         {[]string{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n" + strings.Repeat("\n", 3000)}, 200, "3000 <nil>"},
		"too long":                {[]string{"GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", 300<<10)}, 503, "head-size"},
		"too many lines":          {[]string{"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("a:\r\n", 200)}, 503, "head-lines"},
		"the second is too long":  {[]string{long, "GET /" + strings.Repeat("x", 300<<10)}, 503, "head-size"},
		"the second has too many": {[]string{long, "GET / HTTP/1.1\r\n" + strings.Repeat("a:\r\n", 200)}, 503, "head-lines"},
	} {
		conn := b.dial(t)
		for i, asked := range c.asked {
			_, err := io.WriteString(conn, asked)
			stack.Must(t, err)
			status, body, _ := answer(t, conn)
			if i == len(c.asked)-1 && (status != c.status || body != c.body) {
				t.Errorf("%s: %d %q", name, status, body)
			}
		}
	}
}

// A thousand connections that never end their headers, whatever these are, cost less than 64 MiB, and those whose request is
// short are served beside them.
func TestThousandUnendingHeaders(t *testing.T) { //nolint:paralleltest // it measures the memory of the process
	const connections = 1000
	for name, head := range map[string]string{
		"nothing":    "",
		"one line":   "GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", 120<<10),
		"many lines": "GET / HTTP/1.1\r\n" + distinct(98),
		"both":       "GET / HTTP/1.1\r\n" + distinct(90) + "A: " + strings.Repeat("x", 120<<10),
	} {
		t.Run(name, func(t *testing.T) {
			b := listen(t, plain, refuse)
			before := memory()
			for range connections {
				c := b.dial(t)
				go func() { _, _ = io.WriteString(c, head) }() // the server may close before it has read all
			}
			stack.Until(t, "all connections are there", func() bool {
				return b.metric(t, "tramo_connections")+b.metric(t, "tramo_connections_refused_total") >= connections
			})
			c := b.dial(t)
			_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			stack.Must(t, err)
			if status, _, _ := answer(t, c); status != http.StatusConflict {
				t.Errorf("a request beside them is answered with %d", status)
			}
			if cost := memory() - before; cost > 64<<20 {
				t.Errorf("%d connections cost %d bytes", connections, cost)
			} else {
				t.Logf("%d bytes each", cost/connections)
			}
		})
	}
}

// distinct makes short headers.
func distinct(lines int) string {
	var b bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&b, "%x:\r\n", i)
	}
	return b.String()
}

// memory is what the process has in use, the memory of its clients included.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// What can hide a second request closes the connection: both framings, and Transfer-Encoding in HTTP/1.0 (RFC 9112, section
// 6.1), in the first request and in later ones, also where they come together with another.
func TestUncertainFramingClosesTheConnection(t *testing.T) {
	t.Parallel()
	b := listen(t, plain, func(w http.ResponseWriter, r *http.Request) {
		if connection.From(r.Context()).Begin(r.Method, r.RequestURI, r.Proto) {
			w.Header().Set("Connection", "close")
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	const (
		get  = "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"
		both = "POST / HTTP/1.1\r\nHost: x\r\nCONTENT-length: 3\r\nX: y\r\ntransfer-ENCODING: chunked\r\n\r\n0\r\n\r\n"
	)
	for name, c := range map[string]struct {
		parts  []string // each is sent once the one before is answered
		closes bool
	}{
		"a request":            {[]string{get, get}, false},
		"a length":             {[]string{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", get}, false},
		"chunks":               {[]string{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", get}, false},
		"names in values":      {[]string{"GET / HTTP/1.1\r\nHost: x\r\nA: content-length: 1\r\nTransfer-Encoding-Like: Transfer-Encoding: x\r\n\r\n"}, false},
		"empty lines before":   {[]string{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "\r\n" + get}, false},
		"both":                 {[]string{both}, true},
		"both, the other way":  {[]string{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"}, true},
		"both, later":          {[]string{get, both}, true},
		"both, behind another": {[]string{get + both}, true},
		"chunks in HTTP/1.0":   {[]string{"POST / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"}, true},
	} {
		conn := b.dial(t)
		answers := bufio.NewReader(conn)
		var last *http.Response
		for _, part := range c.parts {
			for _, p := range strings.SplitAfter(part, "\r") { // in pieces, however little they mean
				_, err := io.WriteString(conn, p)
				stack.Must(t, err)
			}
			for range max(1, strings.Count(part, "HTTP/1.")) {
				res, err := http.ReadResponse(answers, nil)
				stack.Must(t, err)
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				last = res
			}
		}
		if last.Close != c.closes {
			t.Errorf("%s: closes the connection: %t, want %t", name, last.Close, c.closes)
		}
		if c.closes {
			if _, err := answers.ReadByte(); err == nil {
				t.Errorf("%s: the connection goes on", name)
			}
		}
	}
}

// A client that sends its next request before it has read the answer to the one before, but not with it, keeps its connection.
func TestEarlyRequestIsSeen(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	b := listen(t, plain, func(w http.ResponseWriter, r *http.Request) {
		if connection.From(r.Context()).Begin(r.Method, r.RequestURI, r.Proto) {
			w.Header().Set("Connection", "close")
		}
		asked <- struct{}{}
		<-answer
	})
	c := b.dial(t)
	answers := bufio.NewReader(c)
	for i := range 20 {
		if i == 0 {
			_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			stack.Must(t, err)
		}
		stack.Receive(t, "request", asked)
		_, err := io.WriteString(c, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
		stack.Must(t, err)
		answer <- struct{}{}
		res, err := http.ReadResponse(answers, nil)
		stack.Must(t, err)
		res.Body.Close()
		if res.Close {
			t.Fatalf("request %d closes the connection", i)
		}
	}
	stack.Receive(t, "request", asked)
	close(answer)
}

// A head that does not end is counted, and gives back what it was charged with.
func TestUnfinishedHeadIsCounted(t *testing.T) {
	t.Parallel()
	b := listen(t, func(b *bench) {
		plain(b)
		b.Heads = &connection.Heads{Size: 128 << 10, Lines: 100, Free: 1 << 10, Memory: 64 << 10}
	}, refuse)
	const long = "GET / HTTP/1.1\r\nHost: x\r\nA: "
	for i := range 3 {
		c := b.dial(t)
		_, err := io.WriteString(c, long+strings.Repeat("x", 60<<10))
		stack.Must(t, err)
		c.Close()
		b.until(t, "tramo_connections_refused_total", i+1)
		b.until(t, "tramo_connections", 0)
	}
	whole := b.dial(t)
	_, err := io.WriteString(whole, long+strings.Repeat("x", 60<<10)+"\r\n\r\n")
	stack.Must(t, err)
	if status, body, _ := answer(t, whole); status != http.StatusConflict {
		t.Errorf("a long head after three that did not end: %d %s", status, body)
	}
	whole.Close()
	b.until(t, "tramo_connections", 0)
	full, beside := b.dial(t), b.dial(t)
	_, err = io.WriteString(full, long+strings.Repeat("x", 60<<10))
	stack.Must(t, err)
	stack.Until(t, "the memory is full", func() bool {
		c := b.dial(t)
		defer c.Close()
		_, err := io.WriteString(c, long+strings.Repeat("x", 10<<10)+"\r\n\r\n")
		stack.Must(t, err)
		_, body, _ := answer(t, c)
		return body == string(connection.HeadMemory)
	})
	_, err = io.WriteString(beside, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	stack.Must(t, err)
	if status, _, _ := answer(t, beside); status != http.StatusConflict {
		t.Errorf("a short head beside it: %d", status)
	}
}
