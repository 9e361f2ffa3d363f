package server

import (
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/storage"
)

func (s *Server) routeTenant(api *echo.Group) {
	api.GET("/tenant", s.getTenant)
}

// tenantJSON is what a tenant's users may know of what it may do. Sizes are bytes.
type tenantJSON struct {
	ID             uuid.UUID   `json:"id"`
	Name           string      `json:"name"`
	QuotaBytes     int64       `json:"quota_bytes"`
	ChargedBytes   int64       `json:"charged_bytes"`
	RemainingBytes int64       `json:"remaining_bytes"`
	MaxUploadBytes int64       `json:"max_upload_bytes"`
	MaxUploads     *int        `json:"max_uploads"` // that send to one server at the same time; null for any number
	RateLimits     []limitJSON `json:"rate_limits"`
}

// limitJSON is a rate limit. Its name is that of a policy in RateLimit-Policy.
type limitJSON struct {
	Name      string `json:"name"`
	PerMinute int    `json:"per_minute"`
	Burst     int    `json:"burst"`
}

// getTenant tells any user what its tenant may do, and what is left of that.
func (s *Server) getTenant(c echo.Context) error {
	ctx := c.Request().Context()
	var t storage.Tenant
	err := s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		t, err = tx.Account(ctx)
		return err
	})
	if err != nil {
		return err
	}
	most := s.TenantUploads
	if t.MaxUploads != nil {
		most = *t.MaxUploads
	}
	answer := tenantJSON{
		ID: t.ID, Name: t.Name, QuotaBytes: t.QuotaBytes, ChargedBytes: t.ChargedBytes, RemainingBytes: t.Remaining(),
		MaxUploadBytes: t.MaxUpload(s.Admission.Policy.MaxSize), RateLimits: s.Limits.describe(),
	}
	if most > 0 {
		answer.MaxUploads = &most
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, answer)
}

// describe lists the limits that there are.
func (l *Limits) describe() []limitJSON {
	all := []limitJSON{}
	if l == nil {
		return all
	}
	for _, p := range []policy{l.ip, l.ipTransfers, l.user, l.uploads, l.transfers} {
		if p.rate > 0 {
			all = append(all, limitJSON{p.name, p.rate, p.burst})
		}
	}
	return all
}
