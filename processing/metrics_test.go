package processing

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/test/stack"
)

// Each tenant's quota can be watched, under the name that operators know.
func TestQuotaMetric(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.Create(t, p.ctx, 1<<28)
	p.Exec(t, `update tenants set name = 'Obras S.A.'`)
	_, _, err := p.Worker.CreateTenant(t.Context(), "Nada", 0)
	stack.Must(t, err)
	registry := prometheus.NewRegistry()
	registry.MustRegister(&Backlog{DB: p.Worker, Log: slog.New(slog.DiscardHandler)})
	families, err := registry.Gather()
	stack.Must(t, err)
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "tramo_tenant_quota_used_ratio" {
			continue
		}
		for _, m := range f.GetMetric() {
			got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	stack.Want(t, got, map[string]float64{"Obras S.A.": 0.25, "Nada": 1}, "metric")
}

// Counting that panics is a metric that is missing: the registry counts in goroutines of its own.
func TestCountingPanics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	registry.MustRegister(&Backlog{Log: slog.New(slog.DiscardHandler)}) // without a database
	if _, err := registry.Gather(); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("gathered: %v", err)
	}
}
