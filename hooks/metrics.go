package hooks

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tramo/tramo/storage"
)

// Metrics count what becomes of uploads.
type Metrics struct {
	transitions *prometheus.CounterVec
	offsetsLost prometheus.Counter
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		transitions: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_upload_transitions_total",
			Help: "Uploads that this process brought into a state.",
		}, []string{"status"}),
		offsetsLost: f.NewCounter(prometheus.CounterOpts{
			Name: "tramo_upload_offsets_lost_total",
			Help: "Uploads whose acknowledged bytes were no longer in S3. Anything but 0 is a broken promise.",
		}),
	}
}

// Into counts uploads that this process brought into the state.
func (m *Metrics) Into(s storage.Status) prometheus.Counter {
	return m.transitions.WithLabelValues(string(s))
}

func (m *Metrics) became(s storage.Status) { m.Into(s).Inc() }
