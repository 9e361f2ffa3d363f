package api

import (
	"context"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/storage"
)

// ListAudit answers with a page of the tenant's audit log, newest first.
func (a *API) ListAudit(c echo.Context) error {
	p := storage.AuditPage{Actor: c.QueryParam("actor"), Action: c.QueryParam("action"), Subject: c.QueryParam("subject")}
	return answerPage(c, parseSeq, func(ctx context.Context, before int64, limit int) ([]storage.AuditEntry, error) {
		p.Before, p.Limit = before, limit
		return read(ctx, a.DB, func(ctx context.Context, tx storage.Tx) ([]storage.AuditEntry, error) { return tx.AuditLog(ctx, p) })
	}, func(e storage.AuditEntry) int64 { return e.Seq })
}
