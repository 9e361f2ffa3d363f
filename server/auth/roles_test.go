package auth_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

func roleMap(t *testing.T, text string) (m auth.RoleMap) {
	t.Helper()
	stack.Must(t, m.UnmarshalText([]byte(text)))
	return m
}

// A token's role is looked up in the map. With a map, a name that it does not have is refused, even one of ours.
func TestRoleMap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ roles, claim, want string }{
		{"", "empleado", "empleado"},
		{"", "foreman", ""},
		{"foreman=empleado,owner=constructora", "foreman", "empleado"},
		{" foreman = empleado , owner = constructora ", "owner", "constructora"},
		{"foreman=empleado,owner=constructora", "Foreman", ""},
		{"foreman=empleado,owner=constructora", "", ""},
		{"foreman=empleado", "empleado", ""},
		{"foreman=empleado", "admin", ""},
		{"admin=constructora", "admin", "constructora"},
		{"empleado=empleado,foreman=empleado", "empleado", "empleado"},
	} {
		v := verifier(t, auth.Config{Secrets: secret, Roles: roleMap(t, c.roles)})
		id, err := v.Verify(t.Context(), forge(t, claims("role", c.claim)))
		if string(id.Role) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("with the map %q the role %q is %q, %v; want %q", c.roles, c.claim, id.Role, err, c.want)
		}
	}
}

// Each mistake in a map is named.
func TestRoleMapMistakes(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"foreman":                           "pair",
		"=empleado":                         "pair",
		"foreman=empleado,":                 "pair",
		"foreman=":                          "foreman",
		"foreman=boss":                      "boss",
		"foreman=Empleado":                  "Empleado",
		"foreman=empleado,foreman=admin":    "twice",
		"foreman=boss,owner=constructora,x": "boss",
	} {
		var m auth.RoleMap
		if err := m.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), says) || m != nil {
			t.Errorf("%q: %v, %v", text, m, err)
		}
	}
	if err := (auth.Config{Secrets: secret, Roles: auth.RoleMap{"foreman": "boss"}}).Validate(); err == nil {
		t.Error("a map to a role that there is not passes")
	}
}

// A token that is signed with a map verifies with it; a role that the map has no name for is not signed.
func TestSignWithRoleMap(t *testing.T) {
	t.Parallel()
	c := auth.Config{Secrets: secret, Roles: roleMap(t, "foreman=empleado,worker=empleado,owner=constructora")}
	token, err := c.Sign(crew, time.Hour, time.Now())
	stack.Must(t, err)
	if got, err := verifier(t, c).Verify(t.Context(), token); err != nil || !sameIdentity(got, crew) {
		t.Errorf("%+v, %v", got, err)
	}
	operator := crew
	operator.Role = tenant.Admin
	if _, err := c.Sign(operator, time.Hour, time.Now()); err == nil {
		t.Error("a token for a role without a name is signed")
	}
}
