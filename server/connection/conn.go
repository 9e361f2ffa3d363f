package connection

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A Conn is one of a [Listener]'s. net/http reads the head of a request from it, then [Conn.Begin] is called, and [Conn.Await]
// once the answer is sent and the next request may come.
type Conn struct {
	*net.TCPConn
	listener *Listener
	key      string
	counted  bool

	awaits  atomic.Bool  // a head; what is written then is an answer to a head that is not valid
	head    head         // while it awaits one
	charged atomic.Int64 // bytes of the head that count for [Heads.Memory]
	begun   atomic.Bool  // the head, and not ended
	early   []byte       // of the next head: at most one byte, which net/http reads while a request is answered
	lingers atomic.Bool  // an answer was given while its client may still send
	left    atomic.Int64
	once    sync.Once // of Close
}

type contextKey struct{}

// Context returns the context of a connection's requests (http.Server.ConnContext).
func Context(ctx context.Context, c net.Conn) context.Context {
	if conn := of(c); conn != nil {
		return context.WithValue(ctx, contextKey{}, conn)
	}
	return ctx
}

// From returns the connection of a request, nil if it did not come from a [Listener].
func From(ctx context.Context) *Conn {
	c, _ := ctx.Value(contextKey{}).(*Conn)
	return c
}

// of finds the connection, also below TLS.
func of(c net.Conn) *Conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	conn, _ := c.(*Conn)
	return conn
}

// Await says that the connection is idle (http.Server.ConnState): what comes next is a head.
func Await(c net.Conn) {
	if conn := of(c); conn != nil {
		conn.Await()
	}
}

// Await is [Await].
func (c *Conn) Await() {
	c.head = newHead()
	c.head.scan(c.early)
	c.early = nil
	c.lingers.Store(false)
	c.awaits.Store(true)
}

// Begin says that a request has been read, with this request line. It reports whether the connection must be closed after
// the answer because it is not certain where the request ends, and another one may be hidden in it:
//   - it has both Transfer-Encoding and Content-Length, or has Transfer-Encoding in HTTP/1.0 (RFC 9112, section 6.1: MUST);
//   - it came together with the request before it, so that this was not looked for. Hardly a client does that.
//
// A nil connection has nothing to say.
func (c *Conn) Begin(method, uri, proto string) (mustClose bool) {
	if c == nil {
		return false
	}
	c.awaits.Store(false)
	c.begun.Store(false)
	c.settle()
	return c.listener.Heads != nil && !c.head.certain(method, uri, proto)
}

// Leave says that the answer to a request does not wait for the rest of its body, left bytes, or -1 if that is unknown.
func (c *Conn) Leave(left int64) {
	if c != nil {
		c.left.Store(left)
		c.lingers.Store(true)
	}
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n == 0 || c.listener.Heads == nil {
		return n, err
	}
	if c.awaits.Load() {
		if reason, ok := c.grow(p[:n]); !ok {
			c.refuse(reason)
			return 0, io.EOF // net/http answers nothing to that
		}
	} else if len(p) == 1 { // net/http looks whether the client is still there; bodies are read in larger pieces
		c.early = []byte{p[0]}
	}
	return n, err
}

// grow counts more bytes of a head.
func (c *Conn) grow(p []byte) (why Reason, ok bool) {
	most := c.listener.Heads
	c.head.scan(p)
	switch {
	case c.head.lines > most.Lines:
		return HeadLines, false
	case c.head.size > most.Size:
		return HeadSize, false
	}
	if more := int64(c.head.size-most.Free) - c.charged.Load(); more > 0 {
		if !c.listener.charge(more) {
			return HeadMemory, false
		}
		c.charged.Add(more)
	}
	c.begun.Store(true)
	return "", true
}

// settle gives back what the head was charged with.
func (c *Conn) settle() {
	if n := c.charged.Swap(0); n > 0 {
		c.listener.charge(-n)
	}
}

// Write implements [net.Conn].
func (c *Conn) Write(p []byte) (int, error) {
	if c.awaits.Load() {
		c.Leave(-1)
	}
	return c.TCPConn.Write(p)
}

// refuse answers before a request is known. The answer fits into the socket's buffer, which is empty.
func (c *Conn) refuse(r Reason) {
	c.listener.Metrics.refused.WithLabelValues(string(r)).Inc()
	c.begun.Store(false)
	if c.listener.Refusal != nil {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.Write(c.listener.Refusal(r)) // an error means that the client has gone
	}
}

// CloseWrite does nothing: net/http half-closes a connection right after it has answered to a body that it has not read. Too
// soon: what stands between (NAT, tunnels, Docker's and other proxies) takes that for the end of the whole connection, and
// resets it under a client that still sends. [Conn.Close] does it in its time.
func (c *Conn) CloseWrite() error { return nil }

// Close implements [net.Conn]. A connection whose client may still send is closed in order, and after Close has returned: a
// socket that is closed while bytes arrive answers them with a reset, upon which the client's system drops an answer that
// was not read yet (RFC 9112, section 9.6).
func (c *Conn) Close() (err error) {
	c.once.Do(func() {
		c.settle()
		if c.begun.Load() {
			c.listener.Metrics.refused.WithLabelValues(string(HeadInvalid)).Inc()
		}
		if c.lingers.Load() {
			c.listener.linger(c)
			return
		}
		err = c.TCPConn.Close()
		c.listener.leave(c)
	})
	return err
}

const (
	// silence is how long a client that lingers may send nothing: a phone's network pauses. Then, or when it has sent its
	// body, the connection is closed in one direction, and the client is given as long again to close it in the other.
	silence = 30 * time.Second
	// brief is that time when the server stops, or for a client that it never wanted.
	brief = 5 * time.Second
	// discardBuffer is the memory of a connection that lingers, in bytes.
	discardBuffer = 4 << 10
)

// discard reads and drops until the client closes, at most so many bytes and for so long.
func (c *Conn) discard(most int64, atMost time.Duration) {
	end := time.Now().Add(atMost)
	left, half := c.left.Load(), false
	buffer := make([]byte, discardBuffer)
	for most > 0 && time.Now().Before(end) {
		wait := silence
		if !c.counted || c.listener.draining.Load() {
			wait = brief
		}
		_ = c.SetReadDeadline(time.Now().Add(min(wait, time.Until(end))))
		n, err := c.TCPConn.Read(buffer)
		most -= int64(n)
		left -= int64(n)
		sent := left >= 0 && left <= discardBuffer // the rest may have been read before
		switch {
		case err != nil && (half || !errors.Is(err, os.ErrDeadlineExceeded)):
			return
		case !half && (sent || err != nil):
			half = true
			_ = c.TCPConn.CloseWrite()
		}
	}
	_ = c.TCPConn.CloseWrite()
}
