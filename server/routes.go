package server

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/api"
)

// A route is a row of the table of routes.
type route struct {
	method     string
	path       string // below /api
	handle     echo.HandlerFunc
	middleware []echo.MiddlewareFunc
}

// apiRoutes are the routes of the JSON resources.
func apiRoutes(a *api.API) []route {
	const get, head, post, patch, del = http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete
	webhooks := []echo.MiddlewareFunc{api.ForTenantManagers("Webhooks are the whole company's. Ask a manager whose token covers all projects.")}
	audit := []echo.MiddlewareFunc{api.ForTenantManagers("Only a manager of the whole company can read its audit log.")}
	return []route{
		{get, "/uploads", a.ListUploads, nil},
		{get, "/uploads/:id", a.GetUpload, nil},
		{get, "/uploads/:id/timeline", a.ListTimeline, nil},
		{get, "/uploads/:id/tags", a.GetTags, nil},
		{get, "/uploads/:id/receipt", a.GetReceipt, nil},
		{get, "/uploads/:id/content", a.GetContent, nil},
		{head, "/uploads/:id/content", a.GetContent, nil},
		{get, "/uploads/:id/thumbnails/:size", a.GetThumbnail, nil},
		{head, "/uploads/:id/thumbnails/:size", a.GetThumbnail, nil},
		{post, "/uploads/:id/retry", a.RetryUpload, nil},
		{post, "/uploads/:id/restore", a.RestoreUpload, nil},

		{post, "/batches", a.CreateBatch, nil},
		{get, "/batches", a.ListBatches, nil},
		{get, "/batches/:id", a.GetBatch, nil},
		{patch, "/batches/:id", a.RenameBatch, nil},
		{post, "/batches/:id/uploads", a.AddToBatch, nil},
		{post, "/batches/:id/retry", a.RetryBatch, nil},
		{post, "/batches/:id/cancel", a.CancelBatch, nil},

		{post, "/webhooks", a.CreateWebhook, webhooks},
		{get, "/webhooks", a.ListWebhooks, webhooks},
		{get, "/webhooks/:id", a.GetWebhook, webhooks},
		{patch, "/webhooks/:id", a.UpdateWebhook, webhooks},
		{del, "/webhooks/:id", a.DeleteWebhook, webhooks},
		{post, "/webhooks/:id/rotate", a.RotateWebhook, webhooks},
		{post, "/webhooks/:id/test", a.TestWebhook, webhooks},
		{get, "/webhooks/:id/deliveries", a.ListDeliveries, webhooks},
		{post, "/webhooks/:id/deliveries/replay", a.ReplayDead, webhooks},
		{post, "/webhooks/:id/deliveries/:delivery/replay", a.ReplayDelivery, webhooks},

		{post, "/erasures", a.RequestErasure, nil},
		{get, "/erasures", a.ListErasures, nil},
		{get, "/erasures/:id", a.GetErasure, nil},
		{post, "/erasures/:id/approve", a.ApproveErasure, nil},
		{post, "/erasures/:id/cancel", a.CancelErasure, nil},

		{get, "/tenant", a.GetTenant, nil},
		{get, "/tenants/:id/export", a.ExportTenant, nil},
		{get, "/audit", a.ListAudit, audit},

		{get, "/admin/quarantine", a.ListQuarantine, nil},
		{post, "/admin/quarantine/:id/release", a.ReleaseQuarantined, nil},
		{del, "/admin/quarantine/:id", a.EraseQuarantined, nil},
		{get, "/admin/dead-letters", a.ListDeadLetters, nil},
		{post, "/admin/dead-letters/retry", a.RetryDeadLetters, nil},
		{get, "/admin/dead-letters/:id", a.GetDeadLetter, nil},
		{del, "/admin/dead-letters/:id", a.DiscardDeadLetter, nil},
		{post, "/admin/dead-letters/:id/retry", a.RetryDeadLetter, nil},
	}
}
