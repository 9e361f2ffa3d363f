// Package wiring assembles what several programs have.
package wiring

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
)

// Reconciler assembles one. Its store finishes uploads that are there and takes no others.
func Reconciler(c hooks.ReconcilerConfig, db *storage.DB, bucket *object.Bucket, leases *lease.Manager,
	registry *prometheus.Registry, log *slog.Logger,
) (*hooks.Reconciler, error) {
	q, err := queue.New(db, log)
	if err != nil {
		return nil, err
	}
	metrics := hooks.NewMetrics(registry)
	finisher := &hooks.Finisher{DB: db, Queue: q, Bucket: bucket, Metrics: metrics, Log: log}
	conf := object.DefaultConfig()
	conf.Expiry = c.Expiry
	store, err := object.NewStore(db, bucket, finisher, finisher, conf, object.NewMetrics(registry, bucket), log)
	if err != nil {
		return nil, err
	}
	return &hooks.Reconciler{
		ReconcilerConfig: c,
		DB:               db,
		Bucket:           bucket,
		Store:            store,
		Locker:           object.Locker{Leases: leases, Log: log},
		Queue:            q,
		Uploads:          metrics,
		Metrics:          hooks.NewReconcilerMetrics(registry),
		Log:              log,
	}, nil
}
