package ratelimit

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"golang.org/x/sync/semaphore"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Concurrency limits how many request bodies of a tenant this server reads at the same time, so that one tenant's phones
// cannot take the whole server. Requests that wait are served in the order of their arrival.
type Concurrency struct {
	DB         *storage.DB
	MaxUploads int           // of a tenant that has no maximum of its own; 0 for any number
	Wait       time.Duration // how long a request waits for its turn

	places places
	maxima sync.Map // of tenants, by id
}

// Limit is middleware that lets a request with content pass once its tenant has a place for it. Others pass at once: a
// HEAD or DELETE may be what frees a place.
func (l *Concurrency) Limit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if r.Method != http.MethodPatch && (r.Method != http.MethodPost || r.ContentLength == 0) {
			return next(c)
		}
		who, err := tenant.From(r.Context())
		if err != nil {
			return err
		}
		most, err := l.maxUploads(r.Context(), who.Tenant)
		if err != nil {
			return err
		}
		if most == 0 {
			return next(c)
		}
		waiting, cancel := context.WithTimeout(r.Context(), l.Wait)
		defer cancel()
		release, err := l.places.acquire(waiting, who.Tenant, most)
		if err != nil {
			c.Response().Header().Set("Retry-After", "5")
			return &tenant.Refusal{
				Cause:  problem.ErrTenantBusy,
				Detail: "Your company has as many uploads in progress as it may. Nothing is lost. Try again in a moment.",
				Facts:  map[string]any{"max_uploads": most},
			}
		}
		defer release()
		return next(c)
	}
}

// maximumAge is how long a tenant's maximum is used before it is read again.
const maximumAge = 30 * time.Second

type maximum struct {
	uploads int
	read    time.Time
}

// maxUploads is how many uploads of the tenant in ctx may send to this server at the same time; 0 for any number.
func (l *Concurrency) maxUploads(ctx context.Context, id uuid.UUID) (int, error) {
	if known, ok := l.maxima.Load(id); ok && time.Since(known.(maximum).read) < maximumAge {
		return known.(maximum).uploads, nil
	}
	most := l.MaxUploads
	err := l.DB.InTenant(ctx, func(tx storage.Tx) error {
		t, err := tx.Account(ctx)
		if err == nil && t.MaxUploads != nil {
			most = *t.MaxUploads
		}
		return err
	})
	switch {
	case errors.Is(err, storage.ErrNotFound): // admission refuses a tenant that does not exist
		return most, nil
	case err != nil:
		return 0, err
	}
	l.maxima.Store(id, maximum{most, time.Now()})
	return most, nil
}

// places are those of all tenants. The zero value is ready.
type places struct {
	mu      sync.Mutex
	tenants map[uuid.UUID]*tenantPlaces
}

// tenantPlaces exist while a request has a place or waits for one.
type tenantPlaces struct {
	*semaphore.Weighted
	most  int
	users int
}

// acquire takes one of the tenant's places, of which there are most. It waits until ctx is done.
func (p *places) acquire(ctx context.Context, id uuid.UUID, most int) (release func(), err error) {
	p.mu.Lock()
	t := p.tenants[id]
	if t == nil || t.most != most { // requests that have a place keep it when the maximum changes
		t = &tenantPlaces{Weighted: semaphore.NewWeighted(int64(most)), most: most}
		if p.tenants == nil {
			p.tenants = make(map[uuid.UUID]*tenantPlaces)
		}
		p.tenants[id] = t
	}
	t.users++
	p.mu.Unlock()
	if err := t.Acquire(ctx, 1); err != nil {
		p.leave(id, t)
		return nil, err
	}
	return func() {
		t.Release(1)
		p.leave(id, t)
	}, nil
}

func (p *places) leave(id uuid.UUID, t *tenantPlaces) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.users--; t.users == 0 && p.tenants[id] == t {
		delete(p.tenants, id)
	}
}
