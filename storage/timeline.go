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
	EventPictures       Event = "pictures"        // a step of an attempt ran: pictures were drawn, and went to S3
	EventFacts          Event = "facts"           // a step of an attempt ran: what the file says of itself
	EventWaiting        Event = "waiting"         // a dependency does not answer, and the attempt is put off
	EventRetry          Event = "retry"           // an attempt failed, and another will be made
	EventCompleted      Event = "completed"       // an end
	EventFailed         Event = "failed"          // an end, with a reason
	EventCancelled      Event = "cancelled"       // an end
	EventLengthDeclared Event = "length_declared" // the client has told the size, which it did not know before
	EventConcatenated   Event = "concatenated"    // of a final upload: the bytes of its partial ones are its own
	EventJoined         Event = "joined"          // an end, of a partial upload: its bytes are another's
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
	return tx.appendIf(ctx, id, e, "true")
}

// AppendOnce appends an entry unless the upload's timeline has one with the same event and detail since it was uploaded, or
// retried, last. Work that is repeated for hours while a dependency is away says so once.
func (tx Tx) AppendOnce(ctx context.Context, id uuid.UUID, e Entry) error {
	return tx.appendIf(ctx, id, e, `not exists (
		select from timeline where tenant_id = $1 and upload_id = $2 and event = $3 and detail = $9
		and seq > coalesce((select max(seq) from timeline where tenant_id = $1 and upload_id = $2 and event = 'uploaded'), 0))`)
}

func (tx Tx) appendIf(ctx context.Context, id uuid.UUID, e Entry, condition string) error {
	detail := e.Detail
	if detail == nil {
		detail = map[string]any{}
	}
	_, err := tx.Exec(ctx, `
		insert into timeline (tenant_id, upload_id, event, at, at_offset, duration_ms, replica, trace_id, detail)
		select $1, $2, $3::text, coalesce($4, clock_timestamp()), $5::bigint, $6::int, nullif($7, ''), nullif($8, ''), $9::jsonb
		where `+condition,
		tx.Tenant, id, e.Event, OrNull(e.At), e.Offset, OrNull(milliseconds(e.Duration)), tx.replica, TraceID(ctx), detail)
	if err != nil {
		return fmt.Errorf("append to timeline: %w", err)
	}
	if e.Event.isStatus() {
		return tx.became(ctx, id, e)
	}
	return nil
}

// isStatus reports whether the event tells that the upload came to the status of that name, or was created.
func (e Event) isStatus() bool { return e == EventCreated || Status(e).Known() }

// AppendAll adds an entry to the timeline of each upload, in one statement.
func (tx Tx) AppendAll(ctx context.Context, ids []uuid.UUID, entries []Entry) error {
	var events, details []string
	var offsets []*int64
	for _, e := range entries {
		detail, err := json.Marshal(e.Detail)
		if err != nil {
			return fmt.Errorf("append to timelines: %w", err)
		}
		if e.Detail == nil {
			detail = []byte("{}")
		}
		events, details, offsets = append(events, string(e.Event)), append(details, string(detail)), append(offsets, e.Offset)
	}
	_, err := tx.Exec(ctx, `
		insert into timeline (tenant_id, upload_id, event, at_offset, replica, trace_id, detail)
		select $1, e.upload_id, e.event, e.at_offset, nullif($5, ''), nullif($6, ''), e.detail::jsonb
		from unnest($2::uuid[], $3::text[], $4::bigint[], $7::text[]) e (upload_id, event, at_offset, detail)`,
		tx.Tenant, ids, events, offsets, tx.replica, TraceID(ctx), details)
	if err != nil {
		return fmt.Errorf("append to timelines: %w", err)
	}
	for i, e := range entries {
		if !e.Event.isStatus() {
			continue
		}
		if err := tx.became(ctx, ids[i], e); err != nil {
			return err
		}
	}
	return nil
}

// became is where all that follows from a change of status begins: in the same transaction, behind the change itself.
func (tx Tx) became(ctx context.Context, id uuid.UUID, e Entry) error {
	if err := tx.announceUpload(ctx, id, e.Event); err != nil {
		return err
	}
	tx.Changed(UploadChanged, id)
	if Status(e.Event).Ended() {
		return tx.settleBatchOf(ctx, id) // last: it locks the batch
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
	Seq        int64          `db:"seq"` // orders the entries of an upload, with gaps
	At         time.Time      `db:"at"`
	Event      Event          `db:"event"`
	Offset     *int64         `db:"at_offset"`   // bytes
	DurationMS *int32         `db:"duration_ms"` // rounded up
	Replica    *string        `db:"replica"`
	TraceID    *string        `db:"trace_id"`
	Detail     map[string]any `db:"detail"`
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
