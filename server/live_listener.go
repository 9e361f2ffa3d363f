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
	backlog int
	wake    chan struct{} // something waits in queue, or the listener is dropped

	mu      sync.Mutex
	queue   []*message
	dropped bool
}

// offer queues what concerns the listener and reports whether it is dropped with that: it has let too much pile up.
// What it misses it is told when it comes back.
func (l *listener) offer(ms []*message) (dropped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped {
		return false
	}
	before := len(l.queue)
	for _, m := range ms {
		if l.filter.concerns(m, l.who) {
			l.queue = append(l.queue, m)
		}
	}
	if len(l.queue) == before {
		return false
	}
	if len(l.queue) > l.backlog {
		l.queue, l.dropped = nil, true
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return l.dropped
}

// take returns what waits; ok is false once the listener is dropped.
func (l *listener) take() (ms []*message, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ms, l.queue = l.queue, nil
	return ms, !l.dropped
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
