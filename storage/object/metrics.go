package object

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics count what goes through a Store.
type Metrics struct {
	received    prometheus.Counter
	offsetsLost prometheus.Counter
}

// NewMetrics registers a Store's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		received: f.NewCounter(prometheus.CounterOpts{
			Name: "tramo_upload_received_bytes_total",
			Help: "Bytes read from clients' request bodies.",
		}),
		offsetsLost: f.NewCounter(prometheus.CounterOpts{
			Name: "tramo_upload_offsets_lost_total",
			Help: "Uploads whose acknowledged bytes were no longer in S3. Anything but 0 is a broken promise.",
		}),
	}
}
