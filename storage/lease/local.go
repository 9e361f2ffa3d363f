package lease

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
)

// self returns the id of the process's row, the zero id if it has none, and a channel that is closed when that changes.
func (m *Manager) self() (uuid.UUID, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holder, m.changed
}

// registered records that the process has the row me, and when that was sent.
func (m *Manager) registered(me uuid.UUID, sent time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setHolder(me)
	m.prolong(sent)
}

// renewed records a heartbeat that succeeded, unless the leases were lost meanwhile.
func (m *Manager) renewed(me uuid.UUID, sent time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holder == me {
		m.prolong(sent)
	}
}

// prolong, under the mutex, postpones the time at which leases are declared lost: three quarters of the time to live after
// the last successful heartbeat was sent, which is before another process may take them over.
func (m *Manager) prolong(sent time.Time) {
	m.alive = sent
	m.expiry.Reset(time.Until(sent.Add(m.ttl * 3 / 4)))
}

// overdue is called at that time, unless it was postponed.
func (m *Manager) overdue() {
	m.mu.Lock()
	me, late := m.holder, time.Since(m.alive) >= m.ttl*3/4
	m.mu.Unlock()
	if late && me != uuid.Nil {
		m.log.Warn("no lease heartbeat succeeded in time")
		m.lose(me)
	}
}

// lose gives up the row me, if it still is the process's, and tells all holders in the process to finish: another process
// may take over their leases.
func (m *Manager) lose(me uuid.UUID) {
	m.mu.Lock()
	if m.holder != me {
		m.mu.Unlock()
		return
	}
	lost := m.held
	m.held = make(map[uuid.UUID]*Lease)
	m.setHolder(uuid.Nil)
	m.mu.Unlock()
	m.metrics.lost.Add(float64(len(lost)))
	for _, l := range lost {
		l.want()
	}
}

// setHolder, under the mutex, changes the process's row.
func (m *Manager) setHolder(me uuid.UUID) {
	m.holder = me
	close(m.changed)
	m.changed = make(chan struct{})
}

// enter waits until no other request of this process takes or gives back the upload's row, so that the process's leases and
// the row can be compared. Call leave when done.
func (m *Manager) enter(ctx context.Context, upload uuid.UUID) (leave func(), err error) {
	for {
		leave, ok := m.tryEnter(upload)
		if ok {
			return leave, nil
		}
		m.mu.Lock()
		busy := m.busy[upload]
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
	if m.busy[upload] != nil {
		return nil, false
	}
	busy := make(chan struct{})
	m.busy[upload] = busy
	return func() {
		m.mu.Lock()
		delete(m.busy, upload)
		m.mu.Unlock()
		close(busy)
	}, true
}

// add records a lease. It returns false if the process no longer has the row under which the lease was taken.
func (m *Manager) add(l *Lease) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holder != l.holder {
		return false
	}
	m.held[l.upload] = l
	return true
}

func (m *Manager) remove(l *Lease) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[l.upload] == l {
		delete(m.held, l.upload)
	}
}

// local returns the lease on the tenant's upload that this process holds, or nil.
func (m *Manager) local(owner, upload uuid.UUID) *Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.held[upload]; l != nil && l.tenant == owner {
		return l
	}
	return nil
}

func (m *Manager) wait(upload uuid.UUID) waiter {
	w := make(waiter, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiters[upload] = append(m.waiters[upload], w)
	return w
}

func (m *Manager) stopWaiting(upload uuid.UUID, w waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := slices.DeleteFunc(m.waiters[upload], func(o waiter) bool { return o == w })
	if len(rest) == 0 {
		delete(m.waiters, upload)
		return
	}
	m.waiters[upload] = rest
}

// wakeWaiters wakes the process's waiters for an upload.
func (m *Manager) wakeWaiters(upload uuid.UUID, how string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.waiters[upload] {
		w.wake(how)
	}
}

// wakeAll wakes all of the process's waiters: any lease may be free.
func (m *Manager) wakeAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, waiters := range m.waiters {
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
