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
			Help: "Manager that were lost because this process's heartbeat did not come through in time.",
		}),
		held: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tramo_leases_held",
			Help: "Manager that this process holds: requests that may write their upload.",
		}, func() float64 {
			m.mu.Lock()
			defer m.mu.Unlock()
			return float64(len(m.held))
		}),
	}
}

func (m metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.wait, m.lost, m.held}
}

// Describe implements [prometheus.Collector].
func (m *Manager) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.metrics.all() {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (m *Manager) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.metrics.all() {
		c.Collect(ch)
	}
}
