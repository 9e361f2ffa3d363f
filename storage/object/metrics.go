package object

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics count what goes through a Store.
type Metrics struct {
	received     *prometheus.CounterVec
	acknowledged *prometheus.CounterVec
}

// NewMetrics registers a Store's metrics, and the state of its bucket's circuit breaker.
func NewMetrics(r prometheus.Registerer, b *Bucket) *Metrics {
	f := promauto.With(r)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tramo_s3_circuit_open",
		Help: "1 while requests to S3 fail at once, because three in a row have failed with all retries.",
	}, func() float64 {
		if b.Unavailable() {
			return 1
		}
		return 0
	})
	return &Metrics{
		received: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_upload_received_bytes_total",
			Help: "Bytes read from clients' request bodies.",
		}, []string{"tenant"}),
		acknowledged: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_upload_acknowledged_bytes_total",
			Help: "Bytes by which offsets of uploads moved. Bytes received beyond them are sent again.",
		}, []string{"tenant"}),
	}
}
