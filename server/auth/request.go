package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// headerTenant names the tenant that an admin enters.
const headerTenant = "Tramo-Tenant"

// errMayNotEnter is the same for every tenant that is named, so that it does not reveal which exist.
var errMayNotEnter = &tenant.Refusal{
	Cause: tenant.ErrForbidden, Detail: "Only an operator of the installation can act in another company. Leave " + headerTenant + " out.",
}

// An Authenticator finds the identity that a request acts for, and audits what it is denied.
type Authenticator struct {
	Verifier *Verifier
	Links    *Links
	DB       *storage.DB
	Log      *slog.Logger

	denials   denials
	standings standings
}

// Authenticate is middleware that puts the identity of the request's token into its context.
func (a *Authenticator) Authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		lines := r.Header.Values("Authorization")
		if len(lines) != 1 { // a proxy before us may have read the other one
			return problem.ErrUnauthorized
		}
		scheme, token, _ := strings.Cut(lines[0], " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return problem.ErrUnauthorized
		}
		id, err := a.Verifier.Verify(r.Context(), strings.TrimSpace(token))
		if errors.Is(err, problem.ErrKeysUnavailable) {
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: %w", problem.ErrUnauthorized, err)
		}
		if err := a.Check(r.Context(), id); err != nil {
			return err
		}
		// Before the tenant is entered, so that a refusal to enter is logged and audited as this user's.
		c.SetRequest(r.WithContext(tenant.With(r.Context(), id)))
		if id, err = a.enterTenant(c, id); err != nil {
			return err
		}
		return a.serve(c, id, next)
	}
}

// enterTenant returns the identity that a request acts for: that of its token, or an admin's in the tenant that the
// request names. The entry is in that tenant's audit log before the request goes on; if it cannot be written there, the
// request fails.
func (a *Authenticator) enterTenant(c echo.Context, who tenant.Identity) (tenant.Identity, error) {
	r := c.Request()
	names := r.Header.Values(headerTenant)
	switch {
	case len(names) == 0, len(names) == 1 && strings.EqualFold(names[0], who.Tenant.String()):
		return who, nil
	case who.Role != tenant.Admin:
		return who, errMayNotEnter
	}
	wanted, err := uuid.Parse(names[0])
	if err != nil || len(names) > 1 || len(names[0]) != len(wanted.String()) {
		return who, problem.BadRequest("%s must be the id of one tenant.", headerTenant)
	}
	entered := who
	entered.Tenant, entered.Home = wanted, who.Tenant
	ctx := tenant.With(r.Context(), entered)
	err = a.DB.InTenant(ctx, func(tx storage.Tx) error {
		if _, err := tx.Account(ctx); err != nil {
			return err
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditTenantEnter, Subject: subjectOf(c), Detail: routeOf(c)})
	})
	if errors.Is(err, storage.ErrNotFound) {
		a.auditBestEffort(tenant.With(r.Context(), who), storage.Audit{
			Action: storage.AuditTenantEnter, Subject: wanted.String(), Outcome: problem.Name(err), Detail: routeOf(c),
		})
	}
	return entered, err
}

// subjectOf is the id in the request's path, "" for none.
func subjectOf(c echo.Context) string {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return ""
	}
	return id.String()
}

// maxMethod is how many bytes of a method an audit entry keeps: clients can invent methods.
const maxMethod = 16

func routeOf(c echo.Context) map[string]any {
	method := c.Request().Method
	method = method[:min(len(method), maxMethod)]
	return map[string]any{"method": method, "route": c.Path()}
}
