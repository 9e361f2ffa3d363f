package tramo

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

type tenantCommand struct {
	Add     tenantAddCommand     `cmd:"" help:"Add a tenant and print its id."`
	Set     tenantSetCommand     `cmd:"" help:"Change the limits of a tenant and print them."`
	List    tenantListCommand    `cmd:"" help:"List the tenants with their limits and what they use."`
	Suspend tenantSuspendCommand `cmd:"" help:"Refuse all tokens of a tenant, within seconds, also those of uploads and event streams that are under way. Nothing is deleted."`
	Resume  tenantResumeCommand  `cmd:"" help:"Accept the tokens of a suspended tenant again."`
}

func defaultTenant() tenantCommand { return tenantCommand{Add: tenantAddCommand{Quota: 50 << 30}} }

type tenantAddCommand struct {
	operator
	Name      string `arg:"" help:"The tenant's name, unique in the installation."`
	Quota     int64  `env:"-" type:"bytes" help:"Most bytes that the tenant may store."`
	IfMissing bool   `env:"-" help:"If the tenant exists, print its id and succeed."`
}

// Run implements the command.
func (c *tenantAddCommand) Run(ctx context.Context, db *storage.DB) error {
	id, created, err := db.CreateTenant(ctx, c.Name, c.Quota)
	if err != nil {
		return err
	}
	if !created && !c.IfMissing {
		return fmt.Errorf("tenant %q exists already, with id %s", c.Name, id)
	}
	if created {
		err := audited(ctx, db, id, storage.Audit{Action: storage.AuditTenantAdd, Detail: map[string]any{"quota_bytes": c.Quota}})
		if err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stdout, id)
	return nil
}

type tenantSetCommand struct {
	operator
	Name          string `arg:"" help:"The tenant's name."`
	Quota         *int64 `env:"-" type:"bytes" placeholder:"SIZE" help:"Most bytes that the tenant may store. If it stores more already, nothing is deleted, and new uploads are refused until there is room."`
	MaxUploadSize *int64 `env:"-" type:"bytes" placeholder:"SIZE" help:"Largest upload of this tenant; 0 for TRAMO_MAX_UPLOAD_SIZE, which always applies too."`
	MaxUploads    *int   `env:"-" placeholder:"N" help:"How many of its uploads may send to one server at the same time; 0 for TRAMO_TENANT_UPLOADS."`
}

// Check implements [cli.Checker].
func (c *tenantSetCommand) Check() error {
	if c.MaxUploads != nil && *c.MaxUploads < 0 {
		return fmt.Errorf("--max-uploads: %d is less than 0", *c.MaxUploads)
	}
	return nil
}

// Run implements the command.
func (c *tenantSetCommand) Run(ctx context.Context, db *storage.DB) error {
	id, err := db.TenantByName(ctx, c.Name)
	if err != nil {
		return fmt.Errorf("tenant %q: %w", c.Name, err)
	}
	change := storage.TenantChange{QuotaBytes: c.Quota, MaxUploadBytes: c.MaxUploadSize, MaxUploads: c.MaxUploads}
	ctx = asOperator(ctx, id)
	t, err := storage.InTenant(ctx, db, func(tx storage.Tx) (storage.Tenant, error) {
		t, err := storage.ChangeTenant(ctx, tx, change)
		if err != nil {
			return t, err
		}
		return t, tx.Audit(ctx, storage.Audit{Action: storage.AuditTenantChange, Detail: map[string]any{
			"quota_bytes": t.QuotaBytes, "max_upload_bytes": t.MaxUploadBytes, "max_uploads": t.MaxUploads,
		}})
	})
	if err != nil {
		return fmt.Errorf("tenant %q: %w", c.Name, err)
	}
	return printTenants(os.Stdout, []storage.Tenant{t})
}

// audited does something in a tenant as its operator, with an entry in the tenant's audit log: both or neither.
func audited(ctx context.Context, db *storage.DB, id uuid.UUID, entry storage.Audit, do ...func(context.Context, storage.Tx) error) error {
	ctx = asOperator(ctx, id)
	return db.InTenant(ctx, func(tx storage.Tx) error {
		for _, do := range do {
			if err := do(ctx, tx); err != nil {
				return err
			}
		}
		return tx.Audit(ctx, entry)
	})
}

type tenantSuspendCommand struct {
	operator
	Name string `arg:"" help:"The tenant's name."`
}

// Run implements the command.
func (c *tenantSuspendCommand) Run(ctx context.Context, db *storage.DB) error {
	return suspend(ctx, db, c.Name, true, storage.AuditTenantSuspend)
}

type tenantResumeCommand struct {
	operator
	Name string `arg:"" help:"The tenant's name."`
}

// Run implements the command.
func (c *tenantResumeCommand) Run(ctx context.Context, db *storage.DB) error {
	return suspend(ctx, db, c.Name, false, storage.AuditTenantResume)
}

func suspend(ctx context.Context, db *storage.DB, name string, is bool, action string) error {
	id, err := db.TenantByName(ctx, name)
	if err == nil {
		err = audited(ctx, db, id, storage.Audit{Action: action}, func(ctx context.Context, tx storage.Tx) error {
			return storage.SuspendTenant(ctx, tx, is)
		})
	}
	if err != nil {
		return fmt.Errorf("tenant %q: %w", name, err)
	}
	return nil
}

type tenantListCommand struct{ operator }

// Run implements the command.
func (c *tenantListCommand) Run(ctx context.Context, db *storage.DB) error {
	all, err := db.Tenants(ctx)
	if err != nil {
		return err
	}
	return printTenants(os.Stdout, all)
}

// printTenants prints a table; "-" stands for the installation's maximum.
func printTenants(out io.Writer, all []storage.Tenant) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tSTATE\tQUOTA\tCHARGED\tUSED\tMAX UPLOAD SIZE\tMAX UPLOADS")
	for _, t := range all {
		used, size, uploads := "-", "-", "-"
		if t.QuotaBytes > 0 {
			used = fmt.Sprintf("%.0f%%", 100*float64(t.ChargedBytes)/float64(t.QuotaBytes))
		}
		if t.MaxUploadBytes != nil {
			size = humanize.IBytes(uint64(*t.MaxUploadBytes))
		}
		if t.MaxUploads != nil {
			uploads = strconv.Itoa(*t.MaxUploads)
		}
		state := "active"
		switch {
		case t.ErasingAt != nil:
			state = "erased"
		case t.SuspendedAt != nil:
			state = "suspended"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Name, state,
			humanize.IBytes(uint64(t.QuotaBytes)), humanize.IBytes(uint64(t.ChargedBytes)), used, size, uploads)
	}
	return w.Flush()
}
