package tramo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// tokenSettings say which tokens are good.
type tokenSettings struct {
	JWTSecret   string `name:"jwt-secret" env:"TRAMO_JWT_SECRET" placeholder:"SECRET" help:"Secret that verifies HS256 tokens, 32 bytes or more. Either this or a JWKS URL."`
	JWTIssuer   string `name:"jwt-issuer" env:"TRAMO_JWT_ISSUER" placeholder:"ISSUER" help:"What tokens must name as their issuer, iss. Default: whatever they name."`
	JWTAudience string `name:"jwt-audience" env:"TRAMO_JWT_AUDIENCE" placeholder:"AUDIENCE" help:"What tokens must name among their audience, aud. Default: whatever they name."`
}

func (s tokenSettings) tokenConfig() auth.Config {
	return auth.Config{Secret: s.JWTSecret, Issuer: s.JWTIssuer, Audience: s.JWTAudience}
}

type tokenCommand struct {
	cli.Database
	tokenSettings
	Tenant   string        `required:"" env:"" placeholder:"NAME" help:"The tenant's name."`
	User     string        `required:"" env:"" placeholder:"ID" help:"Who the token is for."`
	Role     string        `required:"" env:"" placeholder:"ROLE" help:"constructora, inversionista, empleado or admin."`
	Projects []string      `env:"" placeholder:"NAME,..." help:"The only projects that there are for the user. Default: all."`
	TTL      time.Duration `name:"ttl" default:"1h" env:"" help:"How long the token is good."`
}

// Run implements the command.
func (c *tokenCommand) Run(ctx context.Context, m *cli.Mistakes) error {
	auth := c.tokenConfig()
	m.Check("TRAMO_JWT_SECRET", auth.Validate())
	role, err := tenant.ParseRole(c.Role)
	m.Check("--role", err)
	if c.Projects != nil && len(c.Projects) == 0 {
		m.Check("--projects", errors.New("names none; leave it out for all"))
	}
	for _, p := range c.Projects {
		if !object.ValidProject(p) {
			m.Check("--projects", fmt.Errorf("%q is not a project's name, which matches %s", p, object.ProjectPattern))
		}
	}
	db, err := openAsOperator(ctx, c.Database, m)
	if err != nil {
		return err
	}
	defer db.Close()
	id, err := db.TenantByName(ctx, c.Tenant)
	if err != nil {
		return fmt.Errorf("tenant %q: %w; tramo tenant add makes one", c.Tenant, err)
	}
	token, err := auth.Sign(tenant.Identity{Tenant: id, User: c.User, Role: role, Projects: c.Projects}, c.TTL, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, token)
	return nil
}
