package api

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// auditJSON is an entry of the audit log.
type auditJSON struct {
	Seq        int64          `json:"seq"` // orders the entries of a tenant, with gaps
	At         time.Time      `json:"at"`
	Actor      string         `json:"actor"`
	Role       tenant.Role    `json:"role"`
	HomeTenant *uuid.UUID     `json:"home_tenant"` // of an admin of another tenant
	Action     string         `json:"action"`
	Subject    *string        `json:"subject"`
	Outcome    string         `json:"outcome"`
	Address    *string        `json:"address"`
	RequestID  *string        `json:"request_id"`
	TraceID    *string        `json:"trace_id"`
	Detail     map[string]any `json:"detail"`
}

// ListAudit answers with a page of the tenant's audit log, newest first.
func (a *API) ListAudit(c echo.Context) error {
	p, err := parseAuditFilter(c)
	if err != nil {
		return err
	}
	return answerPage(c, parseSeq, func(ctx context.Context, before int64, limit int) ([]auditJSON, error) {
		p.Before, p.Limit = before, limit
		entries, err := read(ctx, a.DB, func(ctx context.Context, tx storage.Tx) ([]storage.AuditEntry, error) {
			return tx.AuditLog(ctx, p)
		})
		return each(entries, func(e storage.AuditEntry) auditJSON { return auditJSON(e) }), err
	}, func(e auditJSON) int64 { return e.Seq })
}

func parseAuditFilter(c echo.Context) (p storage.AuditPage, err error) {
	if p.Actor, err = queryText(c, "actor"); err != nil {
		return p, err
	}
	if p.Action, err = queryText(c, "action"); err != nil {
		return p, err
	}
	p.Subject, err = queryText(c, "subject")
	return p, err
}
