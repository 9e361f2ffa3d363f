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

// OpenDatabase connects to the database, under the name of the replica: the host's, where none is set.
func OpenDatabase(ctx context.Context, c storage.Config, l *lease.Config) (*storage.DB, error) {
	if l.Replica == "" {
		var err error
		if l.Replica, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	c.Replica = l.Replica
	return storage.Open(ctx, c)
}

// Leases makes the process's lease manager, with its metrics.
func Leases(c lease.Config, db *storage.DB, registry prometheus.Registerer, log *slog.Logger) *lease.Manager {
	leases := lease.NewManager(db, c.Replica, c.TTL, log)
	registry.MustRegister(leases.Metrics()...)
	return leases
}

// Reconciler assembles one. Its store finishes uploads that are there and takes no others.
func Reconciler(c reconcile.Config, db *storage.DB, bucket *object.Bucket, leases *lease.Manager,
	registry prometheus.Registerer, log *slog.Logger,
) (*reconcile.Reconciler, error) {
	q, err := queue.New(db, log)
	if err != nil {
		return nil, err
	}
	metrics := hooks.NewMetrics(registry)
	store, err := object.NewStore(db, bucket, object.DefaultConfig(), object.NewMetrics(registry, bucket), log)
	if err != nil {
		return nil, err
	}
	return &reconcile.Reconciler{
		Config: c,
		DB:     db,
		Bucket: bucket,
		Leases: leases,
		Finish: &hooks.Uploads{
			DB: db, Queue: q, Bucket: bucket, Store: store, Leases: leases, Expiry: hooks.Expiry{Retention: c.Expiry}, Metrics: metrics, Log: log,
		},
		Queue:   q,
		Uploads: metrics,
		Metrics: reconcile.NewMetrics(registry),
		Log:     log,
	}, nil
}
