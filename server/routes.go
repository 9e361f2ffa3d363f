package server

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/api"
	"github.com/tramo/tramo/server/live"
	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
)

// A route is a row of the table of routes.
type route struct {
	methods string // separated by spaces
	path    string
	handle  echo.HandlerFunc
	who     access
	body    int64 // most bytes of a request's body; 0 for Config.MaxBody
}

// streamed is the body of a route that takes as long as its network needs: its handler bounds size and silence.
const streamed = -1

// manifest is the body of a route that takes a batch of 10,000 uploads.
const manifest = 8 << 20

// access is the middleware that decides who reaches a handler.
type access []echo.MiddlewareFunc

// routes returns the table of routes: all that the server answers is in it.
func (s *Server) routes(h handlers) []route {
	var (
		anyone   access
		user     = access{s.auth.Authenticate, s.Limits.User}
		viewer   = access{s.auth.AuthenticateByLink(resource.LinkParameter), s.Limits.User}
		sender   = append(user, s.concurrency.Limit)
		listener = access{s.live.AuthenticateByTicket(s.auth.Authenticate), s.Limits.User}
		manager  = append(user, api.ForTenantManagers)
	)
	return []route{
		// Uploads: the protocols write them, GET reads them.
		{"POST", "/api/uploads", h.upload, sender, streamed},
		{"POST", "/api/uploads/", h.upload, sender, streamed},
		{"PATCH", "/api/uploads/:id", h.upload, sender, streamed},
		{"HEAD DELETE", "/api/uploads/:id", h.upload, sender, 0},
		{"OPTIONS", "/api/uploads", h.uploadOptions, anyone, 0},
		{"OPTIONS", "/api/uploads/", h.uploadOptions, anyone, 0},
		{"OPTIONS", "/api/uploads/:id", h.uploadOptions, anyone, 0},
		{"HEAD PATCH DELETE", "/api/uploads", h.upload, sender, 0},  // 405 with the headers of the protocol
		{"HEAD PATCH DELETE", "/api/uploads/", h.upload, sender, 0}, // 405
		{"POST", "/api/uploads/:id", h.upload, sender, 0},           // 405
		{"GET", "/api/uploads", h.ListUploads, user, 0},
		{"GET", "/api/uploads/:id", h.GetUpload, user, 0},
		{"GET", "/api/uploads/:id/timeline", h.ListTimeline, user, 0},
		{"GET", "/api/uploads/:id/tags", h.GetTags, user, 0},
		{"GET", "/api/uploads/:id/receipt", h.GetReceipt, user, 0},
		{"GET HEAD", "/api/uploads/:id/content", h.GetContent, user, streamed},
		{"GET HEAD", "/api/uploads/:id/thumbnails/:size", h.GetThumbnail, viewer, streamed},
		{"POST", "/api/uploads/:id/retry", h.RetryUpload, user, 0},
		{"POST", "/api/uploads/:id/restore", h.RestoreUpload, user, 0},

		{"POST", "/api/batches", h.CreateBatch, user, manifest},
		{"GET", "/api/batches", h.ListBatches, user, 0},
		{"GET", "/api/batches/:id", h.GetBatch, user, 0},
		{"PATCH", "/api/batches/:id", h.RenameBatch, user, 0},
		{"POST", "/api/batches/:id/uploads", h.AddToBatch, user, manifest},
		{"POST", "/api/batches/:id/retry", h.RetryBatch, user, 0},
		{"POST", "/api/batches/:id/cancel", h.CancelBatch, user, 0},

		{"GET", live.Path, s.live.Listen, listener, streamed},
		{"POST", live.Path + "/tickets", s.live.IssueTicket, user, 0},

		{"POST", "/api/webhooks", h.CreateWebhook, manager, 0},
		{"GET", "/api/webhooks", h.ListWebhooks, manager, 0},
		{"GET", "/api/webhooks/:id", h.GetWebhook, manager, 0},
		{"PATCH", "/api/webhooks/:id", h.UpdateWebhook, manager, 0},
		{"DELETE", "/api/webhooks/:id", h.DeleteWebhook, manager, 0},
		{"POST", "/api/webhooks/:id/rotate", h.RotateWebhook, manager, 0},
		{"POST", "/api/webhooks/:id/test", h.TestWebhook, manager, 0},
		{"GET", "/api/webhooks/:id/deliveries", h.ListDeliveries, manager, 0},
		{"POST", "/api/webhooks/:id/deliveries/replay", h.ReplayDead, manager, 0},
		{"POST", "/api/webhooks/:id/deliveries/:delivery/replay", h.ReplayDelivery, manager, 0},

		{"POST", "/api/erasures", h.RequestErasure, user, 0},
		{"GET", "/api/erasures", h.ListErasures, user, 0},
		{"GET", "/api/erasures/:id", h.GetErasure, user, 0},
		{"POST", "/api/erasures/:id/approve", h.ApproveErasure, user, 0},
		{"POST", "/api/erasures/:id/cancel", h.CancelErasure, user, 0},

		{"GET", "/api/tenant", h.GetTenant, user, 0},
		{"GET", "/api/tenants/:id/export", h.ExportTenant, user, streamed},
		{"GET", "/api/audit", h.ListAudit, manager, 0},

		{"GET", "/api/admin/quarantine", h.ListQuarantine, user, 0},
		{"POST", "/api/admin/quarantine/:id/release", h.ReleaseQuarantined, user, 0},
		{"DELETE", "/api/admin/quarantine/:id", h.EraseQuarantined, user, 0},
		{"GET", "/api/admin/dead-letters", h.ListDeadLetters, user, 0},
		{"POST", "/api/admin/dead-letters/retry", h.RetryDeadLetters, user, 0},
		{"GET", "/api/admin/dead-letters/:id", h.GetDeadLetter, user, 0},
		{"DELETE", "/api/admin/dead-letters/:id", h.DiscardDeadLetter, user, 0},
		{"POST", "/api/admin/dead-letters/:id/retry", h.RetryDeadLetter, user, 0},

		// What a person opens in a browser, or a program needs before it has a token.
		{"GET HEAD", "/.well-known/jwks.json", h.GetReceiptKeys, anyone, 0},
		{"GET HEAD", "/openapi.yaml", h.openAPI, anyone, 0},
		{"GET HEAD", "/openapi.json", h.openAPIJSON, anyone, 0},
		{"GET HEAD", problem.Path, h.problems, anyone, 0},
		{"GET HEAD", problem.Path + "/", h.problems, anyone, 0},
		{"GET HEAD", problem.Path + "/:name", h.problems, anyone, 0},
		{"GET HEAD", "/docs", h.page, anyone, 0},
		{"GET HEAD", "/*", h.page, anyone, 0},
	}
}

