// Package connection owns the server's TCP connections: how many there are, what each may cost before its request is known,
// and how it is closed. It does not know what is asked over them.
package connection

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Config is the settings of connections.
type Config struct {
	Max            int           `name:"max-connections" help:"How many connections a server has at the same time; 0 for any number."`
	PerAddress     int           `name:"address-connections" help:"How many of them may come from one IP address, unless it is one of TRAMO_TRUSTED_PROXIES; 0 for any number."`
	Discard        int64         `name:"refused-body" type:"bytes" help:"How much of a refused body is read and dropped after the answer. A client that sends more before it reads finds the connection reset, and may lose the answer."`
	DiscardTimeout time.Duration `name:"refused-body-timeout" help:"How long a refused body is read and dropped after the answer."`
}

// DefaultConfig allows for a site whose phones share one address, and for a refused photo over 1 Mbit/s.
func DefaultConfig() Config {
	return Config{Max: 10_000, PerAddress: 2000, Discard: 16 << 20, DiscardTimeout: 2 * time.Minute}
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	for _, n := range []struct {
		variable string
		value    int64
	}{
		{"TRAMO_MAX_CONNECTIONS", int64(c.Max)}, {"TRAMO_ADDRESS_CONNECTIONS", int64(c.PerAddress)}, {"TRAMO_REFUSED_BODY", c.Discard},
	} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("%s: %d is less than 0", n.variable, n.value))
		}
	}
	if c.DiscardTimeout < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_REFUSED_BODY_TIMEOUT: %s is less than 0", c.DiscardTimeout))
	}
	return errors.Join(errs...)
}

// A Reason is why a connection, or the head of a request, is refused. It is also its label in metrics.
type Reason string

// The reasons.
const (
	InAll       Reason = "all"         // there are [Config.Max] connections
	FromAddress Reason = "address"     // there are [Config.PerAddress] from that address
	HeadSize    Reason = "head-size"   // the head has more bytes than [Heads.Size]
	HeadLines   Reason = "head-lines"  // or more lines than [Heads.Lines]
	HeadMemory  Reason = "head-memory" // the long heads that are being received fill [Heads.Memory]

	HeadInvalid Reason = "head-invalid" // it did not end, or not in time, or is no HTTP; net/http answers, or nobody
)

// Heads bounds the heads of requests, which are their request lines and headers. net/http keeps each of them while it
// arrives. A short line costs it some twenty times its bytes, hence the bound on lines.
type Heads struct {
	Size   int   // bytes of one
	Lines  int   // of one
	Free   int   // bytes of each that do not count for Memory
	Memory int64 // bytes of all that are being received, beyond Free
}

// Metrics count connections.
type Metrics struct {
	open, lingering prometheus.Gauge
	refused         *prometheus.CounterVec
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	m := &Metrics{
		open: f.NewGauge(prometheus.GaugeOpts{
			Name: "tramo_connections", Help: "Open connections of clients, those that are lingering included.",
		}),
		lingering: f.NewGauge(prometheus.GaugeOpts{
			Name: "tramo_connections_lingering", Help: "Connections whose refused body is read and dropped, so that the client reads the answer.",
		}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_connections_refused_total",
			Help: "Connections that ended before a request was known, by reason: all, address, head-size, head-lines, head-memory, head-invalid.",
		}, []string{"reason"}),
	}
	for _, r := range []Reason{InAll, FromAddress, HeadSize, HeadLines, HeadMemory, HeadInvalid} {
		m.refused.WithLabelValues(string(r))
	}
	return m
}

// A Listener accepts TCP connections within bounds. Its connections are [Conn].
type Listener struct {
	*net.TCPListener
	Config
	Heads   *Heads                  // nil bounds none, as where the connection is encrypted
	Key     func(netip.Addr) string // what connections of an address count as; "" for none
	Refusal func(Reason) []byte     // the whole answer to who is refused
	Metrics *Metrics

	mu        sync.Mutex
	open      int
	from      map[string]int // open connections, by key
	heads     int64          // bytes that count for [Heads.Memory]
	lingering list.List      // of *Conn, the oldest first
	discards  sync.WaitGroup
	draining  atomic.Bool
}

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		c := &Conn{TCPConn: tcp, listener: l}
		if a, ok := tcp.RemoteAddr().(*net.TCPAddr); ok && l.Key != nil {
			c.key = l.Key(a.AddrPort().Addr().Unmap())
		}
		c.Await()
		if reason, admitted := l.admit(c); !admitted {
			c.refuse(reason)
			_ = c.Close()
			continue
		}
		return c, nil
	}
}

// admit counts a connection, unless there are too many.
func (l *Listener) admit(c *Conn) (why Reason, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.Max > 0 && l.open >= l.Max:
		return InAll, false
	case l.PerAddress > 0 && c.key != "" && l.from[c.key] >= l.PerAddress:
		return FromAddress, false
	}
	if l.from == nil {
		l.from = make(map[string]int)
	}
	l.open++
	l.from[c.key]++
	l.Metrics.open.Inc()
	c.counted = true
	return "", true
}

// leave takes a connection that is closed out of the count.
func (l *Listener) leave(c *Conn) {
	if !c.counted {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.from[c.key]--; l.from[c.key] == 0 {
		delete(l.from, c.key)
	}
	l.Metrics.open.Dec()
}

// charge counts n more bytes of heads, less where n is negative, and reports whether there is room.
func (l *Listener) charge(n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > 0 && l.heads+n > l.Heads.Memory {
		return false
	}
	l.heads += n
	return true
}

// maxLingering is how many connections linger at the same time. Each holds a goroutine and [discardBuffer].
const maxLingering = 512

// linger closes a connection in order, in the background: it reads on and drops what it reads. When too many linger, the
// oldest, which has had the longest time to read its answer, is closed. A connection that is over the bounds finds room or
// is closed itself: it must not end others.
func (l *Listener) linger(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lingering.Len() >= maxLingering {
		last := c
		if c.counted {
			last = l.lingering.Remove(l.lingering.Front()).(*Conn)
		}
		_ = last.TCPConn.Close() // its goroutine, if it has one, does the rest
		if !c.counted {
			return
		}
	}
	e := l.lingering.PushBack(c)
	l.Metrics.lingering.Inc()
	atMost := l.DiscardTimeout
	if !c.counted {
		atMost = min(atMost, 2*brief)
	}
	l.discards.Go(func() {
		c.discard(l.Discard, atMost)
		_ = c.TCPConn.Close()
		l.mu.Lock()
		l.lingering.Remove(e) // nothing, if it was removed before
		l.mu.Unlock()
		l.Metrics.lingering.Dec()
		l.leave(c)
	})
}

// Drain waits until no connection lingers, less patiently than else. When ctx is done, it closes those that do.
func (l *Listener) Drain(ctx context.Context) {
	l.draining.Store(true)
	l.each(func(c *Conn) { _ = c.SetReadDeadline(time.Now().Add(brief)) })
	defer context.AfterFunc(ctx, func() { l.each(func(c *Conn) { _ = c.TCPConn.Close() }) })()
	l.discards.Wait()
}

// each calls do with all connections that linger.
func (l *Listener) each(do func(*Conn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := l.lingering.Front(); e != nil; e = e.Next() {
		do(e.Value.(*Conn))
	}
}
