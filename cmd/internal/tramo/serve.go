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
	Base     wiring.Config         `embed:""`
	Store    object.Config         `embed:""`
	Expiry   hooks.Expiry          `embed:""`
	Auth     auth.Config           `embed:""`
	Links    auth.LinkConfig       `embed:""`
	Rates    ratelimit.Config      `embed:""`
	Redis    ratelimit.RedisConfig `embed:""`
	Policy   hooks.Policy          `embed:""`
	Batches  batch.Config          `embed:""`
	Deleted  erasure.Config        `embed:""`
	Receipts hooks.ReceiptConfig   `embed:""`
	Webhooks webhook.Config        `embed:""`
}

// opsListen is where the operations listener is by default.
const opsListen = "127.0.0.1:9090"

func defaultServe() serveCommand {
	return serveCommand{
		Server:  server.DefaultConfig(),
		Ops:     telemetry.OpsConfig{Listen: opsListen},
		Log:     telemetry.DefaultLogConfig(),
		Base:    wiring.Config{Lease: lease.DefaultConfig()},
		Store:   object.DefaultConfig(),
		Expiry:  hooks.DefaultExpiry(),
		Auth:    auth.DefaultConfig(),
		Rates:   ratelimit.DefaultConfig(),
		Redis:   ratelimit.DefaultRedisConfig(),
		Policy:  hooks.DefaultPolicy(),
		Batches: batch.DefaultConfig(),
		Deleted: erasure.DefaultConfig(),
	}
}

// Check implements [cli.Checker].
func (c *serveCommand) Check() error {
	err := errors.Join(c.Store.ValidateMaxUpload(c.Policy.MaxSize), c.Receipts.ReadKeys())
	if c.Auth.JWKSURL != "" && len(c.linkSecrets()) == 0 {
		err = errors.Join(err, errors.New("TRAMO_LINK_KEY: TRAMO_JWKS_URL brings no secret that could sign links to thumbnails; give all servers the same, such as openssl rand -hex 32 prints"))
	}
	return err
}

// linkSecrets are those that links to thumbnails may be signed with: the first signs. All servers have the same ones already,
// so that none needs one more.
func (c *serveCommand) linkSecrets() (secrets []string) {
	for _, keys := range []telemetry.Secret{c.Links.Keys, c.Auth.Secrets, c.Webhooks.Keys} {
		if keys != "" {
			secrets = append(secrets, strings.Split(string(keys), ",")...)
		}
	}
	if c.Receipts.Key != nil {
		secrets = append(secrets, string(c.Receipts.Key.Seed()))
	}
	return secrets
}

// Run implements the command.
func (c *serveCommand) Run(ctx context.Context) error {
	log := telemetry.NewLogger(os.Stderr, c.Log)
	registry := telemetry.NewRegistry()
	b, err := wiring.Open(ctx, c.Base, registry, log)
	if err != nil {
		return err
	}
	defer b.DB.Close()
	if err := b.DB.RequireTenantIsolation(ctx); err != nil {
		return err
	}
	parts, err := c.assemble(ctx, b)
	if err != nil {
		return err
	}
	defer parts.Uploads.Store.Close() // the process ends anyway
	s, err := server.New(c.Server, parts)
	if err != nil {
		return err
	}
	probe := &object.Probe{Bucket: b.Bucket, Log: log}
	ops := &telemetry.Ops{OpsConfig: c.Ops, Registry: registry, Log: log, Checks: []telemetry.Check{
		{Name: "postgres", Ask: b.DB.Ping},
		{Name: "s3", Ask: probe.Ready},
		{Name: "s3_operations", Ask: probe.Complete, Optional: true},
		{Name: "jwks", Ask: parts.Verifier.Ready},
	}}
	// Leases outlive the requests that hold them.
	return b.Leases.During(ctx, func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return s.Run(ctx) })
		g.Go(func() error { return ops.Run(ctx) })
		g.Go(func() error { return probe.Run(ctx) })
		return g.Wait()
	})
}

