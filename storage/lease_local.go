package storage

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
)

// self returns the holder that this process is, and what is closed when that changes.
func (ls *Leases) self() (uuid.UUID, <-chan struct{}) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.holder, ls.changed
}

// enlisted makes this process the holder me, whose first heartbeat was sent then.
func (ls *Leases) enlisted(me uuid.UUID, sent time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.become(me)
	ls.prolong(sent)
}

// survived notes a heartbeat that succeeded, unless the leases were lost meanwhile.
func (ls *Leases) survived(me uuid.UUID, sent time.Time) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.holder == me {
		ls.prolong(sent)
	}
}

// prolong, under the mutex, puts off the moment at which leases are declared lost: three quarters of a time to
// live after the last heartbeat that succeeded was sent, before anyone may take them over.
func (ls *Leases) prolong(sent time.Time) {
	ls.alive = sent
	ls.doom.Reset(time.Until(sent.Add(ls.ttl * 3 / 4)))
}

// overdue is called at that moment, unless it has been put off.
func (ls *Leases) overdue() {
	ls.mu.Lock()
	me, late := ls.holder, time.Since(ls.alive) >= ls.ttl*3/4
	ls.mu.Unlock()
	if late && me != uuid.Nil {
		ls.log.Warn("no lease heartbeat succeeded for too long")
		ls.lose(me)
	}
}

// lose makes this process nobody, if it still is the holder me, and tells every holder of a lease in it to
// stop: it may be another's by now.
func (ls *Leases) lose(me uuid.UUID) {
	ls.mu.Lock()
	if ls.holder != me {
		ls.mu.Unlock()
		return
	}
	lost := ls.held
	ls.held = make(map[uuid.UUID]*Lease)
	ls.become(uuid.Nil)
	ls.mu.Unlock()
	ls.metrics.lost.Add(float64(len(lost)))
	for _, l := range lost {
		l.letGo()
	}
}

// become, under the mutex, changes the holder that this process is.
func (ls *Leases) become(me uuid.UUID) {
	ls.holder = me
	close(ls.changed)
	ls.changed = make(chan struct{})
}

// enter waits until no other request of this process is taking or giving back the upload's row, so that
// what this process holds and what the row says can be compared. Call leave when done.
func (ls *Leases) enter(ctx context.Context, upload uuid.UUID) (leave func(), err error) {
	for {
		leave, ok := ls.tryEnter(upload)
		if ok {
			return leave, nil
		}
		ls.mu.Lock()
		busy := ls.trying[upload]
		ls.mu.Unlock()
		if busy == nil {
			continue
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ErrLeaseHeld
		}
	}
}

func (ls *Leases) tryEnter(upload uuid.UUID) (leave func(), ok bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.trying[upload] != nil {
		return nil, false
	}
	busy := make(chan struct{})
	ls.trying[upload] = busy
	return func() {
		ls.mu.Lock()
		delete(ls.trying, upload)
		ls.mu.Unlock()
		close(busy)
	}, true
}

// keep remembers a lease; false means that the process is no longer the holder that took it.
func (ls *Leases) keep(l *Lease) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.holder != l.holder {
		return false
	}
	ls.held[l.upload] = l
	return true
}

func (ls *Leases) forget(l *Lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.held[l.upload] == l {
		delete(ls.held, l.upload)
	}
}

// holdsLocally reports whether somebody in this process holds the tenant's upload, and asks it to let go if that is
// the manner.
func (ls *Leases) holdsLocally(owner, upload uuid.UUID, how manner) bool {
	ls.mu.Lock()
	l := ls.held[upload]
	ls.mu.Unlock()
	if l == nil || l.tenant != owner {
		return false
	}
	if how == asking {
		l.letGo()
	}
	return true
}

func (ls *Leases) wait(upload uuid.UUID) waiter {
	w := make(waiter, 1)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.freed[upload] = append(ls.freed[upload], w)
	return w
}

func (ls *Leases) stopWaiting(upload uuid.UUID, w waiter) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	rest := slices.DeleteFunc(ls.freed[upload], func(o waiter) bool { return o == w })
	if len(rest) == 0 {
		delete(ls.freed, upload)
		return
	}
	ls.freed[upload] = rest
}

// wakeWaiters tells this process's waiters for an upload how they come to hear of it.
func (ls *Leases) wakeWaiters(upload uuid.UUID, how string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, w := range ls.freed[upload] {
		w.wake(how)
	}
}

// wakeAll tells all of this process's waiters, when it is not known for which of them something has changed.
func (ls *Leases) wakeAll() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, waiters := range ls.freed {
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
