package lease

import "github.com/prometheus/client_golang/prometheus"

// How a request that got a lease came to ask for the last time.
const (
	unwoken   = "never"     // it got the lease at once
	locally   = "locally"   // told in this process
	notified  = "notified"  // told by another, through Postgres
	rechecked = "rechecked" // told by nobody: the notification was lost, or the holder had died
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
			Help:    "How long requests waited for the lease that they got, by what woke them: never, locally, notified, rechecked.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"woken"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tramo_leases_lost_total",
			Help: "Leases that were lost because this process's heartbeat did not come through in time.",
		}),
		held: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tramo_leases_held",
			Help: "Leases that this process holds: requests that may write their upload.",
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
