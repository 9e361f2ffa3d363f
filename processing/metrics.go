package processing

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sourcegraph/conc/panics"

	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
)

// Metrics time the steps and count outcomes.
type Metrics struct {
	steps    *prometheus.HistogramVec
	outcomes *prometheus.CounterVec
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		steps: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tramo_processing_step_duration_seconds",
			Help:    "How long the steps of processing took, by step. The first one downloads the object.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
		}, []string{"step"}),
		outcomes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_processing_outcomes_total",
			Help: "Uploads that this process brought to an end.",
		}, []string{"status"}),
	}
}

// Backlog tells, at each scrape, how many jobs are in which state, how many uploads are on their way, how many dead letters wait
// for a decision, and how full each tenant's quota is. Its database role must see every tenant.
type Backlog struct {
	MetricsConfig
	DB  *storage.DB
	Log *slog.Logger
}

// MetricsConfig says what metrics tell of tenants.
type MetricsConfig struct {
	Names bool `name:"metrics-tenant-names" help:"Show tenants by their names in metrics, which other systems keep, instead of by their ids."`
}

var (
	jobsDesc    = prometheus.NewDesc("tramo_jobs", "Processing jobs by state, over all tenants; those of dead letters are discarded, and kept for 90 days.", []string{"state"}, nil)
	quotaDesc   = prometheus.NewDesc("tramo_tenant_quota_used_ratio", "What is charged to a tenant's quota, as a share of it. Tenants are warned at 0.8 and 0.95.", []string{"tenant"}, nil)
	lettersDesc = prometheus.NewDesc("tramo_dead_letters", "Uploads whose processing was given up and that wait for somebody's decision, by the step that failed, over all tenants.", []string{"step"}, nil)
	uploadsDesc = prometheus.NewDesc("tramo_uploads", "Uploads that have not ended, by status, over all tenants.", []string{"status"}, nil)
)

// Describe implements [prometheus.Collector].
func (*Backlog) Describe(ch chan<- *prometheus.Desc) {
	ch <- jobsDesc
	ch <- uploadsDesc
	ch <- quotaDesc
	ch <- lettersDesc
}

// Collect implements [prometheus.Collector].
func (c *Backlog) Collect(ch chan<- prometheus.Metric) {
	if p := panics.Try(func() { c.collect(ch) }); p != nil { // in a goroutine of the registry's
		c.Log.Warn("counting for metrics failed", slog.Any("err", p.AsError()))
		ch <- prometheus.NewInvalidMetric(jobsDesc, p.AsError())
	}
}

func (c *Backlog) collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	jobs, err1 := queue.Count(ctx, c.DB)
	uploads, err2 := c.DB.CountUnended(ctx)
	letters, err3 := deadletter.CountOpen(ctx, c.DB)
	if err := errors.Join(err1, err2, err3); err != nil {
		c.Log.WarnContext(ctx, "counting for metrics failed", slog.Any("err", err))
		ch <- prometheus.NewInvalidMetric(jobsDesc, err)
		return
	}
	for state, n := range jobs {
		ch <- prometheus.MustNewConstMetric(jobsDesc, prometheus.GaugeValue, float64(n), state)
	}
	for status, n := range uploads {
		ch <- prometheus.MustNewConstMetric(uploadsDesc, prometheus.GaugeValue, float64(n), string(status))
	}
	for _, step := range lastSteps() {
		letters[step] += 0 // also steps at which nothing failed
	}
	for step, n := range letters {
		ch <- prometheus.MustNewConstMetric(lettersDesc, prometheus.GaugeValue, float64(n), step)
	}
	c.collectQuotas(ctx, ch)
}

// collectQuotas has a label for each tenant: there are hundreds of them, not thousands. tramo tenant list has the names of ids.
func (c *Backlog) collectQuotas(ctx context.Context, ch chan<- prometheus.Metric) {
	tenants, err := c.DB.Tenants(ctx)
	if err != nil {
		c.Log.WarnContext(ctx, "reading quotas for metrics failed", slog.Any("err", err))
		ch <- prometheus.NewInvalidMetric(quotaDesc, err)
		return
	}
	for _, t := range tenants {
		used := 1.0 // a quota of 0 is full
		if t.QuotaBytes > 0 {
			used = float64(t.ChargedBytes) / float64(t.QuotaBytes)
		}
		label := t.ID.String()
		if c.Names {
			label = t.Name
		}
		ch <- prometheus.MustNewConstMetric(quotaDesc, prometheus.GaugeValue, used, label)
	}
}
