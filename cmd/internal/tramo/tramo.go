// Package tramo is the commands of the program tramo: the server, and what operates the installation.
package tramo

import (
	"context"
	"fmt"
	"slices"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/telemetry"
)

type grammar struct {
	cli.Root

	Serve       serveCommand       `cmd:"" help:"Serve the tus protocol, the JSON API and the page."`
	Migrate     migrateCommand     `cmd:"" help:"Bring the database up to date: schema, job queue and roles. Several processes may run it at the same time."`
	Reconcile   reconcileCommand   `cmd:"" help:"Find uploads, objects, multipart uploads, jobs and quotas that contradict each other, and repair them. Workers do the same regularly."`
	DeadLetters deadLettersCommand `cmd:"" name:"dead-letters" help:"List, retry and discard dead letters of all tenants: uploads whose processing was given up."`
	Rescan      rescanCommand      `cmd:"" help:"Scan completed uploads for viruses again, with the signatures of today. Fresh uploads come first."`
	Tenant      tenantCommand      `cmd:"" help:"Add, change, list, suspend and resume tenants."`
	Token       tokenCommand       `cmd:"" help:"Issue tokens, and revoke them."`
	Audit       auditCommand       `cmd:"" help:"Verify the audit logs."`
	Healthcheck cli.Healthcheck    `cmd:"" help:"Ask the tramo serve with the same settings, on this machine, whether it answers. For container runtimes."`
}

// Program is tramo, for the command line.
func Program() cli.Program {
	return cli.Program{
		Name:        "tramo",
		Description: "A resumable-upload server: tus in, S3 and Postgres behind. Each flag can be set by the variable named beside it.",
		Metrics:     metrics,
		Grammar: &grammar{
			Serve:       defaultServe(),
			Reconcile:   defaultReconcile(),
			DeadLetters: defaultDeadLetters(),
			Rescan:      rescanCommand{Log: telemetry.DefaultLogConfig()},
			Tenant:      defaultTenant(),
			Token:       defaultToken(),
			Healthcheck: cli.DefaultHealthcheck(opsListen),
		},
	}
}

type migrateCommand struct {
	Database       storage.Config   `embed:""`
	APIPassword    telemetry.Secret `name:"api-password" placeholder:"PASSWORD" help:"New password of the database role tramo_api. Default: unchanged."`
	WorkerPassword telemetry.Secret `name:"worker-password" placeholder:"PASSWORD" help:"New password of the database role tramo_worker. Default: unchanged."`
}

// Run implements the command.
func (c *migrateCommand) Run(ctx context.Context) error {
	return storage.Migrate(ctx, c.Database, storage.Passwords{API: string(c.APIPassword), Worker: string(c.WorkerPassword)})
}

// operator is embedded by commands that see every tenant.
type operator struct {
	Database storage.Config `embed:""`
	db       *storage.DB
}

// ProvideDatabase connects for a command's Run, which kong calls with the database.
func (o *operator) ProvideDatabase(ctx context.Context) (_ *storage.DB, err error) {
	if o.db, err = storage.Open(ctx, o.Database); err != nil {
		return nil, err
	}
	return o.db, o.db.RequireOperator(ctx)
}

// AfterRun disconnects, and first tells listeners what the command has changed. kong calls it after Run, however that ends.
func (o *operator) AfterRun() error {
	if o.db != nil {
		o.db.Close()
	}
	return nil
}

// tenantsNamed returns the tenant that has this name or id; all, for "".
func tenantsNamed(ctx context.Context, db *storage.DB, name string) ([]storage.Tenant, error) {
	all, err := db.Tenants(ctx)
	if err != nil || name == "" {
		return all, err
	}
	i := slices.IndexFunc(all, func(t storage.Tenant) bool { return t.Name == name || t.ID.String() == name })
	if i < 0 {
		return nil, fmt.Errorf("there is no tenant %q", name)
	}
	return all[i : i+1], nil
}
