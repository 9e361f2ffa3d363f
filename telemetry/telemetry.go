// Package telemetry is what an operator sees: logs, traces, and the operations listener with liveness, readiness
// and metrics. It imports nothing of ours; each package brings its own metrics.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// LogFormats are the values that [NewLogger] takes.
const LogFormats = "json or text"

// NewLogger makes a logger that writes to w, as JSON lines or as text. A record whose context belongs to a
// trace says so as trace_id.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q is not debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "json":
		return slog.New(traceHandler{slog.NewJSONHandler(w, opts)}), nil
	case "text":
		return slog.New(traceHandler{slog.NewTextHandler(w, opts)}), nil
	}
	return nil, fmt.Errorf("log format %q is not %s", format, LogFormats)
}
