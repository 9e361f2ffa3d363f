package server

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// How a change is found.
const (
	foundByBeingTold = "told"
	foundByLooking   = "looking" // nobody has told of it, or was not heard: a process was killed, or a connection lost
)

// liveMetrics count what listeners are told.
type liveMetrics struct {
	listeners  *prometheus.GaugeVec
	messages   *prometheus.CounterVec
	dropped    prometheus.Counter
	lag        prometheus.Histogram
	found      *prometheus.CounterVec
	reconnects prometheus.Counter
}

func newLiveMetrics(f promauto.Factory) *liveMetrics {
	return &liveMetrics{
		listeners: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tramo_listeners",
			Help: "Streams of live state that are open, by transport: sse, websocket.",
		}, []string{"transport"}),
		messages: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_live_messages_total",
			Help: "Messages sent to listeners, by event.",
		}, []string{"event"}),
		dropped: f.NewCounter(prometheus.CounterOpts{
			Name: "tramo_listeners_dropped_total",
			Help: "Listeners that were cut off because they took what they were sent too slowly.",
		}),
		lag: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "tramo_live_lag_seconds",
			Help:    "How long after a change of an upload messages of it were ready for its listeners, by this process's clock.",
			Buckets: []float64{.01, .025, .05, .1, .15, .2, .3, .5, 1, 2.5, 5, 10, 30},
		}),
		found: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_live_found_total",
			Help: "Changes of uploads to be told, by how they were found: told (by the process that made them), looking (nobody had told of them).",
		}, []string{"by"}),
		reconnects: f.NewCounter(prometheus.CounterOpts{
			Name: "tramo_live_reconnects_total",
			Help: "How often the connection was lost over which changes are heard.",
		}),
	}
}
