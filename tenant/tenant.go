// Package tenant is the identity that code acts for: tenant, user, role and projects of a verified token, and the origin
// of the request. It carries them through a context. It verifies nothing (package server/auth does) and stores nothing.
package tenant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ErrNoIdentity is returned by [From] for a context without an identity. That is a programming error: there is no default
// tenant.
var ErrNoIdentity = errors.New("no tenant in context")

// A Role says what a user may do inside its tenant. The names are the client's.
type Role string

// The roles a token may name.
const (
	Constructora  Role = "constructora"  // the construction company: manages batches and its members' uploads
	Inversionista Role = "inversionista" // an investor: reads what is completed, never writes
	Empleado      Role = "empleado"      // a field crew member: uploads, and sees what others upload
	Admin         Role = "admin"         // operates the installation: may act in any tenant, which is audited
	roleNames          = "constructora, inversionista, empleado or admin"
)

// ParseRole returns the role named s, or an error that lists the roles there are.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case Constructora, Inversionista, Empleado, Admin:
		return r, nil
	}
	return "", fmt.Errorf("role %q is not %s", s, roleNames)
}

// CanUpload reports whether the role may create uploads, and write and cancel its own.
func (r Role) CanUpload() bool { return r == Empleado || r.CanManage() }

// CanManage reports whether the role may also write and cancel uploads of others, manage batches, and manage the tenant's
// webhook endpoints, audit log, export and erasure.
func (r Role) CanManage() bool { return r == Constructora || r == Admin }

// SeesOnlyCompleted reports whether the role sees completed uploads only.
func (r Role) SeesOnlyCompleted() bool { return r == Inversionista }

// An Identity is the tenant and user that a request acts for.
type Identity struct {
	Tenant   uuid.UUID
	User     string // the token's subject
	Role     Role
	Projects []string  // the only ones that the user sees; nil for all
	Home     uuid.UUID // tenant of the token of an [Admin] that has entered another tenant; otherwise zero
	Issued   time.Time // when the token was issued; zero if it does not say
	Expires  time.Time // when the token expires
}

// The users that Tramo's own programs act as. No token may name them: the audit log tells them from people.
const (
	Worker     = "worker"     // processes uploads
	Eraser     = "eraser"     // removes what was deleted or erased
	Reconciler = "reconciler" // repairs
	Rescan     = "rescan"     // scans completed uploads again
	Operator   = "operator"   // whoever runs tramo's commands
	Erased     = "erased"     // stands for a user that was erased
)

// IsProgram reports whether the user is none of a tenant's, in whatever case it is written.
func IsProgram(user string) bool {
	return slices.ContainsFunc([]string{Worker, Eraser, Reconciler, Rescan, Operator, Erased}, func(name string) bool {
		return strings.EqualFold(name, user)
	})
}

// OwnTenant is the tenant of the token.
func (id Identity) OwnTenant() uuid.UUID {
	if id.Home != uuid.Nil {
		return id.Home
	}
	return id.Tenant
}

// Sees reports whether the user sees the project.
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

// An Origin is where a request came from, for logs and the audit log. Work without a request has none.
type Origin struct {
	Address   string // the client's IP address
	RequestID string
}

type originKey struct{}

// WithOrigin returns a copy of ctx for a request from o.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// OriginOf returns the origin of the request that ctx belongs to, or the zero Origin.
func OriginOf(ctx context.Context) Origin {
	o, _ := ctx.Value(originKey{}).(Origin)
	return o
}
