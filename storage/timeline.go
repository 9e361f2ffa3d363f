package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace"
)

// An Event is a kind of thing that happens to an upload. Clients read it, and docs/reference/timeline.md explains it to
// them: once used, a name keeps its meaning.
type Event string

// The events of an upload's life. Those that share a name with a [Status] tell that the upload came to it.
const (
	EventCreated        Event = "created"         // its rows are there and its quota is charged
	EventUploading      Event = "uploading"       // the first bytes are safe
	EventResumed        Event = "resumed"         // a request goes on from the offset; it waited that long for the lease
	EventReceived       Event = "received"        // a request that brought bytes is over
	EventUploaded       Event = "uploaded"        // the whole object is safe, its processing is enqueued
	EventProcessing     Event = "processing"      // a worker has begun an attempt
	EventScan           Event = "scan"            // a step of an attempt ran: download, virus scan and hash
	EventType           Event = "type"            // a step of an attempt ran: what the content is
	EventThumbnails     Event = "thumbnails"      // a step of an attempt ran: pictures were drawn, and went to S3
	EventFacts          Event = "facts"           // a step of an attempt ran: what the file says of itself
	EventWaiting        Event = "waiting"         // a dependency does not answer, and the attempt is put off
	EventRetry          Event = "retry"           // an attempt failed, and another will be made
	EventCompleted      Event = "completed"       // an end
	EventFailed         Event = "failed"          // an end, with a reason
	EventCancelled      Event = "cancelled"       // an end
	EventLengthDeclared Event = "length_declared" // the client has told the size, which it did not know before
	EventAssembled      Event = "assembled"       // of a final upload: the bytes of its partial ones are its own
	EventConcatenated   Event = "concatenated"    // an end, of a partial upload: its bytes are another's
	EventExpired        Event = "expired"         // an end: no byte came for too long
	EventRepaired       Event = "repaired"        // the reconciler put something right
	EventDeleted        Event = "deleted"         // it does not exist any more, unless somebody restores it in time
	EventRestored       Event = "restored"        // it is as it was before it was deleted
	EventReleased       Event = "released"        // an admin let it out of quarantine, and it is processed again
)

// An Entry is what the timeline is told of something that happened to an upload. The tenant reads all of
// it: no internal cause belongs there.
type Entry struct {
	Event    Event
	At       time.Time      // when it happened, or ended; the zero time is now
	Offset   *int64         // the upload's offset then, bytes; nil where it says nothing
	Duration time.Duration  // how long it took; 0 for what takes no time
	Detail   map[string]any // whatever else a person wants to know
}

// Append adds an entry to the upload's timeline, with the replica that this is and the trace that ctx
// belongs to. It goes in the transaction that makes the entry true.
func (tx Tx) Append(ctx context.Context, id uuid.UUID, e Entry) error {
	return tx.append(ctx, []uuid.UUID{id}, []Entry{e}, false)
}

// AppendOnce appends an entry unless the upload's timeline has one with the same event and detail since it was uploaded, or
// retried, last. Work that is repeated for hours while a dependency is away says so once.
func (tx Tx) AppendOnce(ctx context.Context, id uuid.UUID, e Entry) error {
	return tx.append(ctx, []uuid.UUID{id}, []Entry{e}, true)
}

// append adds an entry to the timeline of each upload, in one statement.
func (tx Tx) append(ctx context.Context, ids []uuid.UUID, entries []Entry, once bool) error {
	events, details := make([]string, len(entries)), make([]string, len(entries))
	times, offsets, durations := make([]*time.Time, len(entries)), make([]*int64, len(entries)), make([]*int32, len(entries))
	for i, e := range entries {
		detail := []byte("{}")
		if e.Detail != nil {
			var err error
			if detail, err = json.Marshal(e.Detail); err != nil {
				return fmt.Errorf("append to timeline: %w", err)
			}
		}
		events[i], details[i] = string(e.Event), string(detail)
		times[i], offsets[i], durations[i] = OrNull(e.At), e.Offset, OrNull(milliseconds(e.Duration))
	}
	unless := ""
	if once {
		unless = `where not exists (
			select from timeline t where t.tenant_id = $1 and t.upload_id = e.upload_id and t.event = e.event and t.detail = e.detail::jsonb
			and t.seq > coalesce((select max(seq) from timeline
				where tenant_id = $1 and upload_id = e.upload_id and event = 'uploaded'), 0))`
	}
	_, err := tx.Exec(ctx, `
		insert into timeline (tenant_id, upload_id, event, at, at_offset, duration_ms, replica, trace_id, detail)
		select $1, e.upload_id, e.event, coalesce(e.at, clock_timestamp()), e.at_offset, e.duration_ms, nullif($2, ''), nullif($3, ''),
			e.detail::jsonb
		from unnest($4::uuid[], $5::text[], $6::timestamptz[], $7::bigint[], $8::int[], $9::text[])
			e (upload_id, event, at, at_offset, duration_ms, detail) `+unless,
		tx.Tenant, tx.replica, TraceID(ctx), ids, events, times, offsets, durations, details)
	if err != nil {
		return fmt.Errorf("append to timeline: %w", err)
	}
	return nil
}

// milliseconds rounds up: what took time never took none.
func milliseconds(d time.Duration) int32 {
	return int32(min((d+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

// TraceID returns the id of the trace that ctx belongs to (W3C Trace Context, section 3.2.2.3), or "".
func TraceID(ctx context.Context) string {
	if id := trace.SpanContextFromContext(ctx).TraceID(); id.IsValid() {
		return id.String()
	}
	return ""
}

// A TimelineEntry is an entry as it was kept.
type TimelineEntry struct {
	Seq        int64          `db:"seq" json:"-"` // orders the entries of an upload, with gaps
	At         time.Time      `db:"at" json:"at"`
	Event      Event          `db:"event" json:"event"`
	Offset     *int64         `db:"at_offset" json:"offset"`        // bytes
	DurationMS *int32         `db:"duration_ms" json:"duration_ms"` // rounded up
	Replica    *string        `db:"replica" json:"replica"`
	TraceID    *string        `db:"trace_id" json:"trace_id"`
	Detail     map[string]any `db:"detail" json:"detail"`
}

// Timeline returns, in order, at most limit entries of the upload's that follow the one numbered after; 0
// asks from the first. An upload that the tenant does not have is [ErrNotFound].
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
	if err != nil {
		return nil, fmt.Errorf("read timeline: %w", err)
	}
	entries, err := pgx.CollectRows(rows, pgx.RowToStructByName[TimelineEntry])
	if err != nil {
		return nil, fmt.Errorf("read timeline: %w", err)
	}
	return entries, nil
}
