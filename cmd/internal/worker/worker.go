// Package worker is the program tramo-worker, without libvips: it takes jobs and gives files to child processes.
package worker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/cmd/internal/wiring"
	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/audit"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/reconcile"
	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/processing"
	"github.com/tramo/tramo/processing/clamd"
	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/telemetry"
)

type grammar struct {
	cli.Root

	Run         command         `cmd:"" default:"withargs" help:"Process uploads. This is what tramo-worker does without a command."`
	Healthcheck cli.Healthcheck `cmd:"" help:"Ask the tramo-worker with the same settings, on this machine, whether it answers. For container runtimes."`
}

type command struct {
	Ops        telemetry.OpsConfig        `embed:""`
	Log        telemetry.LogConfig        `embed:""`
	Base       wiring.Config              `embed:""`
	Workers    processing.WorkersConfig   `embed:""`
	Metrics    processing.MetricsConfig   `embed:""`
	Queue      queue.Config               `embed:""`
	Space      processing.SpaceConfig     `embed:""`
	Sandbox    sandbox.Config             `embed:""`
	Clamd      clamd.Config               `embed:""`
	Scan       processing.ScanPolicy      `embed:""`
	Types      mediatype.Policy           `embed:""`
	Mismatch   mediatype.MismatchConfig   `embed:""`
	Thumbnails processing.ThumbnailConfig `embed:""`
	Reconciler reconcile.Config           `embed:""`
	Schedule   reconcile.Schedule         `embed:""`
	Expiry     hooks.Expiry               `embed:""`
	Eraser     erasure.EraserConfig       `embed:""`
	Audit      audit.Config               `embed:""`
	Webhooks   webhook.Config             `embed:""`
	Sender     webhook.SenderConfig       `embed:""`
}

// Program is tramo-worker, for the command line.
func Program() cli.Program {
	return cli.Program{
		Name:        "tramo-worker",
		Description: "Processes uploads: virus scan, thumbnails, facts. Each flag can be set by the variable named beside it.",
		Grammar:     &grammar{Run: defaults(), Healthcheck: cli.DefaultHealthcheck(opsListen)},
		Metrics:     metrics,
	}
}

// opsListen is where the operations listener is by default.
const opsListen = "127.0.0.1:9091"

func defaults() command {
	return command{
		Ops:        telemetry.OpsConfig{Listen: opsListen},
		Log:        telemetry.DefaultLogConfig(),
		Base:       wiring.Config{Lease: lease.DefaultConfig()},
		Workers:    processing.DefaultWorkersConfig(),
		Queue:      queue.DefaultConfig(),
		Space:      processing.DefaultSpaceConfig(),
		Sandbox:    sandbox.DefaultConfig(),
		Scan:       processing.DefaultScanPolicy(),
		Types:      mediatype.DefaultPolicy(),
		Mismatch:   mediatype.DefaultMismatchConfig(),
		Thumbnails: processing.DefaultThumbnailConfig(),
		Reconciler: reconcile.DefaultConfig(),
		Schedule:   reconcile.DefaultSchedule(),
		Expiry:     hooks.DefaultExpiry(),
		Eraser:     erasure.DefaultEraserConfig(),
		Audit:      audit.DefaultConfig(),
		Sender:     webhook.DefaultSenderConfig(),
	}
}

// Check implements [cli.Checker].
func (c *command) Check() error {
	if n, _ := c.workers(); c.Sandbox.Children != 0 && c.Sandbox.Children < n {
		return fmt.Errorf("TRAMO_CHILDREN: %d is less than the %d files that TRAMO_WORKERS processes at a time", c.Sandbox.Children, n)
	}
	return nil
}

// workers is how many uploads are processed at a time, and why.
func (c *command) workers() (n int, why string) {
	return workers(c.Workers.Workers, runtime.GOMAXPROCS(0), memoryLimit(), max(1, c.Sandbox.Limits.Memory))
}

// Run implements the command.
func (c *command) Run(ctx context.Context) error {
	log := telemetry.NewLogger(os.Stderr, c.Log)
	registry := telemetry.NewRegistry()
	box := c.newBox(registry, log)
	defer func() { _ = box.Close() }()
	if err := box.Prepare(ctx); err != nil {
		return err
	}
	b, err := wiring.Open(ctx, c.Base, registry, log)
	if err != nil {
		return err
	}
	defer b.DB.Close()
	if err := b.DB.RequireOperator(ctx); err != nil {
		return err
	}
	spareMemory()
	dir, clean, err := ownDir(c.Space.Dir, log)
	if err != nil {
		return err
	}
	defer clean()
	w, err := c.assemble(b, box, dir)
	if err != nil {
		return err
	}
	probe := &object.Probe{Bucket: b.Bucket, Log: log}
	// clamd answers a ping after its running scans, so a busy worker must not seem unready because of it.
	ops := &telemetry.Ops{OpsConfig: c.Ops, Registry: registry, Log: log, CheckTimeout: 15 * time.Second, Checks: append([]telemetry.Check{
		{Name: "postgres", Ask: b.DB.Ping},
		{Name: "s3", Ask: probe.Ready},
		{Name: "s3_operations", Ask: probe.Complete, Optional: true},
		{Name: "clamd", Ask: w.scanner.Ping},
	}, w.tools...)}
	return b.Leases.During(ctx, func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return ops.Run(ctx) })
		group.Go(func() error { return probe.Run(ctx) })
		group.Go(func() error { w.scanner.Run(ctx); return nil })
		group.Go(func() error { return w.pool.Run(ctx) })
		group.Go(func() error { return w.dispatch(ctx) })
		return group.Wait()
	})
}