// assemble makes the parts of the server, each from those below it.
func (c *serveCommand) assemble(ctx context.Context, b *wiring.Base) (server.Parts, error) {
	verifier, err := auth.NewVerifier(ctx, c.Auth, b.Log)
	if err != nil {
		return server.Parts{}, err
	}
	links, err := auth.NewLinks(c.linkSecrets()...)
	if err != nil {
		return server.Parts{}, err
	}
	c.Receipts.Issuer = cmp.Or(c.Server.PublicURL, "tramo")
	receipts, err := hooks.NewReceipts(b.DB, c.Receipts)
	if err != nil {
		return server.Parts{}, err
	}
	if c.Receipts.Key == nil {
		b.Log.WarnContext(ctx, "no receipts: TRAMO_RECEIPT_KEY_FILE is not set")
	}
	webhooks := &webhook.Endpoints{DB: b.DB, Guard: webhook.NewGuard(c.Webhooks)}
	if c.Webhooks.Keys == "" {
		b.Log.WarnContext(ctx, "no webhooks: TRAMO_WEBHOOK_KEY is not set")
	} else if webhooks.Vault, err = webhook.NewVault(string(c.Webhooks.Keys)); err != nil {
		return server.Parts{}, err
	}
	redis, err := c.Redis.Open()
	if err != nil {
		return server.Parts{}, err
	}
	limits, err := ratelimit.New(c.Rates.Rates(), redis, b.Registry, b.Log)
	if err != nil {
		return server.Parts{}, err
	}
	erasures := &erasure.Service{Config: c.Deleted, DB: b.DB, Queue: b.Queue, Log: b.Log}
	store, err := object.NewStore(b.DB, b.Bucket, c.Store, object.NewMetrics(b.Registry, b.Bucket), b.Log)
	if err != nil {
		return server.Parts{}, err
	}
	uploads := &hooks.Uploads{
		Admission: &hooks.Admission{DB: b.DB, Policy: c.Policy, Log: b.Log},
		DB:        b.DB, Queue: b.Queue, Bucket: b.Bucket, Store: store, Leases: b.Leases, Expiry: c.Expiry,
		Metrics: hooks.NewMetrics(b.Registry), Log: b.Log, Erasures: erasures,
	}
	return server.Parts{
		Services: api.Services{
			DB:          b.DB,
			Bucket:      b.Bucket,
			Uploads:     uploads,
			Batches:     &batch.Service{Config: c.Batches, DB: b.DB, Policy: c.Policy, Queue: b.Queue, Uploads: uploads, Metrics: uploads.Metrics, Log: b.Log},
			Receipts:    receipts,
			Webhooks:    webhooks,
			Erasures:    erasures,
			DeadLetters: &deadletter.Service{DB: b.DB, Queue: b.Queue, Uploaded: uploads.Metrics.Into(storage.Uploaded), Log: b.Log},
			Quarantine:  &quarantine.Service{DB: b.DB, Queue: b.Queue, Log: b.Log},
			Limits:      limits,
			Log:         b.Log,
		},
		Verifier: verifier,
		Links:    links,
		Metrics:  server.NewMetrics(b.Registry),
		Tracers:  telemetry.NewTracerProvider(),
	}, nil
}

// metrics registers what a server measures. Nothing that it needs has to be reachable.
func metrics(ctx context.Context, registry prometheus.Registerer) error {
	c := defaultServe()
	c.Base.Database.URL, c.Base.Bucket.Name, c.Redis.URL = "postgres://localhost", "none", "redis://localhost"
	c.Auth.Secrets = telemetry.Secret(strings.Repeat("s", auth.MinSecret))
	b, err := wiring.Open(ctx, c.Base, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer b.DB.Close()
	_, err = c.assemble(ctx, b)
	return err
}
