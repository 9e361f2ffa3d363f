package tenant

import (
	"context"
	"errors"
	"fmt"
)

// A Refusal is an answer to a client that must do something else. Detail tells a person what to do; Facts, if there are any,
// tell a program.
type Refusal struct {
	Cause  error
	Detail string
	Facts  map[string]any
}

func (r *Refusal) Error() string { return r.Cause.Error() + ": " + r.Detail }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Cause }

// Refuse returns a [*Refusal] without facts.
func Refuse(cause error, format string, args ...any) error {
	return &Refusal{Cause: cause, Detail: fmt.Sprintf(format, args...)}
}

// ErrForbidden says that the role, or the token's list of projects, does not allow the request.
var ErrForbidden = errors.New("role does not allow this")

// RequireManager returns a [*Refusal] unless the identity of ctx manages the tenant.
func RequireManager(ctx context.Context) (Identity, error) {
	who, err := From(ctx)
	if err == nil && !who.Role.CanManage() {
		err = Refuse(ErrForbidden, "Only a manager of the company can do this.")
	}
	return who, err
}

// RequireManagerOfAll is [RequireManager] for what goes beyond projects.
func RequireManagerOfAll(ctx context.Context) (Identity, error) {
	who, err := RequireManager(ctx)
	if err == nil {
		err = who.requireAllProjects()
	}
	return who, err
}

// RequireAdmin returns a [*Refusal] unless the identity of ctx is an admin whose token covers all projects.
func RequireAdmin(ctx context.Context) (Identity, error) {
	who, err := From(ctx)
	switch {
	case err != nil:
		return who, err
	case who.Role != Admin:
		return who, Refuse(ErrForbidden, "Only an admin of the installation can do this.")
	}
	return who, who.requireAllProjects()
}

func (id Identity) requireAllProjects() error {
	if id.Projects != nil {
		return Refuse(ErrForbidden, "This is about all projects of the company, and your token covers some of them only.")
	}
	return nil
}
