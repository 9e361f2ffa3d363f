package processing

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// Each tenant's quota can be watched, under its id, or under its name where an operator wants that.
func TestQuotaMetric(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.Create(t, p.ctx, 1<<28)
	p.Exec(t, `update tenants set name = 'Obras S.A.'`)
	none, _, err := p.Worker.CreateTenant(t.Context(), "Nada", 0)
	stack.Must(t, err)
	gather := func(c MetricsConfig) map[string]float64 {
		t.Helper()
		registry := prometheus.NewRegistry()
		registry.MustRegister(&Backlog{MetricsConfig: c, DB: p.Worker, Log: slog.New(slog.DiscardHandler)})
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
		return got
	}
	// Names are for who asks for them: metrics go to systems that others read.
	stack.Want(t, gather(MetricsConfig{}), map[string]float64{storagetest.TenantOf(t, p.ctx).String(): 0.25, none.String(): 1}, "metric by id")
	stack.Want(t, gather(MetricsConfig{Names: true}), map[string]float64{"Obras S.A.": 0.25, "Nada": 1}, "metric by name")
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
