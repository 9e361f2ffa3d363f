package processing

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/riverqueue/river/rivertype"
	"go.opentelemetry.io/otel/propagation"
)

// A job belongs to the trace of the request that enqueued it: its metadata carries the traceparent (W3C
// Trace Context, section 3.2), through all attempts.

// traceMetadata returns the metadata of a job that ctx enqueues.
func traceMetadata(ctx context.Context) ([]byte, error) {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	metadata, err := json.Marshal(carrier)
	if err != nil {
		return nil, fmt.Errorf("encode job metadata: %w", err)
	}
	return metadata, nil
}

// inTraceOf returns ctx in the trace that the job belongs to, if it belongs to one.
func inTraceOf(ctx context.Context, job *rivertype.JobRow) context.Context {
	var metadata struct {
		TraceParent string `json:"traceparent"`
		TraceState  string `json:"tracestate"`
	}
	if err := json.Unmarshal(job.Metadata, &metadata); err != nil {
		return ctx // an older job's, or an operator's
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		"traceparent": metadata.TraceParent, "tracestate": metadata.TraceState,
	})
}
