package sandbox

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Why a child is not kept.
const (
	reasonFault   = "fault"   // it failed on a file
	reasonFiles   = "files"   // it has served as many as it may
	reasonIdle    = "idle"    // it was idle for long
	reasonEvicted = "evicted" // to make room for another tenant's file
	reasonStopped = "stopped" // the caller does not wait for its answer any more
)

// Metrics count processes. A nil one counts nothing.
type Metrics struct {
	started  *prometheus.CounterVec
	replaced *prometheus.CounterVec
	limits   *prometheus.CounterVec
	forced   *prometheus.GaugeVec
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		started: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_sandbox_started_total",
			Help: "Confined processes started: children, which serve several files, and tools, which serve one.",
		}, []string{"kind"}),
		replaced: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_sandbox_replaced_total",
			Help: "Children that were ended, by reason: fault, files (it has served as many as it may), idle, evicted (for another tenant's file), stopped.",
		}, []string{"reason"}),
		limits: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_sandbox_limits_total",
			Help: "Files whose process hit a limit, also in a fresh child: memory, cpu, time, output; or crashed.",
		}, []string{"limit"}),
		forced: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tramo_sandbox_protection",
			Help: "What confines children here: 0 is not in force; landlock gives the version of the kernel's.",
		}, []string{"protection"}),
	}
}

func (m *Metrics) start(kind string) {
	if m != nil {
		m.started.WithLabelValues(kind).Inc()
	}
}

func (m *Metrics) replace(reason string) {
	if m != nil {
		m.replaced.WithLabelValues(reason).Inc()
	}
}

// hit counts an error that is a limit's, or a crash.
func (m *Metrics) hit(err error) {
	var limit *LimitError
	switch {
	case m == nil:
	case errors.As(err, &limit):
		m.limits.WithLabelValues(limit.Limit).Inc()
	case errors.Is(err, ErrCrashed):
		m.limits.WithLabelValues("crash").Inc()
	}
}

func (m *Metrics) force(c Confinement) {
	if m == nil {
		return
	}
	m.forced.WithLabelValues(protectLandlock).Set(float64(c.Landlock))
	m.forced.WithLabelValues(protectSeccomp).Set(one(c.Seccomp))
	m.forced.WithLabelValues(protectCgroup).Set(one(c.Cgroup != ""))
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