// parts are what a worker runs.
type parts struct {
	scanner  *clamd.Scanner
	tools    []telemetry.Check
	pool     *queue.Pool
	dispatch func(context.Context) error // of webhooks, until its context is done
}

// newBox makes what reads uploaded files.
func (c *command) newBox(registry prometheus.Registerer, log *slog.Logger) *sandbox.Box {
	c.Sandbox.Env, c.Sandbox.Metrics, c.Sandbox.Log = examine.Environment(), sandbox.NewMetrics(registry), log
	return sandbox.New(c.Sandbox)
}

// assemble makes the parts, each from those below it. Files go to dir.
func (c *command) assemble(b *wiring.Base, box *sandbox.Box, dir string) (*parts, error) {
	scanner, err := clamd.New(c.Clamd.Addresses, clamd.Timeouts{Reply: processing.ScanReply})
	if err != nil {
		return nil, err
	}
	b.Registry.MustRegister(&processing.Backlog{MetricsConfig: c.Metrics, DB: b.DB, Log: b.Log}, scanner)
	tools := examine.FindTools()
	w := &parts{scanner: scanner, tools: watchTools(tools, b.Registry)}
	c.Types.AllowMismatch = c.Mismatch.Mismatch == "record"
	pipeline := &processing.Pipeline{
		DB: b.DB, Bucket: b.Bucket, Scanner: scanner, Scans: c.Scan, Types: c.Types, MaxPixels: c.Thumbnails.MaxPixels, SaveAfter: c.Workers.SaveAfter,
		Examiner: &examine.Examiner{Box: box, Tools: tools, TempDir: dir}, Leases: b.Leases, TempDir: dir, Space: processing.NewSpace(c.Space.Size, b.Registry), Metrics: processing.NewMetrics(b.Registry), Log: b.Log,
	}
	c.Reconciler.Expiry = c.Expiry.Retention
	reconciler, err := b.Reconciler(c.Reconciler)
	if err != nil {
		return nil, err
	}
	eraser := &erasure.Eraser{DB: b.DB, Bucket: b.Bucket, Leases: b.Leases, Log: b.Log}
	w.pool = queue.NewPool(c.Queue, b.DB, b.Leases, queue.NewMetrics(b.Registry), telemetry.NewTracerProvider(), b.Log)
	n, why := c.workers()
	b.Log.Info("pool sized", slog.Int("workers", n), slog.String("because_of", why))
	w.pool.Register(queue.ProcessUpload, pipeline, queue.Options{Workers: n})
	w.pool.Register(queue.RescanUpload, processing.Rescanner{Pipeline: pipeline}, queue.Options{Workers: c.Workers.Rescan})
	w.pool.Register(queue.Reconcile, queue.Pass(reconciler.Reconcile, b.Log),
		queue.Options{Workers: 1, Timeout: 10 * time.Minute, Every: c.Schedule.Reconcile})
	w.pool.Register(queue.TakeInventory, queue.Pass(reconciler.TakeInventory, b.Log),
		queue.Options{Workers: 1, Timeout: 6 * time.Hour, Every: c.Schedule.Inventory})
	w.pool.Register(queue.Erase, queue.Pass(eraser.Erase, b.Log), queue.Options{Workers: 1, Timeout: time.Hour, Every: c.Eraser.Every})
	sealer := audit.NewSealer(b.DB, b.Registry)
	w.pool.Register(queue.SealAudit, queue.Pass(sealer.Seal, b.Log), queue.Options{Workers: 1, Timeout: time.Hour, Every: c.Audit.Every})
	if c.Webhooks.Keys == "" {
		b.Log.Warn("no webhooks: TRAMO_WEBHOOK_KEY is not set")
		w.dispatch = func(context.Context) error { return nil }
		return w, nil
	}
	vault, err := webhook.NewVault(string(c.Webhooks.Keys))
	if err != nil {
		return nil, err
	}
	dispatcher := webhook.NewDispatcher(c.Sender, b.DB, b.Queue, b.Log)
	b.Registry.MustRegister(&webhook.Backlog{DB: b.DB, Log: b.Log})
	webhook.NewSender(c.Sender, dispatcher, vault, webhook.NewGuard(c.Webhooks), webhook.NewMetrics(b.Registry), telemetry.NewTracerProvider(), b.Log).Register(w.pool)
	w.dispatch = dispatcher.Run
	return w, nil
}

// metrics registers what a worker measures. Nothing that it needs has to be reachable.
func metrics(ctx context.Context, registry prometheus.Registerer) error {
	c := defaults()
	c.Base.Database.URL, c.Base.Bucket.Name = "postgres://localhost", "none"
	c.Clamd.Addresses, c.Webhooks.Keys = "tcp://localhost:3310", telemetry.Secret(strings.Repeat("k", webhook.MinKey))
	b, err := wiring.Open(ctx, c.Base, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer b.DB.Close()
	_, err = c.assemble(b, c.newBox(registry, b.Log), "")
	return err
}

// watchTools shows operators which of the optional programs this worker has: in /readyz, which stays ready without them,
// and in a metric for alerts.
func watchTools(tools examine.Tools, registry prometheus.Registerer) []telemetry.Check {
	installed := promauto.With(registry).NewGaugeVec(prometheus.GaugeOpts{
		Name: "tramo_optional_tool_installed",
		Help: "1 if the worker has the program, 0 if files that need it get no thumbnails or facts.",
	}, []string{"tool"})
	var checks []telemetry.Check
	for _, name := range examine.ToolNames() {
		installed.WithLabelValues(name).Set(0)
		if tools.Check(name) == nil {
			installed.WithLabelValues(name).Set(1)
		}
		checks = append(checks, telemetry.Check{Name: name, Optional: true, Ask: func(context.Context) error { return tools.Check(name) }})
	}
	return checks
}
