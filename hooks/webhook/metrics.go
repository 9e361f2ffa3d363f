package webhook

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sourcegraph/conc/panics"

	"github.com/tramo/tramo/storage"
)

// Metrics count attempts.
type Metrics struct {
	attempts *prometheus.CounterVec
	took     prometheus.Histogram
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		attempts: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_webhook_attempts_total",
			Help: "Attempts to deliver a webhook, by outcome: delivered, retry or dead, and what went wrong.",
		}, []string{"outcome", "error"}),
		took: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "tramo_webhook_attempt_duration_seconds",
			Help:    "How long endpoints took to answer.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 30, 60},
		}),
	}
}

func (m *Metrics) count(r result) {
	outcome := "retry"
	switch {
	case r.Error == "":
		outcome = "delivered"
	case r.RetryAt.IsZero():
		outcome = "dead"
	}
	m.attempts.WithLabelValues(outcome, r.Error).Inc()
	m.took.Observe(r.Took.Seconds())
}

// Backlog counts deliveries at each scrape. It needs a role that sees every tenant.
type Backlog struct {
	DB  *storage.DB
	Log *slog.Logger
}

var (
	deliveriesDesc = prometheus.NewDesc("tramo_webhook_deliveries", "Deliveries that are pending, and dead letters that are kept, over all tenants.", []string{"state"}, nil)
	oldestDesc     = prometheus.NewDesc("tramo_webhook_oldest_pending_seconds", "How long the oldest pending delivery has been, its retries included.", nil, nil)
	overdueDesc    = prometheus.NewDesc("tramo_webhook_overdue_seconds", "How late the next attempt of a delivery is, at most.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (*Backlog) Describe(ch chan<- *prometheus.Desc) {
	ch <- deliveriesDesc
	ch <- oldestDesc
	ch <- overdueDesc
}

// Collect implements [prometheus.Collector].
func (c *Backlog) Collect(ch chan<- prometheus.Metric) {
	if p := panics.Try(func() { c.collect(ch) }); p != nil { // in a goroutine of the registry's
		c.Log.Warn("counting for metrics failed", slog.Any("err", p.AsError()))
		ch <- prometheus.NewInvalidMetric(deliveriesDesc, p.AsError())
	}
}

func (c *Backlog) collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	b, err := countBacklog(ctx, c.DB)
	if err != nil {
		c.Log.WarnContext(ctx, "counting for metrics failed", slog.Any("err", err))
		ch <- prometheus.NewInvalidMetric(deliveriesDesc, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(deliveriesDesc, prometheus.GaugeValue, float64(b.Pending), string(Pending))
	ch <- prometheus.MustNewConstMetric(deliveriesDesc, prometheus.GaugeValue, float64(b.Dead), string(Dead))
	ch <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, b.Oldest)
	ch <- prometheus.MustNewConstMetric(overdueDesc, prometheus.GaugeValue, b.Overdue)
}
