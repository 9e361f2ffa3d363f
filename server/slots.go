package server

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"golang.org/x/sync/semaphore"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Slots bound how many request bodies of a tenant are read at the same time, so that one tenant's phones cannot take
// all that a server has. Those that wait go in the order in which they came.
type Slots struct {
	mu      sync.Mutex
	tenants map[uuid.UUID]*slots
}

// slots are one tenant's. They are there while somebody has or waits for one of them.
type slots struct {
	*semaphore.Weighted
	most  int
	users int
}

// acquire takes one of the tenant's slots, of which there are most. It waits for one until ctx is done.
func (s *Slots) acquire(ctx context.Context, id uuid.UUID, most int) (release func(), err error) {
	s.mu.Lock()
	t := s.tenants[id]
	if t == nil || t.most != most { // after a change of the maximum those who have a slot of before keep it
		t = &slots{Weighted: semaphore.NewWeighted(int64(most)), most: most}
		if s.tenants == nil {
			s.tenants = make(map[uuid.UUID]*slots)
		}
		s.tenants[id] = t
	}
	t.users++
	s.mu.Unlock()
	if err := t.Acquire(ctx, 1); err != nil {
		s.leave(id, t)
		return nil, err
	}
	return func() {
		t.Release(1)
		s.leave(id, t)
	}, nil
}

func (s *Slots) leave(id uuid.UUID, t *slots) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.users--; t.users == 0 && s.tenants[id] == t {
		delete(s.tenants, id)
	}
}

// takeSlot lets a request with content pass once its tenant has a slot for it, and others at once: HEAD and DELETE
// may be what frees one.
func (s *Server) takeSlot(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if r.Method != http.MethodPatch && (r.Method != http.MethodPost || r.ContentLength == 0) {
			return next(c)
		}
		most, err := s.mostUploads(r.Context())
		if err != nil {
			return err
		}
		if most == 0 {
			return next(c)
		}
		who, err := tenant.From(r.Context())
		if err != nil {
			return err
		}
		waiting, cancel := context.WithTimeout(r.Context(), s.LockTimeout)
		defer cancel()
		release, err := s.slots.acquire(waiting, who.Tenant, most)
		if err != nil {
			c.Response().Header().Set("Retry-After", "5")
			return &hooks.Refusal{
				Cause:  problem.ErrTenantBusy,
				Detail: "As many of your company's uploads are sending as may at the same time. Nothing is lost. Try again in a moment.",
				Facts:  map[string]any{"max_uploads": most},
			}
		}
		defer release()
		return next(c)
	}
}

// maxUploadsFor is how long a tenant's maximum is believed before it is read again.
const maxUploadsFor = 30 * time.Second

// A maximum was read at a time.
type maximum struct {
	most int
	at   time.Time
}

// mostUploads is how many uploads of the tenant in ctx may send to this server at the same time; 0 for any number.
func (s *Server) mostUploads(ctx context.Context) (int, error) {
	who, err := tenant.From(ctx)
	if err != nil {
		return 0, err
	}
	if known, ok := s.maxima.Load(who.Tenant); ok && time.Since(known.(maximum).at) < maxUploadsFor {
		return known.(maximum).most, nil
	}
	most := s.TenantUploads
	err = s.DB.InTenant(ctx, func(tx storage.Tx) error {
		t, err := tx.Account(ctx)
		if err == nil && t.MaxUploads != nil {
			most = *t.MaxUploads
		}
		return err
	})
	switch {
	case errors.Is(err, storage.ErrNotFound): // what follows says so
		return most, nil
	case err != nil:
		return 0, err
	}
	s.maxima.Store(who.Tenant, maximum{most, time.Now()})
	return most, nil
}
