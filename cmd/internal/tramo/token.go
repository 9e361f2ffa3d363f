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
	Issue  tokenIssueCommand  `cmd:"" default:"withargs" help:"Print a token for a user of a tenant, signed with TRAMO_JWT_SECRET. tramo token alone does the same."`
	Revoke tokenRevokeCommand `cmd:"" help:"Refuse tokens that were issued before a time, within seconds, also those of uploads and event streams that are under way. Tokens without the claim iat are refused with them."`
}

type tokenIssueCommand struct {
	operator
	Auth     auth.Config   `embed:""`
	JWKSURL  struct{}      `kong:"-"` // takes this field of Auth away: its keys are public and sign nothing
	Tenant   string        `required:"" env:"-" placeholder:"NAME" help:"The tenant's name."`
	User     string        `required:"" env:"-" placeholder:"ID" help:"The user's id."`
	Role     string        `required:"" env:"-" placeholder:"ROLE" help:"constructora, inversionista, empleado or admin."`
	Projects []string      `env:"-" placeholder:"NAME" help:"The only projects that the user sees. Default: all."`
	TTL      time.Duration `name:"ttl" env:"-" help:"How long the token is valid."`
}

func defaultToken() tokenCommand {
	return tokenCommand{Issue: tokenIssueCommand{Auth: auth.DefaultConfig(), TTL: time.Hour}}
}

// Check implements [cli.Checker].
func (c *tokenIssueCommand) Check() error {
	var errs []error
	if _, err := tenant.ParseRole(c.Role); err != nil {
		errs = append(errs, fmt.Errorf("--role: %w", err))
	}
	if err := auth.CheckUser(c.User); err != nil {
		errs = append(errs, fmt.Errorf("--user: it %w", err))
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
func (c *tokenIssueCommand) Run(ctx context.Context, db *storage.DB) error {
	id, err := db.TenantByName(ctx, c.Tenant)
	if err != nil {
		return fmt.Errorf("tenant %q: %w; tramo tenant add makes one", c.Tenant, err)
	}
	if c.Role == string(tenant.Admin) && !c.Auth.AdminTenants[id] {
		return fmt.Errorf("tenant %q may not have admins: name its id, %s, in TRAMO_ADMIN_TENANTS of the servers, and here", c.Tenant, id)
	}
	if c.Auth.MaxLifetime > 0 && c.TTL > c.Auth.MaxLifetime {
		return fmt.Errorf("--ttl: %s is more than TRAMO_TOKEN_MAX_LIFETIME, %s", c.TTL, c.Auth.MaxLifetime)
	}
	who := tenant.Identity{Tenant: id, User: c.User, Role: tenant.Role(c.Role), Projects: c.Projects}
	token, err := c.Auth.Sign(who, c.TTL, time.Now())
	if err != nil {
		return err
	}
	detail := map[string]any{"role": c.Role, "ttl_seconds": int(c.TTL.Seconds())}
	if err := audited(ctx, db, id, storage.Audit{Action: storage.AuditTokenIssue, Subject: c.User, Detail: detail}); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, token)
	return nil
}

// revokeAhead is how far --before may be in the future, where the clock of a token's issuer is ahead.
const revokeAhead = 5 * time.Minute

type tokenRevokeCommand struct {
	operator
	Tenant string    `required:"" env:"-" placeholder:"NAME" help:"The tenant's name."`
	User   string    `env:"-" placeholder:"ID" help:"The only user whose tokens are revoked. Default: all users of the tenant."`
	Before sinceTime `env:"-" placeholder:"WHEN" help:"Tokens issued before then: a time such as 2026-11-20T00:00:00Z, or a duration until now such as 24h. Default: now."`
}

// Check implements [cli.Checker].
func (c *tokenRevokeCommand) Check() error {
	if c.Before.After(time.Now().Add(revokeAhead)) {
		return fmt.Errorf("--before: is more than %s later than now: tokens that are issued until then would be refused too", revokeAhead)
	}
	return nil
}

// Run implements the command.
func (c *tokenRevokeCommand) Run(ctx context.Context, db *storage.DB) error {
	id, err := db.TenantByName(ctx, c.Tenant)
	if err != nil {
		return fmt.Errorf("tenant %q: %w", c.Tenant, err)
	}
	before := c.Before.Time
	if before.IsZero() {
		before = time.Now()
	}
	entry := storage.Audit{Action: storage.AuditTokenRevoke, Subject: c.User, Detail: map[string]any{"issued_before": before.UTC()}}
	return audited(ctx, db, id, entry, func(ctx context.Context, tx storage.Tx) error { return storage.RevokeTokens(ctx, tx, c.User, before) })
}
