package tramo

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks/audit"
	"github.com/tramo/tramo/storage"
)

type auditCommand struct {
	Verify auditVerifyCommand `cmd:"" help:"Compare the audit logs with their seals, and name the first entry of each that was changed, removed or put in. Prints the hash of each log's last seal: keep it elsewhere, and give it to --expect the next time."`
}

type auditVerifyCommand struct {
	operator
	Tenant        string    `env:"-" placeholder:"NAME" help:"The tenant's name or id. Default: all tenants, erased ones too."`
	Expect        []string  `env:"-" placeholder:"HASH" help:"Hashes that an earlier run has printed. Each must be the hash of a seal: otherwise the seals were made anew, or the last ones were removed, which nothing in the database tells."`
	RemovedBefore sinceTime `env:"-" placeholder:"WHEN" help:"Entries made earlier may be missing, because the owner of the database has removed them: a time such as 2026-11-20T00:00:00Z, or a duration until now such as 8760h."`
	JSON          bool      `name:"json" env:"-" help:"Print one JSON object for each tenant."`
}

// Check implements [cli.Checker].
func (c *auditVerifyCommand) Check() error {
	var errs []error
	for i, hash := range c.Expect {
		c.Expect[i] = strings.ToLower(strings.TrimSpace(hash))
		if raw, err := hex.DecodeString(c.Expect[i]); err != nil || len(raw) != 32 {
			errs = append(errs, fmt.Errorf("--expect: %q is not 64 hexadecimal digits", hash))
		}
	}
	return errors.Join(errs...)
}

// Run implements the command.
func (c *auditVerifyCommand) Run(ctx context.Context, db *storage.DB) error {
	ids, err := c.tenants(ctx, db)
	if err != nil {
		return err
	}
	expected := c.Expect
	var broken int
	for _, id := range ids {
		r, err := audit.Verify(ctx, db, id, c.RemovedBefore.Time)
		if err != nil {
			return err
		}
		if r.Finding != nil {
			broken++
		}
		expected = slices.DeleteFunc(expected, func(hash string) bool { return slices.Contains(r.Hashes, hash) })
		if err := printResult(os.Stdout, r, c.JSON); err != nil {
			return err
		}
	}
	var errs []error
	if broken > 0 {
		errs = append(errs, fmt.Errorf("%d audit logs differ from their seals", broken))
	}
	if len(expected) > 0 {
		errs = append(errs, fmt.Errorf("no seal has the hash %s that was expected", strings.Join(expected, ", ")))
	}
	return errors.Join(errs...)
}

func (c *auditVerifyCommand) tenants(ctx context.Context, db *storage.DB) ([]uuid.UUID, error) {
	if c.Tenant == "" {
		return audit.Tenants(ctx, db)
	}
	if id, err := uuid.Parse(c.Tenant); err == nil {
		return []uuid.UUID{id}, nil
	}
	found, err := tenantsNamed(ctx, db, c.Tenant)
	if err != nil {
		return nil, err
	}
	return []uuid.UUID{found[0].ID}, nil
}

func printResult(out io.Writer, r audit.Result, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(r)
	}
	fmt.Fprintf(out, "tenant %s: %d entries in %d seals are as they were sealed", r.Tenant, r.Entries, r.Seals)
	if r.Removed > 0 {
		fmt.Fprintf(out, ", %d were removed", r.Removed)
	}
	if r.Open > 0 {
		fmt.Fprintf(out, ", %d since %s are not sealed yet", r.Open, r.Oldest.UTC().Format(time.RFC3339))
	}
	fmt.Fprintln(out)
	if r.Head != "" {
		fmt.Fprintf(out, "  head %s\n", r.Head)
	}
	if f := r.Finding; f != nil {
		fmt.Fprintf(out, "  FAULT %s\n", f)
	}
	return nil
}
