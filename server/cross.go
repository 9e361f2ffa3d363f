package server

import (
	"context"
	"errors"
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

// enter returns as whom a request acts: its user, or an admin in the tenant that the request names. Then that
// tenant's audit log has it before anything else happens; what cannot be written there does not happen.
func (s *Server) enter(c echo.Context, who tenant.Identity) (tenant.Identity, error) {
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
	err = s.DB.InTenant(ctx, func(tx storage.Tx) error {
		if _, err := tx.Account(ctx); err != nil {
			return err
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditTenantEnter, Subject: subjectOf(c), Detail: routeOf(c)})
	})
	if errors.Is(err, storage.ErrNotFound) {
		s.auditBestEffort(tenant.With(r.Context(), who), storage.Audit{
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

func routeOf(c echo.Context) map[string]any {
	return map[string]any{"method": knownMethod(c.Request().Method), "route": c.Path()}
}

// denied notes in the audit log that a known user was told 403. It is no condition for the answer.
func (s *Server) denied(c echo.Context, p problem.Problem) {
	if p.Status != http.StatusForbidden || p.Name() == "final" { // which is the protocol's word for a state
		return
	}
	ctx := c.Request().Context()
	who, err := tenant.From(ctx)
	if err != nil || !s.denials.admit(who, time.Now()) {
		return
	}
	s.auditBestEffort(ctx, storage.Audit{Action: storage.AuditRequestDeny, Subject: subjectOf(c), Outcome: p.Name(), Detail: routeOf(c)})
}

// auditTime bounds how long an answer waits for an entry that it does not need.
const auditTime = 2 * time.Second

// auditBestEffort writes an entry even for a client that has gone.
func (s *Server) auditBestEffort(ctx context.Context, a storage.Audit) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	err := s.DB.InTenant(ctx, func(tx storage.Tx) error { return tx.Audit(ctx, a) })
	if err != nil {
		s.Log.WarnContext(ctx, "not in the audit log", slog.String("action", a.Action), slog.String("outcome", a.Outcome), slog.Any("err", err))
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
