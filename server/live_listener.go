package server

import (
	"sync"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// A listener is somebody's open stream.
type listener struct {
	who     tenant.Identity
	filter  filter
	room    *room
	backlog int           // how many messages may wait
	cut     func()        // ends the stream, whatever it is doing
	wake    chan struct{} // something waits in queue

	mu      sync.Mutex
	queue   []*message
	dropped bool
}

func newListener(who tenant.Identity, f filter, backlog int, cut func()) *listener {
	return &listener{who: who, filter: f, backlog: backlog, cut: cut, wake: make(chan struct{}, 1)}
}

// offer queues what concerns the listener and reports whether it is dropped with that: it has let too much pile up.
// What it misses it is told when it comes back.
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

// take returns what waits.
func (l *listener) take() (ms []*message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ms, l.queue = l.queue, nil
	return ms
}

// unless drops from ms those states that the versions cover: the listener was told so already, when it came.
func unless(ms []*message, versions map[uuid.UUID]storage.Version) []*message {
	if versions == nil {
		return ms
	}
	var rest []*message
	for _, m := range ms {
		if v, told := versions[m.subject]; m.event == eventUpload && told && v.Covers(m.version) {
			continue
		}
		rest = append(rest, m)
	}
	return rest
}
