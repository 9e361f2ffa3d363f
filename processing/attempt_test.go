package processing

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/storage"
)

// deadLettered is how a timeline tells of a dead letter: in our words, without an internal cause.
var deadLettered = fmt.Sprintf("failed detail=%s reason=%s", deadletter.Failure().Detail, deadletter.Failure().Reason)

func (p *fixture) timeline(t *testing.T, id uuid.UUID) (es []storage.TimelineEntry) {
	t.Helper()
	p.Must(t, p.ctx, func(tx storage.Tx) (err error) {
		es, err = tx.Timeline(p.ctx, id, 0, 100)
		return err
	})
	return es
}

// tells checks all that an upload's timeline tells of its processing.
func (p *fixture) tells(t *testing.T, id uuid.UUID, want ...string) {
	t.Helper()
	var got []string
	for _, e := range p.timeline(t, id) {
		if e.Event == storage.EventCreated || e.Event == storage.EventUploaded {
			continue
		}
		line := string(e.Event)
		for _, k := range slices.Sorted(maps.Keys(e.Detail)) {
			line += fmt.Sprintf(" %s=%v", k, e.Detail[k])
		}
		got = append(got, line)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the timeline tells\n%q, want\n%q", got, want)
	}
}

// A photo's timeline tells of its steps and how long each took, in the trace of the request that enqueued it.
func TestStepsAreTold(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	request := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{4}})
	p.ctx = trace.ContextWithRemoteSpanContext(p.ctx, request)
	id := p.receive(t, smallPhoto(), smallPhoto(), 1)
	p.run(t)
	p.await(t, allJobs, "completed")
	p.tells(t, id, "processing attempt=1", "scan attempt=1", "type attempt=1", "thumbnails attempt=1", "facts attempt=1",
		fmt.Sprintf("completed thumbnails=%d", len(thumbnailSizes)))
	before := p.timeline(t, id)[0]
	for _, e := range p.timeline(t, id) {
		isStep := e.Event == storage.EventScan || e.Event == storage.EventType || e.Event == storage.EventThumbnails || e.Event == storage.EventFacts
		if isStep != (e.DurationMS != nil) || isStep && *e.DurationMS < 1 {
			t.Errorf("%s took %v ms", e.Event, e.DurationMS)
		}
		if e.TraceID == nil || *e.TraceID != request.TraceID().String() {
			t.Errorf("%s is in the trace %v", e.Event, e.TraceID)
		}
		if e.At.Before(before.At) {
			t.Errorf("%s was before %s", e.Event, before.Event)
		}
		before = e
	}
}

// A job of the previous release, without a trace, begins one.
func TestJobWithoutATrace(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	id := p.receive(t, note, note, 1)
	p.Exec(t, `update river_job set metadata = '{"traceparent": 7}'`)
	p.run(t)
	p.await(t, allJobs, "completed")
	told := p.timeline(t, id)
	if e := told[len(told)-1]; e.TraceID == nil || told[0].TraceID != nil {
		t.Errorf("got %+v", told)
	}
}