// handlers are those of the routes, apart from live's.
type handlers struct {
	*api.API
	pages
	upload, uploadOptions echo.HandlerFunc
}

// wire gives the routes to echo.
func (s *Server) wire(h handlers) {
	s.bodies = make(map[string]int64)
	for _, r := range s.routes(h) {
		for method := range strings.FieldsSeq(r.methods) {
			s.echo.Add(method, r.path, r.handle, r.who...)
			s.bodies[method+" "+r.path] = r.body
		}
	}
	// Below /api a stranger is told 401, and not which routes there are. These come before echo's own 405.
	s.echo.Group("/api", s.auth.Authenticate, s.Limits.User).RouteNotFound("/*", notRouted)
}

// notRouted distinguishes a method that a route does not have from a route that does not exist.
func notRouted(c echo.Context) error {
	var allowed []string
	for _, method := range []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	} {
		found := c.Echo().NewContext(nil, nil)
		c.Echo().Router().Find(method, echo.GetPath(c.Request()), found)
		if !strings.HasSuffix(found.Path(), "/*") {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		return problem.ErrNotFound
	}
	c.Response().Header().Set("Allow", strings.Join(append(allowed, http.MethodOptions), ", ")) // RFC 9110, 15.5.6: MUST
	return problem.ErrMethod
}
