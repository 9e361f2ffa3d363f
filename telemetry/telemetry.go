// Package telemetry is what an operator sees: logs, traces, and the operations listener with liveness, readiness
// and metrics. It imports nothing of ours; each package brings its own metrics.
package telemetry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// LogConfig says what is logged, and how.
type LogConfig struct {
	Format string `name:"log-format" help:"Format of the log: json, or text for a terminal."`
	Level  string `name:"log-level" help:"Least level that is logged: debug, info, warn or error."`
}

// DefaultLogConfig logs JSON lines without debug messages.
func DefaultLogConfig() LogConfig { return LogConfig{Format: "json", Level: "info"} }

// Validate reports what is wrong with c.
func (c LogConfig) Validate() error {
	var errs []error
	if c.Format != "json" && c.Format != "text" {
		errs = append(errs, fmt.Errorf("TRAMO_LOG_FORMAT: %q is neither json nor text", c.Format))
	}
	if _, err := c.level(); err != nil {
		errs = append(errs, fmt.Errorf("TRAMO_LOG_LEVEL: %q is not debug, info, warn or error", c.Level))
	}
	return errors.Join(errs...)
}

func (c LogConfig) level() (level slog.Level, err error) {
	err = level.UnmarshalText([]byte(c.Level))
	return level, err
}

// NewLogger makes a logger that writes to w. It adds trace_id to each record whose context belongs to a trace.
func NewLogger(w io.Writer, c LogConfig) *slog.Logger {
	level, _ := c.level() // Validate has read it
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(traceHandler{slog.NewTextHandler(w, opts)})
	}
	return slog.New(traceHandler{slog.NewJSONHandler(w, opts)})
}
