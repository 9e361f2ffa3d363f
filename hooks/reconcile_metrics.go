package hooks

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// ReconcilerMetrics count what a Reconciler finds.
type ReconcilerMetrics struct {
	found, repaired, failed *prometheus.CounterVec
	unrepaired              *prometheus.GaugeVec
	success                 *prometheus.GaugeVec
}

// NewReconcilerMetrics registers them, each kind with 0.
func NewReconcilerMetrics(reg prometheus.Registerer) *ReconcilerMetrics {
	f := promauto.With(reg)
	kind := []string{"kind"}
	m := &ReconcilerMetrics{
		found: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_reconcile_found_total", Help: "Things that should not be, found by the reconciler. What stays is found by each pass.",
		}, kind),
		repaired: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_reconcile_repaired_total", Help: "Of these, what was repaired.",
		}, kind),
		failed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_reconcile_failed_total", Help: "Of these, what could not be repaired because something failed.",
		}, kind),
		unrepaired: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tramo_reconcile_unrepaired", Help: "What the last pass of this process found and did not repair.",
		}, kind),
		success: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tramo_reconcile_last_success_timestamp_seconds", Help: "When this process last made a whole pass: quick, or inventory. Take the maximum over processes.",
		}, []string{"pass"}),
	}
	var table Reconciler
	for _, c := range append(table.quick(context.Background()), table.long(context.Background())...) {
		for _, v := range []*prometheus.CounterVec{m.found, m.repaired, m.failed} {
			v.WithLabelValues(string(c.kind))
		}
		m.unrepaired.WithLabelValues(string(c.kind))
	}
	return m
}

func (m *ReconcilerMetrics) count(r Result) {
	m.found.WithLabelValues(string(r.Kind)).Inc()
	switch r.Outcome {
	case Repaired:
		m.repaired.WithLabelValues(string(r.Kind)).Inc()
	case Failed:
		m.failed.WithLabelValues(string(r.Kind)).Inc()
	}
}

func (m *ReconcilerMetrics) passed(name string, t tally) {
	for kind := range t.byKind {
		m.unrepaired.WithLabelValues(string(kind)).Set(float64(t.open[kind]))
	}
	m.success.WithLabelValues(name).SetToCurrentTime()
}
