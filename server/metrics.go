package server

import (
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tramo/tramo/server/connection"
	"github.com/tramo/tramo/server/live"
)

// Metrics measure requests. A PATCH takes as long as its client's network, hence the long buckets.
type Metrics struct {
	requests *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	live     *live.Metrics

	connections *connection.Metrics
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		requests: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tramo_http_request_duration_seconds",
			Help:    "Duration of requests, by method, route and status code.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
		}, []string{"method", "route", "code"}),
		inFlight: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tramo_http_requests_in_flight",
			Help: "Requests in progress, by method.",
		}, []string{"method"}),
		live:        live.NewMetrics(r),
		connections: connection.NewMetrics(r),
	}
}

// observe measures a request when it has been answered.
func (m *Metrics) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		method := knownMethod(c.Request().Method)
		start := time.Now()
		m.inFlight.WithLabelValues(method).Inc()
		defer m.inFlight.WithLabelValues(method).Dec()
		if err := next(c); err != nil {
			c.Error(err) // answers now, so that the status is known below
		}
		m.requests.WithLabelValues(method, c.Path(), strconv.Itoa(c.Response().Status)).Observe(time.Since(start).Seconds())
		return nil
	}
}

// knownMethod keeps clients from inventing label values.
func knownMethod(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return m
	}
	return "other"
}
