// Package tramo is the commands of the program tramo: the server, and what operates the installation.
package tramo

import (
	"context"
	"fmt"
	"os"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/storage"
)

type grammar struct {
	Serve     serveCommand     `cmd:"" help:"Serve the tus protocol, the JSON API and the page."`
	Migrate   migrateCommand   `cmd:"" help:"Bring the database up to date: schema, job queue and roles. Safe to run from many processes at once."`
	Reconcile reconcileCommand `cmd:"" help:"Find what is stuck or left over, and repair it: rows, objects, multipart uploads, jobs and quota. Workers do the same now and then."`
	Jobs      jobsCommand      `cmd:"" help:"Look after dead letters: uploads whose processing was given up, of all tenants."`
	Rescan    rescanCommand    `cmd:"" help:"Have completed uploads scanned for viruses again, behind everything else: with signatures that were not known when they came."`
	Tenant    tenantCommand    `cmd:"" help:"Look after tenants."`
	Token     tokenCommand     `cmd:"" help:"Print a token for a user of a tenant, signed with TRAMO_JWT_SECRET."`
}

// Program is tramo, for the command line.
func Program() cli.Program {
	return cli.Program{Name: "tramo", Grammar: new(grammar), Description: "A resumable-upload server: tus in, S3 and Postgres behind. Each flag can be set by the variable named beside it."}
}

type migrateCommand struct {
	cli.Database
	APIPassword    string `name:"api-password" placeholder:"PASSWORD" help:"Set the password of the role tramo_api."`
	WorkerPassword string `placeholder:"PASSWORD" help:"Set the password of the role tramo_worker."`
}

// Run implements the command.
func (c *migrateCommand) Run(ctx context.Context, m *cli.Mistakes) error {
	conf := c.Config(m)
	if err := m.Err(); err != nil {
		return err
	}
	return storage.Migrate(ctx, conf, storage.Passwords{API: c.APIPassword, Worker: c.WorkerPassword})
}

type tenantCommand struct {
	Add  tenantAddCommand  `cmd:"" help:"Add a tenant and print its id."`
	Set  tenantSetCommand  `cmd:"" help:"Change what a tenant may do, and print what it may then."`
	List tenantListCommand `cmd:"" help:"List the tenants, what they may do and what they use."`
}

type tenantAddCommand struct {
	cli.Database
	Name      string    `arg:"" help:"The tenant's name, unique in the installation."`
	Quota     cli.Bytes `default:"50GiB" env:"" help:"What the tenant may keep."`
	IfMissing bool      `env:"" help:"Succeed, and print the id, when the tenant is there already."`
}

// Run implements the command.
func (c *tenantAddCommand) Run(ctx context.Context, m *cli.Mistakes) error {
	db, err := openAsOperator(ctx, c.Database, m)
	if err != nil {
		return err
	}
	defer db.Close()
	id, created, err := db.CreateTenant(ctx, c.Name, int64(c.Quota))
	if err != nil {
		return err
	}
	if !created && !c.IfMissing {
		return fmt.Errorf("tenant %q exists already, with id %s", c.Name, id)
	}
	fmt.Fprintln(os.Stdout, id)
	return nil
}

// openAsOperator connects with a role that sees every tenant.
func openAsOperator(ctx context.Context, d cli.Database, m *cli.Mistakes) (*storage.DB, error) {
	conf := d.Config(m)
	if err := m.Err(); err != nil {
		return nil, err
	}
	db, err := storage.Open(ctx, conf)
	if err != nil {
		return nil, err
	}
	if err := db.RequireOperator(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}
