package tramo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/telemetry"
)

type rescanCommand struct {
	operator
	Log              telemetry.LogConfig `embed:""`
	Since            moment              `required:"" env:"-" placeholder:"DATE" help:"Uploads completed at this time or later: 2026-11-01, or 2026-11-01T15:04:05Z."`
	Until            moment              `env:"-" placeholder:"DATE" help:"Uploads completed before this time."`
	Tenant           string              `env:"-" placeholder:"NAME" help:"Uploads of this tenant only."`
	SignaturesBefore int64               `env:"-" placeholder:"N" help:"Uploads whose last scan used a daily signature database older than this one, or an unknown one."`
	DryRun           bool                `env:"-" help:"Only count."`
}

// Check implements [cli.Checker].
func (c *rescanCommand) Check() error {
	var errs []error
	if c.SignaturesBefore < 0 {
		errs = append(errs, fmt.Errorf("--signatures-before: %d is less than 0", c.SignaturesBefore))
	}
	if until := time.Time(c.Until); !until.IsZero() && !until.After(time.Time(c.Since)) {
		errs = append(errs, errors.New("--until: must be after --since"))
	}
	return errors.Join(errs...)
}

// Run implements the command.
func (c *rescanCommand) Run(ctx context.Context, db *storage.DB) error {
	log := telemetry.NewLogger(os.Stderr, c.Log)
	q, err := queue.New(db, log)
	if err != nil {
		return err
	}
	tenants, err := tenantsNamed(ctx, db, c.Tenant)
	if err != nil {
		return err
	}
	rescans := &quarantine.Rescans{DB: db, Queue: q, DryRun: c.DryRun}
	which := quarantine.Rescan{Since: time.Time(c.Since), Until: time.Time(c.Until), Signatures: c.SignaturesBefore}
	total := 0
	for _, t := range tenants {
		n, err := rescans.Request(ctx, t.ID, which)
		if err != nil {
			return fmt.Errorf("tenant %s, after %d of its uploads: %w", t.Name, n, err)
		}
		if n > 0 {
			fmt.Fprintf(os.Stdout, "tenant %s: %d\n", t.Name, n)
		}
		total += n
	}
	will := "wait to be scanned again"
	if c.DryRun {
		will = "would be scanned again"
	}
	fmt.Fprintf(os.Stdout, "%d uploads %s.\n", total, will)
	return nil
}

// A moment is a time, or the beginning of a day in UTC.
type moment time.Time

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *moment) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, string(text)); err == nil {
			*t = moment(at)
			return nil
		}
	}
	return fmt.Errorf("%q is neither a day such as 2026-11-01 nor a time such as 2026-11-01T15:04:05Z", text)
}
