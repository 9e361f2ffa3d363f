package lease_test

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// A gateway stands before Postgres' socket and can forget connections: what is said on them arrives nowhere, and
// neither side is told.
type gateway struct {
	upstream string
	slow     time.Duration // how long a new connection takes

	mu    sync.Mutex
	conns map[*gated]struct{}
	all   sync.WaitGroup
}

// newGateway returns a gateway to the server at a URL, and the URL that leads through it. Each new connection takes so long.
func newGateway(t *testing.T, to string, slow time.Duration) (*gateway, string) {
	t.Helper()
	u, err := url.Parse(to)
	stack.Must(t, err)
	query := u.Query()
	const name = ".s.PGSQL.5432"
	g := &gateway{upstream: filepath.Join(query.Get("host"), name), slow: slow, conns: make(map[*gated]struct{})}
	dir, err := os.MkdirTemp("", "tramo-gw-") // t.TempDir is too long for a socket
	stack.Must(t, err)
	l, err := net.Listen("unix", filepath.Join(dir, name))
	stack.Must(t, err)
	g.all.Go(func() { g.serve(l) })
	t.Cleanup(func() {
		stack.Must(t, l.Close())
		g.cut()
		stack.Must(t, stack.Ended(t, "the gateway's connections", func() error { g.all.Wait(); return nil }))
		stack.Must(t, os.RemoveAll(dir))
	})
	query.Set("host", dir)
	u.RawQuery = query.Encode()
	return g, u.String()
}

func (g *gateway) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		g.all.Go(func() {
			<-time.After(g.slow)
			g.connect(client)
		})
	}
}

func (g *gateway) connect(client net.Conn) {
	server, err := net.Dial("unix", g.upstream)
	if err != nil {
		client.Close()
		return
	}
	c := &gated{client: client, server: server}
	g.mu.Lock()
	g.conns[c] = struct{}{}
	g.mu.Unlock()
	g.all.Go(func() { c.pass(client, server) })
	g.all.Go(func() { c.pass(server, client) })
}

// forget forgets all connections that there are.
func (g *gateway) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.mu.Lock()
		c.forgotten = true
		c.mu.Unlock()
	}
}

// cut closes all connections that there are.
func (g *gateway) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.client.Close()
		c.server.Close()
	}
}

// A gated connection has two ends, between which bytes pass until it is forgotten.
type gated struct {
	client, server net.Conn

	mu        sync.Mutex
	forgotten bool
}

func (c *gated) pass(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		forgotten := c.forgotten
		c.mu.Unlock()
		switch {
		case forgotten && err == nil:
			continue
		case forgotten:
			return
		case err != nil:
			to.Close()
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			from.Close()
			return
		}
	}
}
