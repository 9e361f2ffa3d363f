// Package wiring assembles what several programs have.
package wiring

import (
	"context"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/reconcile"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
)

// Config is the settings of a [Base].
type Config struct {
	Database storage.Config      `embed:""`
	Lease    lease.Config        `embed:""`
	Bucket   object.BucketConfig `embed:""`
}

// A Base is what servers, workers and the reconciler stand on.
type Base struct {
	DB       *storage.DB
	Bucket   *object.Bucket
	Leases   *lease.Manager
	Queue    *queue.Queue
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Open connects to the database, under the name of the replica: the host's, where none is set. Nothing need be reachable yet.
func Open(ctx context.Context, c Config, registry prometheus.Registerer, log *slog.Logger) (*Base, error) {
	if c.Lease.Replica == "" {
		var err error
		if c.Lease.Replica, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	c.Database.Replica = c.Lease.Replica
	db, err := storage.Open(ctx, c.Database)
	if err != nil {
		return nil, err
	}
	b, err := New(ctx, db, c, registry, log)
	if err != nil {
		db.Close()
	}
	return b, err
}

// New makes a base on a database, with the metrics of leases.
func New(ctx context.Context, db *storage.DB, c Config, registry prometheus.Registerer, log *slog.Logger) (*Base, error) {
	bucket, err := object.OpenBucket(ctx, c.Bucket)
	if err != nil {
		return nil, err
	}
	q, err := queue.New(db, log)
	if err != nil {
		return nil, err
	}
	leases := lease.NewManager(db, c.Lease.Replica, c.Lease.TTL, log)
	registry.MustRegister(leases.Metrics()...)
	return &Base{db, bucket, leases, q, registry, log}, nil
}

// Reconciler assembles one. Its store finishes uploads that are there and takes no others.
func (b *Base) Reconciler(c reconcile.Config) (*reconcile.Reconciler, error) {
	metrics := hooks.NewMetrics(b.Registry)
	store, err := object.NewStore(b.DB, b.Bucket, object.DefaultConfig(), object.NewMetrics(b.Registry, b.Bucket), b.Log)
	if err != nil {
		return nil, err
	}
	return &reconcile.Reconciler{
		Config: c,
		DB:     b.DB,
		Bucket: b.Bucket,
		Leases: b.Leases,
		Finish: &hooks.Uploads{
			DB: b.DB, Queue: b.Queue, Bucket: b.Bucket, Store: store, Leases: b.Leases,
			Expiry: hooks.Expiry{Retention: c.Expiry}, Metrics: metrics, Log: b.Log,
		},
		Queue:   b.Queue,
		Uploads: metrics,
		Metrics: reconcile.NewMetrics(b.Registry),
		Log:     b.Log,
	}, nil
}
