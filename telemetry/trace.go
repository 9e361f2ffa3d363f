package telemetry

import (
	"context"
	"log/slog"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// NewTracerProvider makes the traces that requests and jobs belong to. Their spans are exported nowhere: what
// they are for is the trace id in logs, timelines and answers.
func NewTracerProvider() *sdktrace.TracerProvider { return sdktrace.NewTracerProvider() }

const keyTraceID = "trace_id"

// traceHandler adds to each record the id of the trace that its context belongs to.
type traceHandler struct{ slog.Handler }

// Handle implements [slog.Handler].
func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	if id := trace.SpanContextFromContext(ctx).TraceID(); id.IsValid() {
		r = r.Clone() // others may hold the record
		r.AddAttrs(slog.String(keyTraceID, id.String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h traceHandler) WithGroup(name string) slog.Handler {
	return traceHandler{h.Handler.WithGroup(name)}
}
