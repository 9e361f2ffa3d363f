package lease

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
)

// self returns the holder that this process is, and what is closed when that changes.
func (m *Manager) self() (uuid.UUID, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holder, m.changed
}

// enlisted makes this process the holder me, whose first heartbeat was sent then.
func (m *Manager) enlisted(me uuid.UUID, sent time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.become(me)
	m.prolong(sent)
}

// survived notes a heartbeat that succeeded, unless the leases were lost meanwhile.
func (m *Manager) survived(me uuid.UUID, sent time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holder == me {
		m.prolong(sent)
	}
}

// prolong, under the mutex, puts off the moment at which leases are declared lost: three quarters of a time to
// live after the last heartbeat that succeeded was sent, before anyone may take them over.
func (m *Manager) prolong(sent time.Time) {
	m.alive = sent
	m.doom.Reset(time.Until(sent.Add(m.ttl * 3 / 4)))
}

// overdue is called at that moment, unless it has been put off.
func (m *Manager) overdue() {
	m.mu.Lock()
	me, late := m.holder, time.Since(m.alive) >= m.ttl*3/4
	m.mu.Unlock()
	if late && me != uuid.Nil {
		m.log.Warn("no lease heartbeat succeeded for too long")
		m.lose(me)
	}
}

// lose makes this process nobody, if it still is the holder me, and tells every holder of a lease in it to
// stop: it may be another's by now.
func (m *Manager) lose(me uuid.UUID) {
	m.mu.Lock()
	if m.holder != me {
		m.mu.Unlock()
		return
	}
	lost := m.held
	m.held = make(map[uuid.UUID]*Lease)
	m.become(uuid.Nil)
	m.mu.Unlock()
	m.metrics.lost.Add(float64(len(lost)))
	for _, l := range lost {
		l.askToLetGo()
	}
}

// become, under the mutex, changes the holder that this process is.
func (m *Manager) become(me uuid.UUID) {
	m.holder = me
	close(m.changed)
	m.changed = make(chan struct{})
}

// enter waits until no other request of this process is taking or giving back the upload's row, so that
// what this process holds and what the row says can be compared. Call leave when done.
func (m *Manager) enter(ctx context.Context, upload uuid.UUID) (leave func(), err error) {
	for {
		leave, ok := m.tryEnter(upload)
		if ok {
			return leave, nil
		}
		m.mu.Lock()
		busy := m.trying[upload]
		m.mu.Unlock()
		if busy == nil {
			continue
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ErrHeld
		}
	}
}

func (m *Manager) tryEnter(upload uuid.UUID) (leave func(), ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trying[upload] != nil {
		return nil, false
	}
	busy := make(chan struct{})
	m.trying[upload] = busy
	return func() {
		m.mu.Lock()
		delete(m.trying, upload)
		m.mu.Unlock()
		close(busy)
	}, true
}

// keep remembers a lease; false means that the process is no longer the holder that took it.
func (m *Manager) keep(l *Lease) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holder != l.holder {
		return false
	}
	m.held[l.upload] = l
	return true
}

func (m *Manager) forget(l *Lease) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[l.upload] == l {
		delete(m.held, l.upload)
	}
}

// holdsLocally reports whether somebody in this process holds the tenant's upload, and asks it to let go if that is
// the manner.
func (m *Manager) holdsLocally(owner, upload uuid.UUID, how manner) bool {
	m.mu.Lock()
	l := m.held[upload]
	m.mu.Unlock()
	if l == nil || l.tenant != owner {
		return false
	}
	if how == asking {
		l.askToLetGo()
	}
	return true
}

func (m *Manager) wait(upload uuid.UUID) waiter {
	w := make(waiter, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.freed[upload] = append(m.freed[upload], w)
	return w
}

func (m *Manager) stopWaiting(upload uuid.UUID, w waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := slices.DeleteFunc(m.freed[upload], func(o waiter) bool { return o == w })
	if len(rest) == 0 {
		delete(m.freed, upload)
		return
	}
	m.freed[upload] = rest
}

// wakeWaiters tells this process's waiters for an upload how they come to hear of it.
func (m *Manager) wakeWaiters(upload uuid.UUID, how string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.freed[upload] {
		w.wake(how)
	}
}

// wakeAll tells all of this process's waiters, when it is not known for which of them something has changed.
func (m *Manager) wakeAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, waiters := range m.freed {
		for _, w := range waiters {
			w.wake(notified)
		}
	}
}

func (w waiter) wake(how string) {
	select {
	case w <- how:
	default:
	}
}
