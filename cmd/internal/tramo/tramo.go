// Package tramo is the commands of the program tramo: the server, and what operates the installation.
package tramo

import (
	"context"

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
	Tenant      tenantCommand      `cmd:"" help:"Add, change and list tenants."`
	Token       tokenCommand       `cmd:"" help:"Print a token for a user of a tenant, signed with TRAMO_JWT_SECRET."`
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

// openAsOperator connects with a role that sees every tenant.
func openAsOperator(ctx context.Context, c storage.Config) (*storage.DB, error) {
	db, err := storage.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := db.RequireOperator(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}
