package ratelimit

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Concurrency limits how many request bodies of a tenant this server reads at the same time, so that one tenant's phones
// cannot take the whole server, and how many of them are one user's. Requests that wait are served in the order of their
// arrival; once one waits, a body that hardly arrives gives way.
type Concurrency struct {
	DB            *storage.DB
	MaxUploads    int           // of a tenant that has no maximum of its own; 0 for any number
	UserUploads   int           // of these, one user's; 0 for half of them
	LeastRate     int64         // bytes a second, below which a body gives way; 0 for none
	LeastRateOver time.Duration // of waiting for its client
	Wait          time.Duration // how long a request waits for its turn

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
		terms := l.terms(most)
		connection := http.NewResponseController(c.Response())
		p := &place{user: userKey(who), cut: func() { _ = connection.SetReadDeadline(time.Now()) }}
		p.meter.over = l.LeastRateOver
		waiting, cancel := context.WithTimeout(r.Context(), l.Wait)
		defer cancel()
		release, err := l.places.acquire(waiting, who.Tenant, p, terms)
		if err != nil {
			c.Response().Header().Set("Retry-After", "5")
			if errors.Is(err, errOwnShare) {
				return refuseBusy("You have as many uploads in progress as one user may. Nothing is lost. Try again in a moment.", terms.share)
			}
			return refuseBusy("Your company has as many uploads in progress as it may. Nothing is lost. Try again in a moment.", most)
		}
		defer release()
		r.Body = meteredBody{r.Body, &p.meter}
		return next(c)
	}
}

func refuseBusy(detail string, most int) error {
	return &tenant.Refusal{Cause: problem.ErrTenantBusy, Detail: detail, Facts: map[string]any{"max_uploads": most}}
}

// terms are those of a tenant that may have so many uploads.
func (l *Concurrency) terms(most int) terms {
	share := (most + 1) / 2
	if l.UserUploads > 0 {
		share = min(l.UserUploads, most)
	}
	return terms{most: most, share: share, least: rate{l.LeastRate, l.LeastRateOver}}
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
