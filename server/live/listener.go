package live

import (
	"sync"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
)

// Values of the label transport.
const (
	transportSSE       = "sse"
	transportWebSocket = "websocket"
)

// A listener is an open stream of a user.
type listener struct {
	who       tenant.Identity
	filter    filter
	transport string
	feed      *feed
	backlog   int           // messages that may wait
	cut       func()        // ends the stream at once
	wake      chan struct{} // there are messages in queue

	mu      sync.Mutex
	queue   []*message
	dropped bool
}

func newListener(who tenant.Identity, f filter, backlog int, cut func()) *listener {
	return &listener{who: who, filter: f, transport: transportSSE, backlog: backlog, cut: cut, wake: make(chan struct{}, 1)}
}

// offer queues the messages that concern the listener. It drops a listener whose backlog is exceeded, and reports that.
// When the client returns it is sent what it missed.
func (l *listener) offer(ms []*message) (dropped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped {
		return false
	}
	for _, m := range ms {
		if l.filter.concerns(m, l.who) {
			l.queue = append(l.queue, m)
		}
	}
	switch {
	case len(l.queue) > l.backlog:
		l.queue, l.dropped = nil, true
		l.cut()
	case len(l.queue) > 0:
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return l.dropped
}

// take empties the queue.
func (l *listener) take() (ms []*message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ms, l.queue = l.queue, nil
	return ms
}

// withoutCovered drops uploads from ms whose state, or a later one, the listener was sent in its snapshot.
func withoutCovered(ms []*message, snapshot map[uuid.UUID]version) []*message {
	if snapshot == nil {
		return ms
	}
	var rest []*message
	for _, m := range ms {
		if v, sent := snapshot[m.subject]; m.event == eventUpload && sent && v.covers(m.version) {
			continue
		}
		rest = append(rest, m)
	}
	return rest
}
