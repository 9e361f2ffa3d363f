package telemetry_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/tramo/tramo/telemetry"
)

// A record has the trace id of its context, also after With; without a trace it has none.
func TestLogsNameTheirTrace(t *testing.T) {
	t.Parallel()
	ctx, span := telemetry.NewTracerProvider().Tracer("test").Start(t.Context(), "request")
	defer span.End()
	want := span.SpanContext().TraceID().String()
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, telemetry.DefaultLogConfig())
	log.InfoContext(ctx, "plain")
	log.With(slog.Int("size", 5)).InfoContext(ctx, "with an attribute")
	log.InfoContext(t.Context(), "without a trace")
	for i, want := range []any{want, want, nil} {
		var line map[string]any
		text, err := out.ReadBytes('\n')
		if err != nil || json.Unmarshal(text, &line) != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if line["trace_id"] != want {
			t.Errorf("line %d says %v, want %v", i, line["trace_id"], want)
		}
	}
}
