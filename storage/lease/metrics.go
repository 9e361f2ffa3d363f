package lease

import "github.com/prometheus/client_golang/prometheus"

// How a request was woken before it got its lease.
const (
	unwoken   = "never"     // it got the lease at once
	locally   = "locally"   // by this process
	notified  = "notified"  // by another process, through Postgres
	rechecked = "rechecked" // by its timer: the notification was lost, or the holder had died
)

type metrics struct {
	wait *prometheus.HistogramVec
	lost prometheus.Counter
	held prometheus.GaugeFunc
}

func newMetrics(m *Manager) metrics {
	return metrics{
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tramo_lease_wait_seconds",
			Help:    "How long requests waited for the leases that they got, by how they were woken: never, locally, notified, rechecked.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"woken"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tramo_leases_lost_total",
			Help: "Leases lost because no heartbeat of this process succeeded in time.",
		}),
		held: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tramo_leases_held",
			Help: "Leases that this process holds.",
		}, func() float64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return float64(len(m.held))
		}),
	}
}

// Metrics returns what the manager measures, for a registry.
func (m *Manager) Metrics() []prometheus.Collector {
	return []prometheus.Collector{m.metrics.wait, m.metrics.lost, m.metrics.held}
}
