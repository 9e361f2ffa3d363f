package chaos

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
)

// A line passes TCP connections on to servers in turn, and to the next if one does not answer, as a load balancer does that
// knows nothing of HTTP. It can be cut and can fall silent.
//
// toxiproxy does that too, but locks itself up when a toxic is added to a connection that is just breaking: the toxic waits for
// the connection's chain to move, the chain for its writer, and the writer for the lock under which toxics are added. Here
// that is the rule and not the exception.
type line struct {
	listener net.Listener
	servers  []string
	running  sync.WaitGroup
	stopping context.Context
	cancel   context.CancelFunc

	mu     sync.Mutex
	next   int
	silent chan struct{} // closed when the silence ends; nil when there is none
	budget int64         // bytes from clients until the next cut; 0 for no cut
	conns  map[net.Conn]bool
}

// newLine listens on a free loopback port and passes on to servers, each a host:port or an http URL.
func newLine(servers ...string) (*line, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &line{listener: listener, servers: servers, conns: map[net.Conn]bool{}}
	l.stopping, l.cancel = context.WithCancel(context.Background())
	l.running.Go(l.accept)
	return l, nil
}

func (l *line) url() string { return "http://" + l.listener.Addr().String() }

// close ends the line and every connection through it.
func (l *line) close() {
	l.cancel()
	l.listener.Close()
	l.cut()
	l.running.Wait()
}

// cut closes every connection.
func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		conn.Close()
	}
}

// cutAfter cuts once clients have sent that many bytes more.
func (l *line) cutAfter(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.budget = bytes
}

// stall lets nothing pass until resume: both ends believe in connections that are silent, and what has been sent arrives late.
func (l *line) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent == nil {
		l.silent = make(chan struct{})
	}
}

func (l *line) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent != nil {
		close(l.silent)
		l.silent = nil
	}
}

func (l *line) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		l.running.Go(func() { l.pass(client) })
	}
}

func (l *line) pass(client net.Conn) {
	defer client.Close()
	server := l.dial()
	if server == nil {
		return
	}
	defer server.Close()
	defer l.enlist(client, server)()
	var both sync.WaitGroup
	for to, from := range map[net.Conn]net.Conn{server: client, client: server} {
		both.Go(func() {
			if err := l.carry(to, from, from == client); err != nil {
				to.Close() // a reset stays a reset
				from.Close()
			}
			_ = to.(*net.TCPConn).CloseWrite() // it may be closed
		})
	}
	both.Wait()
}

// enlist lets connections be cut until the function that it returns is called.
func (l *line) enlist(conns ...net.Conn) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range conns {
		l.conns[conn] = true
		if l.stopping.Err() != nil {
			conn.Close()
		}
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, conn := range conns {
			delete(l.conns, conn)
		}
	}
}

func (l *line) carry(to io.Writer, from io.Reader, fromClient bool) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		l.await()
		if fromClient && l.spend(int64(n)) {
			l.cut()
			return io.ErrUnexpectedEOF
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// await returns when there is no silence.
func (l *line) await() {
	l.mu.Lock()
	silent := l.silent
	l.mu.Unlock()
	if silent == nil {
		return
	}
	select {
	case <-silent:
	case <-l.stopping.Done():
	}
}

// spend takes n bytes from the budget and reports whether it is used up.
func (l *line) spend(n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.budget == 0 {
		return false
	}
	l.budget = max(0, l.budget-n)
	return l.budget == 0
}

func (l *line) dial() net.Conn {
	var d net.Dialer
	for range l.servers {
		l.mu.Lock()
		server := l.servers[l.next%len(l.servers)]
		l.next++
		l.mu.Unlock()
		if conn, err := d.DialContext(l.stopping, "tcp", strings.TrimPrefix(server, "http://")); err == nil {
			return conn
		}
	}
	return nil
}
