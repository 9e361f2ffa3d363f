package tramo

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/cmd/internal/wiring"
	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/batch"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/api"
	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/telemetry"
)

type serveCommand struct {
	Server   server.Config         `embed:""`
	Ops      telemetry.OpsConfig   `embed:""`
	Log      telemetry.LogConfig   `embed:""`
	Database storage.Config        `embed:""`
	Lease    lease.Config          `embed:""`
	Bucket   object.BucketConfig   `embed:""`
	Store    object.Config         `embed:""`
	Expiry   hooks.Expiry          `embed:""`
	Auth     auth.Config           `embed:""`
	Rates    ratelimit.Config      `embed:""`
	Redis    ratelimit.RedisConfig `embed:""`
	Policy   hooks.Policy          `embed:""`
	Batches  batch.Config          `embed:""`
	Deleted  erasure.Config        `embed:""`
	Receipts hooks.ReceiptConfig   `embed:""`
	Webhooks webhook.Config        `embed:""`
}

func defaultServe() serveCommand {
	return serveCommand{
		Server:  server.DefaultConfig(),
		Ops:     telemetry.OpsConfig{Listen: "127.0.0.1:9090"},
		Log:     telemetry.DefaultLogConfig(),
		Lease:   lease.DefaultConfig(),
		Store:   object.DefaultConfig(),
		Expiry:  hooks.DefaultExpiry(),
		Rates:   ratelimit.DefaultConfig(),
		Redis:   ratelimit.DefaultRedisConfig(),
		Policy:  hooks.DefaultPolicy(),
		Batches: batch.DefaultConfig(),
		Deleted: erasure.DefaultConfig(),
	}
}

// Check implements [cli.Checker].
func (c *serveCommand) Check() error {
	return errors.Join(c.Store.ValidateMaxUpload(c.Policy.MaxSize), c.Receipts.ReadKeys())
}

// Run implements the command.
func (c *serveCommand) Run(ctx context.Context) error {
	log := telemetry.NewLogger(os.Stderr, c.Log)
	db, err := wiring.OpenDatabase(ctx, c.Database, &c.Lease)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.RequireTenantIsolation(ctx); err != nil {
		return err
	}
	bucket, err := object.OpenBucket(ctx, c.Bucket)
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry()
	leases := wiring.Leases(c.Lease, db, registry, log)
	parts, err := c.assemble(ctx, db, bucket, leases, registry, log)
	if err != nil {
		return err
	}
	defer parts.Uploads.Store.Close() // the process ends anyway
	s, err := server.New(c.Server, parts)
	if err != nil {
		return err
	}
	ops := &telemetry.Ops{OpsConfig: c.Ops, Registry: registry, Log: log, Checks: []telemetry.Check{
		{Name: "postgres", Ask: db.Ping},
		{Name: "s3", Ask: bucket.Ping},
		{Name: "jwks", Ask: parts.Verifier.Ready},
	}}
	// Leases outlive the requests that hold them.
	return leases.During(ctx, func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return s.Run(ctx) })
		g.Go(func() error { return ops.Run(ctx) })
		return g.Wait()
	})
}

// assemble makes the parts of the server, each from those below it.
func (c *serveCommand) assemble(ctx context.Context, db *storage.DB, bucket *object.Bucket,
	leases *lease.Manager, registry prometheus.Registerer, log *slog.Logger,
) (server.Parts, error) {
	verifier, err := auth.NewVerifier(ctx, c.Auth, log)
	if err != nil {
		return server.Parts{}, err
	}
	q, err := queue.New(db, log)
	if err != nil {
		return server.Parts{}, err
	}
	c.Receipts.Issuer = cmp.Or(c.Server.PublicURL, "tramo")
	receipts, err := hooks.NewReceipts(db, c.Receipts)
	if err != nil {
		return server.Parts{}, err
	}
	if c.Receipts.Key == nil {
		log.WarnContext(ctx, "no receipts: TRAMO_RECEIPT_KEY_FILE is not set")
	}
	webhooks := &webhook.Endpoints{DB: db, Guard: webhook.NewGuard(c.Webhooks)}
	if c.Webhooks.Keys == "" {
		log.WarnContext(ctx, "no webhooks: TRAMO_WEBHOOK_KEY is not set")
	} else if webhooks.Vault, err = webhook.NewVault(string(c.Webhooks.Keys)); err != nil {
		return server.Parts{}, err
	}
	redis, err := c.Redis.Open()
	if err != nil {
		return server.Parts{}, err
	}
	limits, err := ratelimit.New(c.Rates.Rates(), redis, registry, log)
	if err != nil {
		return server.Parts{}, err
	}
	erasures := &erasure.Service{Config: c.Deleted, DB: db, Queue: q, Log: log}
	store, err := object.NewStore(db, bucket, c.Store, object.NewMetrics(registry, bucket), log)
	if err != nil {
		return server.Parts{}, err
	}
	uploads := &hooks.Uploads{
		Admission: &hooks.Admission{DB: db, Policy: c.Policy, Log: log},
		DB:        db, Queue: q, Bucket: bucket, Store: store, Leases: leases, Expiry: c.Expiry,
		Metrics: hooks.NewMetrics(registry), Log: log, Erasures: erasures,
	}
	return server.Parts{
		Services: api.Services{
			DB:          db,
			Bucket:      bucket,
			Uploads:     uploads,
			Batches:     &batch.Service{Config: c.Batches, DB: db, Policy: c.Policy, Queue: q, Metrics: uploads.Metrics, Log: log},
			Receipts:    receipts,
			Webhooks:    webhooks,
			Erasures:    erasures,
			DeadLetters: &deadletter.Service{DB: db, Queue: q, Uploaded: uploads.Metrics.Into(storage.Uploaded), Log: log},
			Quarantine:  &quarantine.Service{DB: db, Queue: q, Log: log},
			Limits:      limits,
			Log:         log,
		},
		Verifier: verifier,
		Metrics:  server.NewMetrics(registry),
		Tracers:  telemetry.NewTracerProvider(),
	}, nil
}

// metrics registers what a server measures. Nothing that it needs has to be reachable.
func metrics(ctx context.Context, registry prometheus.Registerer) error {
	c := defaultServe()
	c.Database.URL, c.Bucket.Name, c.Redis.URL = "postgres://localhost", "none", "redis://localhost"
	c.Auth.Secret = telemetry.Secret(strings.Repeat("s", auth.MinSecret))
	log := slog.New(slog.DiscardHandler)
	db, err := wiring.OpenDatabase(ctx, c.Database, &c.Lease)
	if err != nil {
		return err
	}
	defer db.Close()
	bucket, err := object.OpenBucket(ctx, c.Bucket)
	if err != nil {
		return err
	}
	_, err = c.assemble(ctx, db, bucket, wiring.Leases(c.Lease, db, registry, log), registry, log)
	return err
}
