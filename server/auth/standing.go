package auth

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"golang.org/x/sync/singleflight"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

const (
	// standingAge is how long what is known of a tenant is used before it is read again, should a notification of its change
	// be lost. Running requests are checked as often.
	standingAge = 5 * time.Second
	// standingTimeout bounds one read.
	standingTimeout = 5 * time.Second
)

// standings are what this server knows of tenants. The zero value is ready.
type standings struct {
	known sync.Map // by tenant
	reads singleflight.Group
}

type known struct {
	storage.Standing
	read time.Time
}

// of returns the standing of a tenant. All requests of a tenant share one read. While the database does not answer, what was
// known before counts.
func (s *standings) of(ctx context.Context, db *storage.DB, id uuid.UUID) (storage.Standing, error) {
	before, ok := s.known.Load(id)
	if ok && time.Since(before.(known).read) < standingAge {
		return before.(known).Standing, nil
	}
	now, err, _ := s.reads.Do(id.String(), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), standingTimeout) // other requests wait for it too
		defer cancel()
		read := time.Now()
		found, err := storage.InTenant(tenant.With(ctx, tenant.Identity{Tenant: id}), db, func(tx storage.Tx) (storage.Standing, error) {
			return storage.StandingOf(ctx, tx)
		})
		if err == nil {
			s.known.Store(id, known{found, read})
		}
		return found, err
	})
	switch {
	case err == nil:
		return now.(storage.Standing), nil
	case ok:
		return before.(known).Standing, nil
	}
	return storage.Standing{}, err
}

// Forget makes the next check of a token of the tenant read its standing again.
func (a *Authenticator) Forget(id uuid.UUID) {
	a.standings.reads.Forget(id.String())
	a.standings.known.Delete(id)
}

// Check returns a [*tenant.Refusal] if the token of a verified identity is not valid now: it has expired or was revoked, or
// its tenant is suspended, erased or never existed.
func (a *Authenticator) Check(ctx context.Context, who tenant.Identity) error {
	s, err := a.standings.of(ctx, a.DB, who.OwnTenant())
	switch {
	case err != nil:
		return err
	case !s.Exists:
		return tenant.Refuse(hooks.ErrNoTenant, "The token names a tenant that does not exist. Ask your administrator for a new one.")
	case s.Erased:
		return tenant.Refuse(hooks.ErrNoTenant, "The data of your company was erased, and its tokens are no longer valid.")
	case s.Suspended:
		return tenant.Refuse(problem.ErrSuspended, "Your company is suspended. Nothing is lost. Ask the operator of the installation.")
	case s.Revokes(who.User, who.Issued):
		return tenant.Refuse(problem.ErrUnauthorized, "Your token was revoked. Sign in again. What has arrived is kept.")
	case !time.Now().Before(who.Expires):
		return tenant.Refuse(problem.ErrUnauthorized, "Your token has expired. Sign in again. What has arrived is kept.")
	}
	return nil
}

// Admit serves a request as a user whose token was verified before, if it is still valid.
func (a *Authenticator) Admit(c echo.Context, who tenant.Identity, next echo.HandlerFunc) error {
	if err := a.Check(c.Request().Context(), who); err != nil {
		return err
	}
	return a.serve(c, who, next)
}

// serve serves a request as who. When the token is no longer valid, the request's context ends with the refusal as its cause:
// a body or a stream may take longer than that.
func (a *Authenticator) serve(c echo.Context, who tenant.Identity, next echo.HandlerFunc) error {
	r := c.Request()
	ctx, end := context.WithCancelCause(tenant.With(r.Context(), who))
	defer end(nil)
	if err := a.requireLiving(ctx, r.Method, who); err != nil {
		return err
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(min(standingAge, time.Until(who.Expires))):
			}
			if err := a.Check(ctx, who); errors.As(err, new(*tenant.Refusal)) { // other errors say nothing of the token
				end(err)
				return
			}
		}
	}()
	c.SetRequest(r.WithContext(ctx))
	err := next(c)
	if cause := context.Cause(ctx); err != nil && errors.As(cause, new(*tenant.Refusal)) {
		return cause
	}
	return err
}

// requireLiving refuses to change anything in a tenant that is being erased: it would be left behind. An admin may enter it
// and read what stays.
func (a *Authenticator) requireLiving(ctx context.Context, method string, who tenant.Identity) error {
	if method == http.MethodGet || method == http.MethodHead {
		return nil
	}
	s, err := a.standings.of(ctx, a.DB, who.Tenant)
	if err == nil && s.Erasing {
		err = tenant.Refuse(hooks.ErrNoTenant, "The data of this company is being erased, or was. Nothing in it can be changed.")
	}
	return err
}
