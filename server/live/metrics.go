package live

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics count what listeners are sent.
type Metrics struct {
	listeners  *prometheus.GaugeVec
	messages   *prometheus.CounterVec
	dropped    prometheus.Counter
	lag        prometheus.Histogram
	missed     prometheus.Counter
	reconnects prometheus.Counter
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		listeners: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tramo_listeners",
			Help: "Listeners of live state, by transport: sse, websocket.",
		}, []string{"transport"}),
		messages: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_live_messages_total",
			Help: "Messages sent to listeners, by event.",
		}, []string{"event"}),
		dropped: f.NewCounter(prometheus.CounterOpts{
			Name: "tramo_listeners_dropped_total",
			Help: "Listeners that were disconnected because too many messages waited for them.",
		}),
		lag: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "tramo_live_lag_seconds",
			Help:    "Time from a change of an upload until its message was ready for listeners, by this process's clock.",
			Buckets: []float64{.01, .025, .05, .1, .15, .2, .3, .5, 1, 2.5, 5, 10, 30},
		}),
		missed: f.NewCounter(prometheus.CounterOpts{
			Name: "tramo_live_missed_notifications_total",
			Help: "Changes of uploads that were found by polling because their notification had not arrived.",
		}),
		reconnects: f.NewCounter(prometheus.CounterOpts{
			Name: "tramo_live_reconnects_total",
			Help: "Times that the connection for change notifications was lost.",
		}),
	}
}
