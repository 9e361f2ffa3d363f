package reconcile

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics count what a [Reconciler] finds.
type Metrics struct {
	found, repaired, failed *prometheus.CounterVec
	unrepaired              *prometheus.GaugeVec
	success                 *prometheus.GaugeVec
}

// NewMetrics registers them, each kind with 0.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	kind := []string{"kind"}
	m := &Metrics{
		found: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_reconcile_found_total", Help: "Findings of the reconciler, by kind. Each pass counts a finding that is still there again.",
		}, kind),
		repaired: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_reconcile_repaired_total", Help: "Findings that the reconciler repaired.",
		}, kind),
		failed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_reconcile_failed_total", Help: "Repairs of the reconciler that failed.",
		}, kind),
		unrepaired: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tramo_reconcile_unrepaired", Help: "Findings that the last pass of this process did not repair.",
		}, kind),
		success: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tramo_reconcile_last_success_timestamp_seconds", Help: "Time of the last complete pass of this process, quick or inventory. Take the maximum over processes.",
		}, []string{"pass"}),
	}
	var table Reconciler
	for _, c := range append(table.quick(context.Background()), table.inventory(context.Background())...) {
		for _, v := range []*prometheus.CounterVec{m.found, m.repaired, m.failed} {
			v.WithLabelValues(string(c.kind))
		}
		m.unrepaired.WithLabelValues(string(c.kind))
	}
	return m
}

func (m *Metrics) count(r Result) {
	m.found.WithLabelValues(string(r.Kind)).Inc()
	switch r.Outcome {
	case Repaired:
		m.repaired.WithLabelValues(string(r.Kind)).Inc()
	case Failed:
		m.failed.WithLabelValues(string(r.Kind)).Inc()
	}
}

func (m *Metrics) passed(name string, t tally) {
	for kind := range t.byKind {
		m.unrepaired.WithLabelValues(string(kind)).Set(float64(t.open[kind]))
	}
	m.success.WithLabelValues(name).SetToCurrentTime()
}
