package tramo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/cmd/internal/wiring"
	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/telemetry"
)

type reconcileCommand struct {
	cli.Database
	cli.S3
	cli.Log
	cli.Lease
	cli.Reconcile
	DryRun        bool           `env:"" help:"Only print what would be done."`
	Grace         *time.Duration `env:"" placeholder:"DURATION" help:"How old something must be before it is touched; instead of both other graces."`
	DeleteUnknown bool           `env:"" help:"Delete objects of which no upload is known. If a backup of the database has been restored, they may be the only copies."`
	AcceptLoss    bool           `env:"" help:"Fail uploads whose objects are gone even if there are so many that it looks like the wrong bucket."`
	JSON          bool           `name:"json" env:"" help:"Print one JSON object a line."`
}

// Run implements the command.
func (c *reconcileCommand) Run(ctx context.Context, m *cli.Mistakes) error {
	if c.Grace != nil {
		c.StuckGrace, c.OrphanGrace = *c.Grace, *c.Grace
	}
	conf, s3, log := c.Reconcile.Config(m), c.S3.Config(m), c.Logger(m)
	conf.DryRun, conf.DeleteUnknown, conf.AcceptLoss = c.DryRun, c.DeleteUnknown, c.AcceptLoss
	c.CheckTTL(m)
	db, err := openAsOperator(ctx, c.Database, m)
	if err != nil {
		return err
	}
	defer db.Close()
	bucket, err := object.OpenBucket(ctx, s3)
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry()
	leases := c.Leases(db, "reconcile", registry, log)
	r, err := wiring.Reconciler(conf, db, bucket, leases, registry, log)
	if err != nil {
		return err
	}
	out := &report{to: os.Stdout, json: c.JSON, kinds: make(map[hooks.Kind]map[hooks.Outcome]int)}
	r.Report = out.line
	if err := reconcile(ctx, r, leases); err != nil {
		return err
	}
	return out.summary()
}

// reconcile makes both passes. Only one that repairs takes leases.
func reconcile(ctx context.Context, r *hooks.Reconciler, leases *lease.Manager) error {
	both := func(ctx context.Context) error { return errors.Join(r.Reconcile(ctx), r.TakeInventory(ctx)) }
	if r.DryRun {
		return both(ctx)
	}
	return leases.During(ctx, both)
}

// A report tells a person, or a program, what was found.
type report struct {
	to    io.Writer
	json  bool
	kinds map[hooks.Kind]map[hooks.Outcome]int
}

func (p *report) line(r hooks.Result) {
	if p.kinds[r.Kind] == nil {
		p.kinds[r.Kind] = make(map[hooks.Outcome]int)
	}
	p.kinds[r.Kind][r.Outcome]++
	if p.json {
		p.lineJSON(r)
		return
	}
	fmt.Fprintf(p.to, "%-17s tenant %s", r.Kind, r.Tenant)
	if r.Upload != uuid.Nil {
		fmt.Fprintf(p.to, " upload %s", r.Upload)
	}
	if r.Key != "" {
		fmt.Fprintf(p.to, " key %s", r.Key)
	}
	if r.Detail != "" {
		fmt.Fprintf(p.to, " (%s)", r.Detail)
	}
	fmt.Fprintf(p.to, ": %s\n", sentence(r))
}

func sentence(r hooks.Result) string {
	switch r.Outcome {
	case hooks.Planned:
		return "would " + r.Plan
	case hooks.Repaired:
		return "repaired: " + r.Plan
	case hooks.Left:
		return "left: " + r.Reason.Error()
	}
	return "failed to " + r.Plan + ": " + r.Reason.Error()
}

func (p *report) lineJSON(r hooks.Result) {
	line := struct {
		Kind        hooks.Kind    `json:"kind"`
		Outcome     hooks.Outcome `json:"outcome"`
		Plan        string        `json:"plan,omitempty"`
		Tenant      uuid.UUID     `json:"tenant_id"`
		Upload      uuid.UUID     `json:"upload_id,omitzero"`
		Key         string        `json:"key,omitempty"`
		MultipartID string        `json:"multipart_id,omitempty"`
		Detail      string        `json:"detail,omitempty"`
		Reason      string        `json:"reason,omitempty"`
	}{Kind: r.Kind, Outcome: r.Outcome, Plan: r.Plan, Tenant: r.Tenant, Upload: r.Upload, Key: r.Key, MultipartID: r.MultipartID, Detail: r.Detail}
	if r.Reason != nil {
		line.Reason = r.Reason.Error()
	}
	_ = json.NewEncoder(p.to).Encode(line) // as with Fprintf, there is nobody else to tell
}

// summary counts by kind. What could not be repaired because something failed is an error.
func (p *report) summary() error {
	failed := 0
	if len(p.kinds) == 0 && !p.json {
		fmt.Fprintln(p.to, "All is in order.")
	}
	for _, kind := range slices.Sorted(maps.Keys(p.kinds)) {
		n := p.kinds[kind]
		failed += n[hooks.Failed]
		if !p.json {
			fmt.Fprintf(p.to, "%-17s %d found, %d repaired, %d to repair, %d left, %d failed\n", kind,
				n[hooks.Planned]+n[hooks.Repaired]+n[hooks.Left]+n[hooks.Failed], n[hooks.Repaired], n[hooks.Planned], n[hooks.Left], n[hooks.Failed])
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d findings could not be repaired; run it again once what failed works", failed)
	}
	return nil
}
