package tenant_test

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
)

// The absence of a tenant is an error, never a default.
func TestFrom(t *testing.T) {
	t.Parallel()
	ana := tenant.Identity{Tenant: uuid.New(), User: "ana", Role: tenant.Empleado}
	if got, err := tenant.From(tenant.With(t.Context(), ana)); err != nil || !reflect.DeepEqual(got, ana) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, ctx := range map[string]context.Context{
		"none":     t.Context(),
		"the zero": tenant.With(t.Context(), tenant.Identity{User: "ana", Role: tenant.Admin}),
	} {
		if got, err := tenant.From(ctx); !errors.Is(err, tenant.ErrNoIdentity) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	for name, uploads := range map[string]bool{
		"constructora": true, "empleado": true, "admin": true, "inversionista": false,
	} {
		if r, err := tenant.ParseRole(name); err != nil || r.CanUpload() != uploads {
			t.Errorf("%s: %v, %v", name, r.CanUpload(), err)
		}
	}
	for _, name := range []string{"", "Admin", "root"} {
		if r, err := tenant.ParseRole(name); err == nil {
			t.Errorf("%q is the role %v", name, r)
		}
	}
}
