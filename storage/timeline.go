package storage

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
)

// An Event names an entry of the timeline. docs/reference/timeline.md explains it to clients: a name that was used once keeps
// its meaning.
type Event string

// The events of uploads. The table of moves says which of them belong to moves.
const (
	EventCreated        Event = "created"         // its rows exist and its quota is charged
	EventUploading      Event = "uploading"       // the first bytes are safe
	EventResumed        Event = "resumed"         // a request continues at the offset; the duration is its wait for the lease
	EventReceived       Event = "received"        // a request that sent bytes has ended
	EventUploaded       Event = "uploaded"        // the whole object is safe, its processing is enqueued
	EventProcessing     Event = "processing"      // a worker has begun an attempt
	EventScan           Event = "scan"            // a step of an attempt ran: download, virus scan and hash
	EventType           Event = "type"            // a step of an attempt ran: detecting the type
	EventThumbnails     Event = "thumbnails"      // a step of an attempt ran: drawing and storing thumbnails
	EventFacts          Event = "facts"           // a step of an attempt ran: reading facts
	EventWaiting        Event = "waiting"         // a dependency does not answer; the attempt is postponed
	EventRetry          Event = "retry"           // an attempt failed, and another will be made
	EventCompleted      Event = "completed"       // an end
	EventFailed         Event = "failed"          // an end, with a reason
	EventCancelled      Event = "cancelled"       // an end
	EventLengthDeclared Event = "length_declared" // the client has declared the size
	EventAssembled      Event = "assembled"       // of a final upload: it has the bytes of its partial ones
	EventConcatenated   Event = "concatenated"    // an end, of a partial upload: its final upload has its bytes
	EventExpired        Event = "expired"         // an end: no byte arrived for too long
	EventRepaired       Event = "repaired"        // the reconciler repaired something
	EventDeleted        Event = "deleted"         // it is hidden, until it is restored or purged
	EventRestored       Event = "restored"        // it is no longer deleted
	EventReleased       Event = "released"        // an admin released it from quarantine
)

// An Entry is a new entry of the timeline. The tenant reads all of it, so it must have no internal cause of an error.
type Entry struct {
	Event    Event
	At       time.Time      // the end of the event; the zero time is now
	Offset   *int64         // of the upload at that time, bytes; nil where it does not matter
	Duration time.Duration  // 0 for an event without one
	Detail   map[string]any // depends on the event
	// Once adds no entry if the timeline has one with the same event and detail after the last "uploaded". Work that is
	// repeated for hours while a dependency is down has one entry.
	Once bool
}

// Append adds an entry to the upload's timeline, with this replica and the trace of ctx. It belongs in the transaction that
// makes the entry true.
func (tx Tx) Append(ctx context.Context, id uuid.UUID, e Entry) {
	tx.append(ctx, []uuid.UUID{id}, []Entry{e})
}

// append adds an entry to the timeline of each upload, in one statement.
func (tx Tx) append(ctx context.Context, ids []uuid.UUID, entries []Entry) {
	Later(tx, "append to timeline", `
		insert into timeline (tenant_id, upload_id, event, at, at_offset, duration_ms, replica, trace_id, detail)
		select $1, e.upload_id, e.event, coalesce(e.at, clock_timestamp()), e.at_offset, e.duration_ms, nullif($2, ''), nullif($3, ''),
			e.detail
		from unnest($4::uuid[], $5::text[], $6::timestamptz[], $7::bigint[], $8::int[], $9::jsonb[], $10::bool[])
			e (upload_id, event, at, at_offset, duration_ms, detail, once)
		where not e.once or not exists (
			select from timeline t where t.tenant_id = $1 and t.upload_id = e.upload_id and t.event = e.event and t.detail = e.detail
			and t.seq > coalesce((select max(seq) from timeline
				where tenant_id = $1 and upload_id = e.upload_id and event = 'uploaded'), 0))`,
		tx.Tenant, tx.replica, TraceID(ctx), ids,
		column(entries, func(e Entry) string { return string(e.Event) }),
		column(entries, func(e Entry) *time.Time { return OrNull(e.At) }),
		column(entries, func(e Entry) *int64 { return e.Offset }),
		column(entries, func(e Entry) *int32 { return OrNull(milliseconds(e.Duration)) }),
		column(entries, func(e Entry) map[string]any { return orEmpty(e.Detail) }),
		column(entries, func(e Entry) bool { return e.Once }))
}

// orEmpty is a detail as Postgres keeps it, an object.
func orEmpty(detail map[string]any) map[string]any {
	if detail == nil {
		return map[string]any{}
	}
	return detail
}

// milliseconds rounds up, so that no duration becomes 0.
func milliseconds(d time.Duration) int32 {
	return int32(min((d+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

// TraceID returns the id of the trace of ctx (W3C Trace Context, section 3.2.2.3), or "".
func TraceID(ctx context.Context) string {
	if id := trace.SpanContextFromContext(ctx).TraceID(); id.IsValid() {
		return id.String()
	}
	return ""
}

// A TimelineEntry is a stored entry.
type TimelineEntry struct {
	Seq        int64          `db:"seq" json:"-"` // ascending in an upload, with gaps
	At         time.Time      `db:"at" json:"at"`
	Event      Event          `db:"event" json:"event"`
	Offset     *int64         `db:"at_offset" json:"offset"`        // bytes
	DurationMS *int32         `db:"duration_ms" json:"duration_ms"` // rounded up
	Replica    *string        `db:"replica" json:"replica"`
	TraceID    *string        `db:"trace_id" json:"trace_id"`
	Detail     map[string]any `db:"detail" json:"detail"`
}

// Timeline returns, in order, at most limit entries of the upload with a Seq above after, or [ErrNotFound] if the tenant does
// not have the upload.
func (tx Tx) Timeline(ctx context.Context, id uuid.UUID, after int64, limit int) ([]TimelineEntry, error) {
	var exists bool
	err := tx.QueryRow(ctx, `select exists (select from uploads where tenant_id = $1 and id = $2)`, tx.Tenant, id).Scan(&exists)
	if err != nil {
		return nil, fmt.Errorf("look for upload: %w", err)
	}
	if !exists {
		return nil, ErrNotFound
	}
	rows, err := tx.Query(ctx, `
		select seq, at, event, at_offset, duration_ms, replica, trace_id, detail from timeline
		where tenant_id = $1 and upload_id = $2 and seq > $3 order by seq limit $4`, tx.Tenant, id, after, limit)
	return Collect[TimelineEntry]("read timeline", rows, err)
}
