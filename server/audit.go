package server

import (
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

func (s *Server) routeAudit(api *echo.Group) {
	api.GET("/audit", s.listAudit)
}

// auditJSON is an entry of the audit log as GET tells it.
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

// listAudit tells one page of the tenant's audit log, newest first, to those who manage all of the tenant. The cursor
// of the next page is the last entry's number.
func (s *Server) listAudit(c echo.Context) error {
	ctx := c.Request().Context()
	who, err := tenant.From(ctx)
	if err != nil {
		return err
	}
	if !who.Role.CanManage() || who.Projects != nil {
		return &hooks.Refusal{
			Cause: hooks.ErrForbidden, Detail: "Only a manager of the whole company can read its audit log.",
		}
	}
	page, err := parseAuditPage(c)
	if err != nil {
		return err
	}
	var entries []storage.AuditEntry
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		entries, err = tx.AuditLog(ctx, page)
		return err
	})
	if err != nil {
		return err
	}
	items := make([]auditJSON, len(entries))
	for i, e := range entries {
		items[i] = auditJSON(e)
	}
	var next *string
	if len(entries) == page.Limit {
		last := strconv.FormatInt(entries[len(entries)-1].Seq, 10)
		next = &last
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, map[string]any{"items": items, "next": next})
}

func parseAuditPage(c echo.Context) (p storage.AuditPage, err error) {
	p = storage.AuditPage{Actor: c.QueryParam("actor"), Action: c.QueryParam("action"), Subject: c.QueryParam("subject")}
	for _, v := range []string{p.Actor, p.Action, p.Subject} {
		if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			return p, problem.BadRequest("actor, action and subject must be UTF-8 text without NUL characters.")
		}
	}
	if p.Limit, err = parseLimit(c); err != nil {
		return p, err
	}
	if cursor := c.QueryParam("cursor"); cursor != "" {
		if p.Before, err = strconv.ParseInt(cursor, 10, 64); err != nil || p.Before < 1 {
			return p, errBadCursor
		}
	}
	return p, nil
}
