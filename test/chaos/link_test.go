package chaos

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// A link is a client's way to a server: one network, until the client leaves it. Its requests end with it and not with the
// client's patience, because a phone that has lost its network tells nobody.
type link struct {
	line      *line
	shaky     *stack.Proxy // before the line; nil for none
	transport *http.Transport
	left      chan struct{} // closed when the client has gone elsewhere
	leave     func()
	ctx       context.Context // ends when the connections do
	close     func()
}

// newLink makes a way to server. If cut is not 0, each of its connections breaks after that many bytes.
func newLink(server string, cut int64) (*link, error) {
	line, err := newLine(server)
	if err != nil {
		return nil, err
	}
	l := &link{line: line, transport: &http.Transport{DisableCompression: true}, left: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	l.ctx, l.leave = ctx, sync.OnceFunc(func() { close(l.left) })
	l.close = sync.OnceFunc(func() {
		l.leave()
		cancel()
		l.transport.CloseIdleConnections()
		if l.shaky != nil {
			l.shaky.Close()
		}
		line.close()
	})
	if cut == 0 {
		return l, nil
	}
	if l.shaky, err = stack.NewProxy(line.url()); err == nil {
		err = l.shaky.CutAfter(cut)
	}
	if err != nil {
		l.close()
	}
	return l, err
}

func (l *link) url() string {
	if l.shaky != nil {
		return l.shaky.URL()
	}
	return l.line.url()
}

// abandon leaves the link. Its connections stay open for a while, though nothing is sent any more.
func (l *link) abandon(open time.Duration) {
	l.leave()
	time.AfterFunc(open, l.close)
}
