// Package worker is the program tramo-worker, without libvips: it takes jobs and hands strangers' files to children.
package worker

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/cmd/internal/wiring"
	"github.com/tramo/tramo/processing"
	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/telemetry"
)

// Program is tramo-worker, for the command line.
func Program() cli.Program {
	return cli.Program{Name: "tramo-worker", Grammar: new(grammar), Description: "Processes uploads: virus scan, thumbnails, facts. Each flag can be set by the variable named beside it."}
}

type grammar struct {
	cli.Database
	cli.Replica
	cli.S3
	cli.Log
	contentSettings
	cli.Lease
	cli.Reconcile
	webhookSettings
	eraseSettings
	childSettings
	boundSettings
	OpsListen         string        `default:"127.0.0.1:9091" help:"Address for /livez, /readyz and /metrics."`
	RescanWorkers     int           `default:"1" help:"How many uploads to scan again at a time, besides those; 0 for none in this process. tramo rescan asks for it."`
	RetryDelay        time.Duration `default:"5s" help:"How long a failed upload waits for its second attempt; the third comes six times later."`
	BusyDelay         time.Duration `default:"15s" help:"How long uploads wait when clamd or S3 does not answer."`
	ReconcileInterval time.Duration `default:"1m" help:"How often what is stuck is looked for and repaired. One worker at a time does it."`
	InventoryInterval time.Duration `default:"6h" help:"How often all uploads are compared with all that S3 holds. One worker at a time does it."`
	MaxPixels         int           `default:"268402689" help:"Pixels of the largest picture that is drawn. A larger one is kept, without pictures of it."`
}

// Run implements the command.
func (g *grammar) Run(ctx context.Context, m *cli.Mistakes) error {
	database, s3, types, log := g.Database.Config(m), g.S3.Config(m), g.types(m), g.Logger(m)
	database.Replica = g.ReplicaName(m)
	scanner, scans := g.scanner(m)
	pool := g.pool(m, g.RetryDelay, g.BusyDelay)
	workers, why := workers(g.Workers, runtime.GOMAXPROCS(0), memoryLimit(), int64(g.ChildMemory))
	m.Check("TRAMO_RESCAN_WORKERS", cli.CheckNotNegative(g.RescanWorkers))
	g.CheckTTL(m)
	reconcile := g.Reconcile.Config(m)
	if min(g.ReconcileInterval, g.InventoryInterval, g.EraseInterval) < time.Second {
		m.Check("TRAMO_RECONCILE_INTERVAL, TRAMO_INVENTORY_INTERVAL, TRAMO_ERASE_INTERVAL", errors.New("intervals must be a second or more"))
	}
	webhooks := g.webhooks(m)
	children := g.children(m, workers)
	if g.MaxPixels < 1 {
		m.Check("TRAMO_MAX_PIXELS", errors.New("it must be more than 0"))
	}
	m.Check("TRAMO_OPS_LISTEN", cli.CheckAddress(g.OpsListen))
	if err := m.Err(); err != nil {
		return err
	}
	db, err := storage.Open(ctx, database)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.RequireOperator(ctx); err != nil {
		return err
	}
	bucket, err := object.OpenBucket(ctx, s3)
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry()
	registry.MustRegister(&processing.Backlog{DB: db, Log: log}, scanner)
	spareMemory()
	dir, space, clean, err := g.disk(registry, log)
	if err != nil {
		return err
	}
	defer clean()
	metrics := processing.NewMetrics(registry)
	children.Metrics, children.Log = sandbox.NewMetrics(registry), log
	box := sandbox.New(children)
	defer func() { _ = box.Close() }()
	box.Warm()
	tools := examine.FindTools()
	leases := g.Leases(db, database.Replica, registry, log)
	pipeline := &processing.Pipeline{
		DB: db, Bucket: bucket, Scanner: scanner, Scans: scans, Types: types, MaxPixels: g.MaxPixels,
		Examiner: &examine.Examiner{Box: box, Tools: tools, TempDir: dir},
		Locker:   object.Locker{Leases: leases, Log: log}, TempDir: dir, Space: space,
		Metrics: metrics, Log: log,
	}
	reconciler, err := wiring.Reconciler(reconcile, db, bucket, leases, registry, log)
	if err != nil {
		return err
	}
	jobs := queue.NewPool(pool, db, leases, queue.NewMetrics(registry), telemetry.NewTracerProvider(), log)
	log.InfoContext(ctx, "working", slog.Int("workers", workers), slog.String("because_of", why))
	jobs.Register(queue.ProcessUpload, pipeline, queue.Options{Workers: workers})
	jobs.Register(queue.RescanUpload, processing.Rescanner{Pipeline: pipeline}, queue.Options{Workers: g.RescanWorkers})
	jobs.Register(queue.Reconcile, queue.Pass(reconciler.Reconcile, log),
		queue.Options{Workers: 1, Timeout: 10 * time.Minute, Every: g.ReconcileInterval})
	jobs.Register(queue.TakeInventory, queue.Pass(reconciler.TakeInventory, log),
		queue.Options{Workers: 1, Timeout: 6 * time.Hour, Every: g.InventoryInterval})
	jobs.Register(queue.Erase, queue.Pass(eraser(db, bucket, leases, log).Erase, log),
		queue.Options{Workers: 1, Timeout: time.Hour, Every: g.EraseInterval})
	dispatch, err := webhooks.join(jobs, db, reconciler.Queue, registry, log)
	if err != nil {
		return err
	}
	// clamd answers a ping behind its running scans, so a worker at work must not seem unready for it.
	ops := &telemetry.Ops{Listen: g.OpsListen, Registry: registry, Log: log, CheckTime: 15 * time.Second, Checks: append([]telemetry.Check{
		{Name: "postgres", Ask: db.Ping},
		{Name: "s3", Ask: bucket.Ping},
		{Name: "clamd", Ask: scanner.Ping},
	}, watchTools(tools, registry)...)}
	return leases.During(ctx, func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return ops.Run(ctx) })
		group.Go(func() error { scanner.Run(ctx); return nil })
		group.Go(func() error { return jobs.Run(ctx) })
		group.Go(func() error { return dispatch(ctx) })
		return group.Wait()
	})
}
