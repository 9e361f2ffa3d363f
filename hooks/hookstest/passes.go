package hookstest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/hooks/erasure"
	"github.com/tramo/tramo/hooks/reconcile"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

// Reconciler makes one without graces, as a process of its own has it.
func (s *Site) Reconciler(t *testing.T, registry *prometheus.Registry) *reconcile.Reconciler {
	t.Helper()
	q, err := queue.New(s.Worker, s.Log)
	stack.Must(t, err)
	metrics := hooks.NewMetrics(registry)
	store, err := object.NewStore(s.Worker, s.Bucket, object.DefaultConfig(), object.NewMetrics(registry, s.Bucket), s.Log)
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, store.Close()) })
	return &reconcile.Reconciler{
		Config: reconcile.Config{Expiry: time.Hour},
		DB:     s.Worker,
		Bucket: s.Bucket,
		Leases: s.leases("reconciler"),
		Finish: &hooks.Uploads{
			DB: s.Worker, Queue: q, Bucket: s.Bucket, Store: store, Expiry: hooks.Expiry{Retention: time.Hour}, Metrics: metrics, Log: s.Log,
		},
		Queue:   q,
		Uploads: metrics,
		Metrics: reconcile.NewMetrics(registry),
		Log:     s.Log,
	}
}

func (s *Site) leases(replica string) *lease.Manager {
	return lease.NewManager(s.Worker, replica, 5*time.Second, s.Log)
}

// Reconcile makes both passes of a new reconciler and returns the findings.
func (s *Site) Reconcile(t *testing.T) []reconcile.Result {
	t.Helper()
	r := s.Reconciler(t, prometheus.NewRegistry())
	return Findings(t, r, func(ctx context.Context) error { return errors.Join(r.Reconcile(ctx), r.TakeInventory(ctx)) })
}

// Findings makes passes of a reconciler and returns the findings. A dry run takes no leases.
func Findings(t *testing.T, r *reconcile.Reconciler, passes func(context.Context) error) (found []reconcile.Result) {
	t.Helper()
	var mu sync.Mutex
	r.Report = func(res reconcile.Result) {
		mu.Lock()
		defer mu.Unlock()
		found = append(found, res)
	}
	if r.DryRun {
		stack.Must(t, passes(t.Context()))
		return found
	}
	stack.Must(t, r.Leases.During(t.Context(), passes))
	return found
}

// Erase makes a pass of a new eraser.
func (s *Site) Erase(t *testing.T) error {
	t.Helper()
	e := &erasure.Eraser{DB: s.Worker, Bucket: s.Bucket, Leases: s.leases("eraser"), Log: s.Log}
	return e.Leases.During(t.Context(), e.Erase)
}
