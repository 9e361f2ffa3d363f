package hooks

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tramo/tramo/storage"
)

// Metrics count what becomes of uploads.
type Metrics struct {
	transitions *prometheus.CounterVec
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	return &Metrics{transitions: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Name: "tramo_upload_transitions_total",
		Help: "Uploads that this process brought into a state.",
	}, []string{"status"})}
}

// Into counts uploads that this process brought into the state.
func (m *Metrics) Into(s storage.Status) prometheus.Counter {
	return m.transitions.WithLabelValues(string(s))
}

func (m *Metrics) became(s storage.Status) { m.Into(s).Inc() }
