package object

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics count what goes through a Store.
type Metrics struct {
	received *prometheus.CounterVec
	useful   *prometheus.CounterVec
}

// NewMetrics registers a Store's metrics, and whether its bucket has been given up on.
func NewMetrics(r prometheus.Registerer, b *Bucket) *Metrics {
	f := promauto.With(r)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tramo_s3_circuit_open",
		Help: "1 while requests to S3 fail at once because many in a row have failed.",
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
		useful: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_upload_useful_bytes_total",
			Help: "Bytes by which offsets moved. What was received beyond them will be sent again.",
		}, []string{"tenant"}),
	}
}
