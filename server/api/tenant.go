package api

import (
	"context"
	"net/http"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// tenantJSON has the quota and the limits of a tenant, and who asks. Sizes are bytes.
type tenantJSON struct {
	ID             uuid.UUID         `json:"id"`
	Name           string            `json:"name"`
	UserID         string            `json:"user_id"` // of the token, as the role
	Role           tenant.Role       `json:"role"`
	QuotaBytes     int64             `json:"quota_bytes"`
	ChargedBytes   int64             `json:"charged_bytes"`
	RemainingBytes int64             `json:"remaining_bytes"`
	MaxUploadBytes int64             `json:"max_upload_bytes"`
	MaxUploads     *int              `json:"max_uploads"` // that send to one server at the same time; null for any number
	RateLimits     []ratelimit.Limit `json:"rate_limits"`
}

// GetTenant answers any user with the quota and the limits of its tenant, and with who the user is.
func (a *API) GetTenant(c echo.Context) error {
	who, err := tenant.From(c.Request().Context())
	if err != nil {
		return err
	}
	t, err := read(c.Request().Context(), a.DB, func(ctx context.Context, tx storage.Tx) (storage.Tenant, error) { return tx.Account(ctx) })
	if err != nil {
		return err
	}
	j := tenantJSON{
		ID: t.ID, Name: t.Name, UserID: who.User, Role: who.Role, QuotaBytes: t.QuotaBytes, ChargedBytes: t.ChargedBytes, RemainingBytes: t.Remaining(),
		MaxUploadBytes: t.MaxUpload(a.Uploads.Admission.Policy.MaxSize), RateLimits: a.Limits.List(),
	}
	most := a.MaxUploads
	if t.MaxUploads != nil {
		most = *t.MaxUploads
	}
	if most > 0 {
		j.MaxUploads = &most
	}
	return answer(c, http.StatusOK, j)
}
