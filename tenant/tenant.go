// Package tenant says on whose behalf code runs: the tenant, the user and the role that a verified
// token named, and their way through a context. It verifies nothing itself (package server does) and
// stores nothing.
package tenant

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// ErrNoIdentity is returned by [From] for a context that carries no identity. It marks a programming
// error: a tenant is never defaulted.
var ErrNoIdentity = errors.New("no tenant in context")

// A Role is what a user may do inside its tenant, in the client's own words.
type Role string

// The roles a token may name.
const (
	Constructora   Role = "constructora"  // the construction company: manages its uploads
	Inversionista  Role = "inversionista" // an investor: reads, never writes
	Empleado       Role = "empleado"      // a field crew member: uploads
	Admin          Role = "admin"         // operates the installation
	rolesForPeople      = "constructora, inversionista, empleado or admin"
)

// ParseRole returns the role named s, or an error that lists the roles there are.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case Constructora, Inversionista, Empleado, Admin:
		return r, nil
	}
	return "", fmt.Errorf("role %q is not %s", s, rolesForPeople)
}

// CanUpload reports whether the role may create, write and cancel uploads.
func (r Role) CanUpload() bool { return r != Inversionista }

// An Identity is who a request acts for.
type Identity struct {
	Tenant uuid.UUID
	User   string // the token's subject
	Role   Role
}

type contextKey struct{}

// With returns a copy of ctx that acts as id.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// From returns the identity that ctx acts as, or [ErrNoIdentity].
func From(ctx context.Context) (Identity, error) {
	id, ok := ctx.Value(contextKey{}).(Identity)
	if !ok || id.Tenant == uuid.Nil {
		return Identity{}, ErrNoIdentity
	}
	return id, nil
}
