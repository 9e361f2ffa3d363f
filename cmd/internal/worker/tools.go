package worker

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/telemetry"
)

// watchTools tells operators which of the optional programs this worker has, in /readyz, which stays ready without
// them, and in a metric to alert on.
func watchTools(tools examine.Tools, registry prometheus.Registerer) []telemetry.Check {
	installed := promauto.With(registry).NewGaugeVec(prometheus.GaugeOpts{
		Name: "tramo_optional_tool_installed",
		Help: "1 if the worker has the program, 0 if files that need it are kept without pictures or facts.",
	}, []string{"tool"})
	var checks []telemetry.Check
	for _, name := range examine.ToolNames() {
		installed.WithLabelValues(name).Set(0)
		if tools.Check(name) == nil {
			installed.WithLabelValues(name).Set(1)
		}
		checks = append(checks, telemetry.Check{Name: name, Optional: true, Ask: func(context.Context) error { return tools.Check(name) }})
	}
	return checks
}
