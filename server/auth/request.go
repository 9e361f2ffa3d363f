package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// headerTenant names the tenant that an admin acts in, if that is not the token's.
const headerTenant = "Tramo-Tenant"

// errMayNotEnter answers everyone but an admin alike, so that it tells nothing of the tenant that was named.
var errMayNotEnter = &hooks.Refusal{
	Cause: hooks.ErrForbidden, Detail: "Only an operator of the installation can act in another company. Leave " + headerTenant + " out.",
}

// An Authenticator finds out who a request acts for.
type Authenticator struct {
	Verifier *Verifier
	DB       *storage.DB
	Log      *slog.Logger
	denials  denials
}

// Authenticate is middleware: a request with a good token passes, acting for whom the token names.
func (a *Authenticator) Authenticate(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
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
		// Before the tenant is entered, so that a refusal to enter is logged and audited as this user's.
		c.SetRequest(r.WithContext(tenant.With(r.Context(), id)))
		if id, err = a.enterTenant(c, id); err != nil {
			return err
		}
		c.SetRequest(r.WithContext(tenant.With(r.Context(), id)))
		return next(c)
	}
}

// enterTenant returns as whom a request acts: its user, or an admin in the tenant that the request names. Then that
// tenant's audit log has it before anything else happens; what cannot be written there does not happen.
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
		return who, problem.BadRequest("%s is one tenant's id.", headerTenant)
	}
	there := who
	there.Tenant, there.Home = wanted, who.Tenant
	ctx := tenant.With(r.Context(), there)
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
	return there, err
}

// subjectOf is the id that a request is about, "" for none.
func subjectOf(c echo.Context) string {
	id, err := uuid.Parse(c.Param("id"))
	if err != nil {
		return ""
	}
	return id.String()
}

// maxMethod bounds what an audit entry keeps of a method, in bytes: clients may invent methods.
const maxMethod = 16

func routeOf(c echo.Context) map[string]any {
	method := c.Request().Method
	method = method[:min(len(method), maxMethod)]
	return map[string]any{"method": method, "route": c.Path()}
}

// AuditDenial notes in the audit log that a known user was told 403. It is no condition for the answer.
func (a *Authenticator) AuditDenial(c echo.Context, p problem.Problem) {
	if p.Status != http.StatusForbidden || p.Name() == "final" { // which is the protocol's word for a state
		return
	}
	ctx := c.Request().Context()
	who, err := tenant.From(ctx)
	if err != nil || !a.denials.admit(who, time.Now()) {
		return
	}
	a.auditBestEffort(ctx, storage.Audit{Action: storage.AuditRequestDeny, Subject: subjectOf(c), Outcome: p.Name(), Detail: routeOf(c)})
}

// auditTime bounds how long an answer waits for an entry that it does not need.
const auditTime = 2 * time.Second

// auditBestEffort writes an entry even for a client that has gone.
func (a *Authenticator) auditBestEffort(ctx context.Context, entry storage.Audit) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	err := a.DB.InTenant(ctx, func(tx storage.Tx) error { return tx.Audit(ctx, entry) })
	if err != nil {
		a.Log.WarnContext(ctx, "not in the audit log", slog.String("action", entry.Action), slog.String("outcome", entry.Outcome), slog.Any("err", err))
	}
}

// denialsAMinute is how many denials of one user are written down in a minute. The log is kept for ever, and nobody
// shall be able to fill it.
const denialsAMinute = 30

// denials counts them; the zero value is ready.
type denials struct {
	mu     sync.Mutex
	minute time.Time
	counts map[denialKey]int
}

type denialKey struct {
	tenant uuid.UUID
	user   string
}

// admit reports whether one more of the user's is to be written down.
func (d *denials) admit(who tenant.Identity, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if minute := now.Truncate(time.Minute); !minute.Equal(d.minute) {
		d.minute, d.counts = minute, make(map[denialKey]int)
	}
	k := denialKey{who.Tenant, who.User}
	d.counts[k]++
	return d.counts[k] <= denialsAMinute
}
