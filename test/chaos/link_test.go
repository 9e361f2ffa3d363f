package chaos

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// A link is a client's way to a server: one network, until the client leaves it. Its requests end with it and not with the
// client's patience, because a phone that has lost its network closes no connection.
type link struct {
	server    string // its address, or that of what is before it
	line      *line  // nil for none
	transport *http.Transport
	left      chan struct{}   // closed when the client has gone elsewhere
	ctx       context.Context // ends when the connections do
	cancel    context.CancelFunc
	closers   []func()

	leaving, closing sync.Once
}

// newLink makes a way to server that can be disturbed. If cut is not 0, each of its connections breaks after that many bytes.
func newLink(server string, cut int64) (*link, error) {
	line, err := newLine(server)
	if err != nil {
		return nil, err
	}
	l := plainLink(line.url())
	l.line = line
	l.closers = append(l.closers, line.close)
	if cut == 0 {
		return l, nil
	}
	shaky, err := stack.NewProxy(line.url())
	if err != nil {
		l.close()
		return nil, err
	}
	l.closers = append(l.closers, shaky.Close)
	if err := shaky.CutAfter(cut); err != nil {
		l.close()
		return nil, err
	}
	l.server = shaky.URL()
	return l, nil
}

// plainLink makes a way to server with nothing in between.
func plainLink(server string) *link {
	l := &link{server: server, transport: &http.Transport{DisableCompression: true}, left: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *link) leave() { l.leaving.Do(func() { close(l.left) }) }

// close ends the link's requests and connections. It may be called more than once.
func (l *link) close() {
	l.closing.Do(func() {
		l.leave()
		l.cancel()
		l.transport.CloseIdleConnections()
		for _, f := range slices.Backward(l.closers) {
			f()
		}
	})
}

// abandon leaves the link. Its connections stay open for a while, though nothing is sent any more.
func (l *link) abandon(open time.Duration) {
	l.leave()
	time.AfterFunc(open, l.close)
}
