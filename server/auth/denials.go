package auth

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// AuditDenial writes into the audit log that an authenticated user was denied a request. If that fails, the request is
// denied all the same.
func (a *Authenticator) AuditDenial(c echo.Context, p problem.Problem) {
	if !p.IsDenial() {
		return
	}
	ctx := c.Request().Context()
	who, err := tenant.From(ctx)
	if err != nil || !a.denials.admit(who, time.Now()) {
		return
	}
	a.auditBestEffort(ctx, storage.Audit{Action: storage.AuditRequestDeny, Subject: subjectOf(c), Outcome: p.Name(), Detail: routeOf(c)})
}

// auditTimeout is how long an answer waits for an entry that it does not depend on.
const auditTimeout = 2 * time.Second

// auditBestEffort writes an entry, also when the client has disconnected.
func (a *Authenticator) auditBestEffort(ctx context.Context, entry storage.Audit) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	err := a.DB.InTenant(ctx, func(tx storage.Tx) error { return tx.Audit(ctx, entry) })
	if err != nil {
		a.Log.WarnContext(ctx, "audit entry not written", slog.String("action", entry.Action), slog.String("outcome", entry.Outcome), slog.Any("err", err))
	}
}

// maxDenialsPerMinute is how many denials of one user are audited in a minute. The log is kept for ever, so a client must
// not be able to fill it.
const maxDenialsPerMinute = 30

// denials counts the denials of each user in a minute. The zero value is ready.
type denials struct {
	mu     sync.Mutex
	minute time.Time
	counts map[denialKey]int
}

type denialKey struct {
	tenant uuid.UUID
	user   string
}

// admit counts a denial and reports whether it is to be audited.
func (d *denials) admit(who tenant.Identity, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if minute := now.Truncate(time.Minute); !minute.Equal(d.minute) {
		d.minute, d.counts = minute, make(map[denialKey]int)
	}
	k := denialKey{who.Tenant, who.User}
	d.counts[k]++
	return d.counts[k] <= maxDenialsPerMinute
}
