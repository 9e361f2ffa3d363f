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

	"github.com/tramo/tramo/cmd/internal/wiring"
	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/reconcile"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/telemetry"
)

type reconcileCommand struct {
	operator
	Lease         lease.Config        `embed:""`
	Bucket        object.BucketConfig `embed:""`
	Log           telemetry.LogConfig `embed:""`
	Reconciler    reconcile.Config    `embed:""`
	Expiry        hooks.Expiry        `embed:""`
	DryRun        bool                `env:"-" help:"Only print what would be done."`
	Grace         *time.Duration      `env:"-" placeholder:"DURATION" help:"Overrides --stuck-grace and --orphan-grace."`
	DeleteUnknown bool                `env:"-" help:"Delete objects that belong to no known upload. After a restore of the database from a backup they may be the only copies."`
	AcceptLoss    bool                `env:"-" help:"Fail uploads whose objects are missing, even if so many are missing that the bucket looks like the wrong one."`
	JSON          bool                `name:"json" env:"-" help:"Print one JSON object a line."`
}

func defaultReconcile() reconcileCommand {
	c := reconcileCommand{
		Lease: lease.DefaultConfig(), Log: telemetry.DefaultLogConfig(),
		Reconciler: reconcile.DefaultConfig(), Expiry: hooks.DefaultExpiry(),
	}
	c.Lease.Replica = "reconcile"
	return c
}

// Check implements [cli.Checker].
func (c *reconcileCommand) Check() error {
	if c.Grace != nil && *c.Grace < 0 {
		return fmt.Errorf("--grace: %s is less than 0", *c.Grace)
	}
	return nil
}

// Run implements the command.
func (c *reconcileCommand) Run(ctx context.Context, db *storage.DB) error {
	conf, log := c.Reconciler, telemetry.NewLogger(os.Stderr, c.Log)
	conf.Expiry, conf.DryRun, conf.DeleteUnknown, conf.AcceptLoss = c.Expiry.Retention, c.DryRun, c.DeleteUnknown, c.AcceptLoss
	if c.Grace != nil {
		conf.StuckGrace, conf.OrphanGrace = *c.Grace, *c.Grace
	}
	b, err := wiring.New(ctx, db, wiring.Config{Lease: c.Lease, Bucket: c.Bucket}, telemetry.NewRegistry(), log)
	if err != nil {
		return err
	}
	r, err := b.Reconciler(conf)
	if err != nil {
		return err
	}
	out := &report{to: os.Stdout, json: c.JSON, kinds: make(map[reconcile.Kind]map[reconcile.Outcome]int)}
	r.Report = out.line
	during := b.Leases.During
	if c.DryRun { // which takes no leases
		during = func(ctx context.Context, do func(context.Context) error) error { return do(ctx) }
	}
	err = during(ctx, func(ctx context.Context) error { return errors.Join(r.Reconcile(ctx), r.TakeInventory(ctx)) })
	if err != nil {
		return err
	}
	return out.summary()
}

// A report prints what the reconciler found, as text or JSON.
type report struct {
	to    io.Writer
	json  bool
	kinds map[reconcile.Kind]map[reconcile.Outcome]int
}

func (p *report) line(r reconcile.Result) {
	if p.kinds[r.Kind] == nil {
		p.kinds[r.Kind] = make(map[reconcile.Outcome]int)
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

func sentence(r reconcile.Result) string {
	switch r.Outcome {
	case reconcile.Planned:
		return "would " + r.Plan
	case reconcile.Repaired:
		return "repaired: " + r.Plan
	case reconcile.Left:
		return "left: " + r.Reason.Error()
	}
	return "failed to " + r.Plan + ": " + r.Reason.Error()
}

func (p *report) lineJSON(r reconcile.Result) {
	line := struct {
		Kind        reconcile.Kind    `json:"kind"`
		Outcome     reconcile.Outcome `json:"outcome"`
		Plan        string            `json:"plan,omitempty"`
		Tenant      uuid.UUID         `json:"tenant_id"`
		Upload      uuid.UUID         `json:"upload_id,omitzero"`
		Key         string            `json:"key,omitempty"`
		MultipartID string            `json:"multipart_id,omitempty"`
		Detail      string            `json:"detail,omitempty"`
		Reason      string            `json:"reason,omitempty"`
	}{Kind: r.Kind, Outcome: r.Outcome, Plan: r.Plan, Tenant: r.Tenant, Upload: r.Upload, Key: r.Key, MultipartID: r.MultipartID, Detail: r.Detail}
	if r.Reason != nil {
		line.Reason = r.Reason.Error()
	}
	_ = json.NewEncoder(p.to).Encode(line) // nothing else to do if standard output fails
}

// summary prints the numbers by kind. It returns an error if repairs failed.
func (p *report) summary() error {
	failed := 0
	if len(p.kinds) == 0 && !p.json {
		fmt.Fprintln(p.to, "Nothing to repair.")
	}
	for _, kind := range slices.Sorted(maps.Keys(p.kinds)) {
		n := p.kinds[kind]
		failed += n[reconcile.Failed]
		if !p.json {
			fmt.Fprintf(p.to, "%-17s %d found, %d repaired, %d to repair, %d left, %d failed\n", kind,
				n[reconcile.Planned]+n[reconcile.Repaired]+n[reconcile.Left]+n[reconcile.Failed], n[reconcile.Repaired], n[reconcile.Planned], n[reconcile.Left], n[reconcile.Failed])
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d findings could not be repaired; run the command again once the causes are gone", failed)
	}
	return nil
}
