package tramo

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/telemetry"
)

type serveCommand struct {
	cli.Database
	cli.Replica
	cli.S3
	cli.Log
	cli.Types
	cli.Lease
	storeSettings
	receiptSettings
	cli.Webhooks
	httpSettings
	batchSettings
	deletedSettings
	tokenSettings
	limitSettings
	eventSettings
	Listen         string        `default:"127.0.0.1:8080" help:"Address for clients."`
	OpsListen      string        `default:"127.0.0.1:9090" help:"Address for /livez, /readyz and /metrics. Keep clients away from it."`
	PublicURL      string        `name:"public-url" placeholder:"URL" help:"Where clients reach this server, for the addresses of uploads. Default: what each request says as Host."`
	JWKSURL        string        `name:"jwks-url" env:"TRAMO_JWKS_URL" placeholder:"URL" help:"Where keys that verify RS256, ES256 and EdDSA tokens are published."`
	MaxUploadSize  cli.Bytes     `default:"100MiB" help:"The largest upload."`
	NetworkTimeout time.Duration `default:"1m" help:"How long a request's body may be silent before the upload is kept as far as it came."`
}

// configs are the settings as the packages take them.
type configs struct {
	database storage.Config
	bucket   object.BucketConfig
	store    object.Config
	auth     auth.Config
	server   server.Config
	policy   hooks.Policy
	receipts hooks.ReceiptConfig
	webhooks webhook.Config
	batches  hooks.BatchConfig
	deleted  time.Duration
	limits   limits
	log      *slog.Logger
}

// configs reports all mistakes at once.
func (c *serveCommand) configs(m *cli.Mistakes) (configs, error) {
	k := configs{
		database: c.Database.Config(m),
		bucket:   c.S3.Config(m),
		store:    c.store(int64(c.MaxUploadSize), m),
		auth:     c.tokenConfig(),
		server:   server.DefaultConfig(),
		policy:   hooks.Policy{MaxSize: int64(c.MaxUploadSize), Types: c.Policy(m)},
		receipts: c.receipts(c.PublicURL, m),
		webhooks: c.Webhooks.Config(m),
		batches:  c.batches(m),
		deleted:  c.deleted(m),
		log:      c.Logger(m),
	}
	k.auth.JWKSURL = c.JWKSURL
	k.database.Replica = c.ReplicaName(m)
	k.limits = c.limit(&k.server, m)
	k.server.Listen, k.server.PublicURL, k.server.NetworkTimeout = c.Listen, c.PublicURL, c.NetworkTimeout
	c.apply(&k.server, m)
	k.server.Events = c.events(m)
	m.Check("TRAMO_JWT_SECRET, TRAMO_JWKS_URL", k.auth.Validate())
	m.Check("TRAMO_PUBLIC_URL", k.server.Validate())
	m.Check("TRAMO_MAX_UPLOAD_SIZE", k.policy.Validate())
	c.CheckTTL(m)
	m.Check("TRAMO_LISTEN", cli.CheckAddress(c.Listen))
	m.Check("TRAMO_OPS_LISTEN", cli.CheckAddress(c.OpsListen))
	return k, m.Err()
}

// Run implements the command.
func (c *serveCommand) Run(ctx context.Context, m *cli.Mistakes) error {
	k, err := c.configs(m)
	if err != nil {
		return err
	}
	db, err := storage.Open(ctx, k.database)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.RequireTenantIsolation(ctx); err != nil {
		return err
	}
	bucket, err := object.OpenBucket(ctx, k.bucket)
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry()
	leases := c.Leases(db, k.database.Replica, registry, k.log)
	parts, err := assemble(ctx, k, db, bucket, registry, leases)
	if err != nil {
		return err
	}
	defer parts.Store.Close() // the process ends anyway
	s, err := server.New(k.server, parts)
	if err != nil {
		return err
	}
	ops := &telemetry.Ops{Listen: c.OpsListen, Registry: registry, Log: k.log, Checks: []telemetry.Check{
		{Name: "postgres", Ask: db.Ping},
		{Name: "s3", Ask: bucket.Ping},
		{Name: "jwks", Ask: parts.Verifier.Ready},
	}}
	return run(ctx, s, ops, leases)
}

// assemble builds what the server puts on the network, one part upon another.
func assemble(ctx context.Context, k configs, db *storage.DB, bucket *object.Bucket,
	registry *prometheus.Registry, leases *lease.Manager,
) (server.Parts, error) {
	verifier, err := auth.NewVerifier(ctx, k.auth, k.log)
	if err != nil {
		return server.Parts{}, err
	}
	q, err := queue.New(db, k.log)
	if err != nil {
		return server.Parts{}, err
	}
	metrics := object.NewMetrics(registry, bucket)
	receipts, err := hooks.NewReceipts(db, k.receipts)
	if err != nil {
		return server.Parts{}, err
	}
	if k.receipts.Key == nil {
		k.log.WarnContext(ctx, "no receipts: TRAMO_RECEIPT_KEY_FILE is not set")
	}
	webhooks, err := endpoints(k.webhooks, db, k.log)
	if err != nil {
		return server.Parts{}, err
	}
	limits, err := ratelimit.New(k.limits.rates, k.limits.redis, registry, k.log)
	if err != nil {
		return server.Parts{}, err
	}
	finisher := &hooks.Finisher{DB: db, Queue: q, Bucket: bucket, Metrics: hooks.NewMetrics(registry), Log: k.log, DeletedKeep: k.deleted}
	store, err := object.NewStore(db, bucket, finisher, finisher, k.store, metrics, k.log)
	if err != nil {
		return server.Parts{}, err
	}
	batches := &hooks.Batches{BatchConfig: k.batches, DB: db, Policy: k.policy, Queue: q, Metrics: finisher.Metrics, Log: k.log}
	return server.Parts{
		DB:          db,
		Bucket:      bucket,
		Store:       store,
		Locker:      object.Locker{Leases: leases, Log: k.log},
		Admission:   &hooks.Admission{DB: db, Policy: k.policy, Log: k.log},
		Batches:     batches,
		Receipts:    receipts,
		Webhooks:    webhooks,
		Erasures:    &hooks.Erasures{DB: db, Queue: q, Log: k.log},
		DeadLetters: &hooks.DeadLetters{DB: db, Queue: q, Uploads: finisher.Metrics, Log: k.log},
		Verifier:    verifier,
		Metrics:     server.NewMetrics(registry),
		Limits:      limits,
		Tracers:     telemetry.NewTracerProvider(),
		Log:         k.log,
		Quarantine:  &hooks.Quarantine{DB: db, Queue: q, Log: k.log},
	}, nil
}

// run serves until ctx is done. Leases outlive the requests that hold them.
func run(ctx context.Context, s *server.Server, ops *telemetry.Ops, leases *lease.Manager) error {
	return leases.During(ctx, func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return s.Run(ctx) })
		g.Go(func() error { return ops.Run(ctx) })
		return g.Wait()
	})
}
