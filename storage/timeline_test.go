package storage_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

func (d *database) timeline(t *testing.T, ctx context.Context, id uuid.UUID, after int64, limit int) (es []storage.TimelineEntry) {
	t.Helper()
	d.Must(t, ctx, func(tx storage.Tx) (err error) {
		es, err = tx.Timeline(ctx, id, after, limit)
		return err
	})
	return es
}

// Append fills in the replica and the trace by itself, and keeps what it is told in units a client reads.
func TestAppend(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id := d.Create(t, ctx, 100)
	named, err := storage.Open(ctx, storage.Config{URL: telemetry.Secret(d.URL("tramo_api")), Replica: "pod-7"})
	stack.Must(t, err)
	t.Cleanup(named.Close)
	traceID := trace.TraceID{15: 0xab}
	traced := trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: trace.SpanID{1}}))
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	stack.Must(t, named.InTenant(traced, func(tx storage.Tx) error {
		tx.Append(traced, id, storage.Entry{
			Event: "dropped", At: at, Offset: new(int64(42)), Duration: 1001 * time.Microsecond, Detail: map[string]any{"n": 1},
		})
		return nil
	}))
	d.Must(t, ctx, func(tx storage.Tx) error {
		tx.Append(ctx, id, storage.Entry{Event: "bare"})
		return nil
	})

	got := d.timeline(t, ctx, id, 0, 10)
	if len(got) != 3 || got[0].Event != storage.EventCreated || *got[0].Offset != 0 {
		t.Fatalf("got %+v", got)
	}
	e := got[1]
	if e.Event != "dropped" || !e.At.Equal(at) || *e.Offset != 42 || *e.DurationMS != 2 || *e.Replica != "pod-7" ||
		*e.TraceID != traceID.String() || e.Detail["n"] != 1.0 {
		t.Errorf("got %+v", e)
	}
	e = got[2]
	if time.Since(e.At).Abs() > time.Hour || e.Offset != nil || e.DurationMS != nil || e.Replica != nil || e.TraceID != nil || len(e.Detail) != 0 {
		t.Errorf("got %+v", e)
	}
}

// An entry of the same event and detail is there once; another detail, or another upload, is another entry.
func TestAppendOnce(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id, other := d.Create(t, ctx, 100), d.Create(t, ctx, 100)
	for _, to := range []uuid.UUID{id, id, other} {
		for _, attempt := range []int{1, 2, 1} {
			d.Must(t, ctx, func(tx storage.Tx) error {
				tx.Append(ctx, to, storage.Entry{Event: "waiting", Detail: map[string]any{"attempt": attempt}, Once: true})
				return nil
			})
		}
	}
	for _, of := range []uuid.UUID{id, other} {
		if got := d.timeline(t, ctx, of, 0, 10); len(got) != 3 {
			t.Errorf("got %+v", got)
		}
	}
}

// Page after page gives each entry once, in order, and another tenant none.
func TestTimelinePages(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id, other := d.Create(t, ctx, 100), d.Create(t, ctx, 100)
	for n := range 6 {
		for _, to := range []uuid.UUID{id, other} {
			d.Must(t, ctx, func(tx storage.Tx) error {
				tx.Append(ctx, to, storage.Entry{Event: "received", Offset: new(int64(n + 1))})
				return nil
			})
		}
	}
	var after int64
	var offsets []int64
	for range 3 {
		page := d.timeline(t, ctx, id, after, 3)
		for _, e := range page {
			offsets = append(offsets, *e.Offset)
			after = e.Seq
		}
	}
	if len(offsets) != 7 {
		t.Fatalf("got %v", offsets)
	}
	for i, o := range offsets {
		stack.Want(t, o, int64(i), "offset of an event, of %v", offsets)
	}
	stranger := d.NewTenant(t, 1000)
	stack.WantErr(t, d.API.InTenant(stranger, func(tx storage.Tx) error {
		_, err := tx.Timeline(stranger, id, 0, 10)
		return err
	}), storage.ErrNotFound)
}

// Every event that this package names is explained to clients in docs/reference/timeline.md.
func TestEventsAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/reference/timeline.md")
	stack.Must(t, err)
	source, err := os.ReadFile("timeline.go")
	stack.Must(t, err)
	names := regexp.MustCompile(`Event\s+= "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(names) < 10 {
		t.Fatalf("found only %v", names)
	}
	for _, name := range names {
		if !strings.Contains(string(page), "`"+name[1]+"`") {
			t.Errorf("docs/reference/timeline.md does not explain %s", name[1])
		}
	}
}
