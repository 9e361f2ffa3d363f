package ratelimit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// errOwnShare says that a request waited in vain because its own user has as many places as one user may.
var errOwnShare = errors.New("the user has its share of places")

// patrol is how often a request that waits looks for places whose bodies hardly arrive.
const patrol = time.Second

// places are those of all tenants. The zero value is ready.
type places struct {
	mu      sync.Mutex
	tenants map[uuid.UUID]*tenantPlaces
}

// terms are a tenant's, at one server.
type terms struct {
	most  int // places
	share int // of them for one user
	least rate
}

// tenantPlaces exist while a request has a place or waits for one.
type tenantPlaces struct {
	terms
	held    map[*place]struct{}
	users   map[string]int // places that each has
	waiting []*place       // in the order of their arrival
}

// A place is what a request has, or waits for, to send its body.
type place struct {
	user    string
	meter   meter
	cut     func()        // interrupts the request's body; it may have to wait for nothing
	granted chan struct{} // closed once the request has the place
	gone    bool          // it was told to give way
}

// acquire takes a place of the tenant's for p. It waits until ctx is done: for those that came before, unless their users
// have their shares. Changed terms apply to who comes then; requests that have a place keep it.
func (s *places) acquire(ctx context.Context, tenant uuid.UUID, p *place, now terms) (release func(), err error) {
	p.granted = make(chan struct{})
	s.mu.Lock()
	t := s.tenants[tenant]
	if t == nil {
		t = &tenantPlaces{held: make(map[*place]struct{}), users: make(map[string]int)}
		if s.tenants == nil {
			s.tenants = make(map[uuid.UUID]*tenantPlaces)
		}
		s.tenants[tenant] = t
	}
	t.terms = now
	t.waiting = append(t.waiting, p)
	t.grant()
	s.mu.Unlock()
	release = func() { s.leave(tenant, t, p) }
	tick := time.NewTicker(patrol)
	defer tick.Stop()
	for {
		select {
		case <-p.granted:
			return release, nil
		case <-tick.C:
			s.mu.Lock()
			t.makeRoom(p)
			s.mu.Unlock()
		case <-ctx.Done():
			select {
			case <-p.granted: // in the same moment
				return release, nil
			default:
			}
			return nil, errors.Join(ctx.Err(), s.giveUp(tenant, t, p))
		}
	}
}

// grant gives the free places to those that wait.
func (t *tenantPlaces) grant() {
	t.waiting = slices.DeleteFunc(t.waiting, func(p *place) bool {
		if len(t.held) >= t.most || t.users[p.user] >= t.share {
			return false
		}
		t.held[p] = struct{}{}
		t.users[p.user]++
		close(p.granted)
		return true
	})
}

// makeRoom tells the slowest request that is below the least rate to give way, if p waits for a place that it may have then.
func (t *tenantPlaces) makeRoom(p *place) {
	var slowest *place
	leaving := 0
	for held := range t.held {
		switch {
		case held.gone:
			leaving++
		case t.users[p.user] >= t.share && held.user != p.user: // whose place p may not have
		case held.meter.below(t.least) && (slowest == nil || held.meter.slower(&slowest.meter)):
			slowest = held
		}
	}
	if slowest != nil && leaving < len(t.waiting) {
		slowest.gone = true
		slowest.meter.stop()
		slowest.cut()
	}
}

// leave gives a place back.
func (s *places) leave(tenant uuid.UUID, t *tenantPlaces, p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(t.held, p)
	if t.users[p.user]--; t.users[p.user] == 0 {
		delete(t.users, p.user)
	}
	t.grant()
	s.forget(tenant, t)
}

// giveUp leaves the queue. It returns errOwnShare if p waited for a place of its own user.
func (s *places) giveUp(tenant uuid.UUID, t *tenantPlaces, p *place) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.users[p.user] >= t.share && t.share < t.most {
		err = errOwnShare
	}
	t.waiting = slices.DeleteFunc(t.waiting, func(other *place) bool { return other == p })
	s.forget(tenant, t)
	return err
}

// forget drops a tenant without requests.
func (s *places) forget(tenant uuid.UUID, t *tenantPlaces) {
	if len(t.held) == 0 && len(t.waiting) == 0 && s.tenants[tenant] == t {
		delete(s.tenants, tenant)
	}
}
