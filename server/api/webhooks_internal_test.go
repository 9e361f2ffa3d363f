package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/tenant"
)

// An endpoint receives announcements of all projects, so a user who sees only some of them may not have one.
func TestWebhookManagers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		role     tenant.Role
		projects []string
		want     error
	}{
		{tenant.Constructora, nil, nil},
		{tenant.Admin, nil, nil},
		{tenant.Constructora, []string{"torre"}, tenant.ErrForbidden},
		{tenant.Admin, []string{"torre"}, tenant.ErrForbidden},
		{tenant.Empleado, nil, tenant.ErrForbidden},
		{tenant.Inversionista, nil, tenant.ErrForbidden},
	} {
		r := httptest.NewRequest(http.MethodGet, "/api/webhooks", nil)
		who := tenant.Identity{Tenant: uuid.New(), User: "ana", Role: c.role, Projects: c.projects}
		ctx := echo.New().NewContext(r.WithContext(tenant.With(r.Context(), who)), httptest.NewRecorder())
		err := ForTenantManagers(func(echo.Context) error { return nil })(ctx)
		if !errors.Is(err, c.want) {
			t.Errorf("%s of %v: %v, want %v", c.role, c.projects, err, c.want)
		}
	}
}
