package tramo

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/storage"
)

type tenantSetCommand struct {
	cli.Database
	Name          string     `arg:"" help:"The tenant's name."`
	Quota         *cli.Bytes `env:"" placeholder:"SIZE" help:"What the tenant may keep. Less than it keeps is no loss: nothing can be begun until there is room again."`
	MaxUploadSize *cli.Bytes `env:"" placeholder:"SIZE" help:"The largest upload of this tenant; 0 gives the installation's back, which is never exceeded."`
	MaxUploads    *int       `env:"" placeholder:"N" help:"How many of its uploads may send to one server at the same time; 0 gives the installation's back."`
}

// Run implements the command.
func (c *tenantSetCommand) Run(ctx context.Context, m *cli.Mistakes) error {
	if c.MaxUploads != nil {
		m.Check("--max-uploads", cli.CheckNotNegative(*c.MaxUploads))
	}
	db, err := openAsOperator(ctx, c.Database, m)
	if err != nil {
		return err
	}
	defer db.Close()
	t, err := db.ChangeTenant(ctx, c.Name, storage.TenantChange{
		QuotaBytes: (*int64)(c.Quota), MaxUploadBytes: (*int64)(c.MaxUploadSize), MaxUploads: c.MaxUploads,
	})
	if err != nil {
		return fmt.Errorf("tenant %q: %w", c.Name, err)
	}
	return printTenants(os.Stdout, []storage.Tenant{t})
}

type tenantListCommand struct{ cli.Database }

// Run implements the command.
func (c *tenantListCommand) Run(ctx context.Context, m *cli.Mistakes) error {
	db, err := openAsOperator(ctx, c.Database, m)
	if err != nil {
		return err
	}
	defer db.Close()
	all, err := db.Tenants(ctx)
	if err != nil {
		return err
	}
	return printTenants(os.Stdout, all)
}

// printTenants prints a table; "-" stands for the installation's maximum.
func printTenants(out io.Writer, all []storage.Tenant) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tNAME\tQUOTA\tCHARGED\tUSED\tMAX UPLOAD SIZE\tMAX UPLOADS")
	for _, t := range all {
		used, size, uploads := "-", "-", "-"
		if t.QuotaBytes > 0 {
			used = fmt.Sprintf("%.0f%%", 100*float64(t.ChargedBytes)/float64(t.QuotaBytes))
		}
		if t.MaxUploadBytes != nil {
			size = cli.Bytes(*t.MaxUploadBytes).String()
		}
		if t.MaxUploads != nil {
			uploads = strconv.Itoa(*t.MaxUploads)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Name, cli.Bytes(t.QuotaBytes), cli.Bytes(t.ChargedBytes), used, size, uploads)
	}
	return w.Flush()
}
