package tramo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

type tokenCommand struct {
	operator
	Auth     auth.Config   `embed:""`
	JWKSURL  struct{}      `kong:"-"` // takes this field of Auth away: its keys are public and sign nothing
	Tenant   string        `required:"" env:"-" placeholder:"NAME" help:"The tenant's name."`
	User     string        `required:"" env:"-" placeholder:"ID" help:"The user's id."`
	Role     string        `required:"" env:"-" placeholder:"ROLE" help:"constructora, inversionista, empleado or admin."`
	Projects []string      `env:"-" placeholder:"NAME" help:"The only projects that the user sees. Default: all."`
	TTL      time.Duration `name:"ttl" env:"-" help:"How long the token is valid."`
}

func defaultToken() tokenCommand { return tokenCommand{TTL: time.Hour} }

// Check implements [cli.Checker].
func (c *tokenCommand) Check() error {
	var errs []error
	if _, err := tenant.ParseRole(c.Role); err != nil {
		errs = append(errs, fmt.Errorf("--role: %w", err))
	}
	if c.Projects != nil && len(c.Projects) == 0 {
		errs = append(errs, errors.New("--projects: names none; leave it out for all"))
	}
	for _, p := range c.Projects {
		if !object.ValidProject(p) {
			errs = append(errs, fmt.Errorf("--projects: %q is not a project's name, which matches %s", p, object.ProjectPattern))
		}
	}
	return errors.Join(errs...)
}

// Run implements the command.
func (c *tokenCommand) Run(ctx context.Context, db *storage.DB) error {
	id, err := db.TenantByName(ctx, c.Tenant)
	if err != nil {
		return fmt.Errorf("tenant %q: %w; tramo tenant add makes one", c.Tenant, err)
	}
	who := tenant.Identity{Tenant: id, User: c.User, Role: tenant.Role(c.Role), Projects: c.Projects}
	token, err := c.Auth.Sign(who, c.TTL, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, token)
	return nil
}
