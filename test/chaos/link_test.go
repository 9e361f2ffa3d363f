package chaos

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// A link is a client's way to a server: one network, until the client leaves it. Its requests end with it and not with the
// client's patience, because a phone that has lost its network tells nobody.
type link struct {
	proxy     *stack.Proxy
	transport *http.Transport
	left      chan struct{} // closed when the client has gone elsewhere
	leave     func()
	ctx       context.Context // ends when the connections do
	close     func()
}

func newLink(addr string) (*link, error) {
	proxy, err := stack.NewProxy(addr)
	if err != nil {
		return nil, err
	}
	l := &link{proxy: proxy, transport: &http.Transport{DisableCompression: true}, left: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	l.ctx, l.leave = ctx, sync.OnceFunc(func() { close(l.left) })
	l.close = sync.OnceFunc(func() {
		l.leave()
		cancel()
		l.transport.CloseIdleConnections()
		proxy.Close()
	})
	return l, nil
}

// abandon leaves the link. Its connections stay open for a while, though nothing is sent any more.
func (l *link) abandon(open time.Duration) {
	l.leave()
	time.AfterFunc(open, l.close)
}

// A balancer passes TCP connections on to servers in turn, and to the next if one does not answer, as a load balancer does
// that knows nothing of HTTP.
type balancer struct {
	listener net.Listener
	servers  []string
	next     atomic.Uint64
	running  sync.WaitGroup
	stopping context.Context
	cancel   context.CancelFunc
}

func newBalancer(servers ...string) (*balancer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{listener: l, servers: servers}
	b.stopping, b.cancel = context.WithCancel(context.Background())
	b.running.Go(b.accept)
	return b, nil
}

func (b *balancer) url() string { return "http://" + b.listener.Addr().String() }

func (b *balancer) stop() {
	b.cancel()
	b.listener.Close()
	b.running.Wait()
}

func (b *balancer) accept() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return // stopped
		}
		b.running.Go(func() { b.pass(client) })
	}
}

func (b *balancer) pass(client net.Conn) {
	defer client.Close()
	server := b.dial()
	if server == nil {
		return
	}
	defer server.Close()
	defer context.AfterFunc(b.stopping, func() { client.Close(); server.Close() })()
	var both sync.WaitGroup
	for to, from := range map[net.Conn]net.Conn{server: client, client: server} {
		both.Go(func() {
			if _, err := io.Copy(to, from); err != nil {
				to.Close() // a reset stays a reset
				from.Close()
			}
			to.(*net.TCPConn).CloseWrite()
		})
	}
	both.Wait()
}

func (b *balancer) dial() net.Conn {
	var d net.Dialer
	for range b.servers {
		server := b.servers[b.next.Add(1)%uint64(len(b.servers))]
		if conn, err := d.DialContext(b.stopping, "tcp", strings.TrimPrefix(server, "http://")); err == nil {
			return conn
		}
	}
	return nil
}
