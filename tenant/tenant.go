// Package tenant says on whose behalf code runs: the tenant, the user, the role and the projects that a verified
// token named, where the request came from, and the way of all this through a context. It verifies nothing itself
// (package server does) and stores nothing.
package tenant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
)

// ErrNoIdentity is returned by [From] for a context that carries no identity. It marks a programming
// error: a tenant is never defaulted.
var ErrNoIdentity = errors.New("no tenant in context")

// A Role is what a user may do inside its tenant, in the client's own words.
type Role string

// The roles a token may name.
const (
	Constructora   Role = "constructora"  // the construction company: manages batches and its members' uploads
	Inversionista  Role = "inversionista" // an investor: reads what is completed, never writes
	Empleado       Role = "empleado"      // a field crew member: uploads, and sees what others upload
	Admin          Role = "admin"         // operates the installation: may act in any tenant, which is audited
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

// CanUpload reports whether the role may create uploads, and write and cancel its own.
func (r Role) CanUpload() bool { return r == Empleado || r.CanManage() }

// CanManage reports whether the role may do so with the uploads of others, manage batches, and see to what is the
// whole tenant's: its endpoints, its audit log, its export and its erasure.
func (r Role) CanManage() bool { return r == Constructora || r == Admin }

// SeesOnlyCompleted reports whether uploads that are not completed do not exist for the role.
func (r Role) SeesOnlyCompleted() bool { return r == Inversionista }

// An Identity is who a request acts for.
type Identity struct {
	Tenant   uuid.UUID
	User     string // the token's subject
	Role     Role
	Projects []string  // the only ones that there are for this user; nil for all
	Home     uuid.UUID // of an [Admin] that acts in another tenant: the tenant that its token names
	Expires  time.Time // when the token is good no longer
}

// Sees reports whether the project exists for this user.
func (id Identity) Sees(project string) bool {
	return id.Projects == nil || slices.Contains(id.Projects, project)
}

// MayWrite reports whether this user may write and cancel the uploads of owner, a user of the same tenant.
func (id Identity) MayWrite(owner string) bool {
	return id.Role.CanUpload() && (id.User == owner || id.Role.CanManage())
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

// LogAttr is the tenant of ctx for a log entry, or the empty attribute.
func LogAttr(ctx context.Context) slog.Attr {
	who, err := From(ctx)
	if err != nil {
		return slog.Attr{}
	}
	return slog.String("tenant_id", who.Tenant.String())
}

// An Origin is where a request came from, for logs and the audit log. Work that no request asked for has none.
type Origin struct {
	Address   string // the client's IP address
	RequestID string
}

type originKey struct{}

// WithOrigin returns a copy of ctx whose work was asked for from o.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// OriginOf returns where the work in ctx was asked for from, or the zero Origin.
func OriginOf(ctx context.Context) Origin {
	o, _ := ctx.Value(originKey{}).(Origin)
	return o
}
