package storage

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A Status is a state in the life of an upload, in the client's own words:
// pending → uploading → uploaded → processing → completed, or one of the other ends.
type Status string

// The states of an upload.
const (
	Pending      Status = "pending"      // created, no byte received
	Uploading    Status = "uploading"    // some bytes are safe
	Uploaded     Status = "uploaded"     // the whole object is safe, its processing is enqueued
	Processing   Status = "processing"   // a worker has begun
	Completed    Status = "completed"    // scanned and clean; its thumbnails and facts exist
	Failed       Status = "failed"       // an end, with a reason
	Expired      Status = "expired"      // an end: never finished in time
	Cancelled    Status = "cancelled"    // an end: the client took it back
	Concatenated Status = "concatenated" // an end, of a partial upload: its bytes are in the final one
)

// Known reports whether s is one of the states.
func (s Status) Known() bool { return s.Receiving() || s == Uploaded || s == Processing || s.Ended() }

// Ended reports whether nothing more happens to an upload in this state by itself.
func (s Status) Ended() bool {
	switch s {
	case Completed, Failed, Expired, Cancelled, Concatenated:
		return true
	}
	return false
}

// Receiving reports whether an upload in this state still takes bytes.
func (s Status) Receiving() bool { return s == Pending || s == Uploading }

// A Move takes an upload from one state to another.
type Move string

// The moves. docs/reference/states.md shows them to readers.
const (
	MoveCreate      Move = "create"      // admission accepts it
	MoveBegin       Move = "begin"       // its first bytes are safe
	MoveFinish      Move = "finish"      // its whole object is safe; a partial upload stays where it is
	MoveProcess     Move = "process"     // a worker begins an attempt
	MoveComplete    Move = "complete"    // every step of processing is done
	MoveFail        Move = "fail"        // processing cannot or may not go on
	MoveQuarantine  Move = "quarantine"  // the scanner found something, in processing or in a rescan
	MoveLose        Move = "lose"        // the reconciler found no object in S3
	MoveReject      Move = "reject"      // what has arrived is wrong or gone, and is not kept
	MoveCancel      Move = "cancel"      // its client, or who manages its batch, takes it back
	MoveExpire      Move = "expire"      // no byte came for too long
	MoveConcatenate Move = "concatenate" // of a partial upload: its final upload has its bytes
	MoveRetry       Move = "retry"       // somebody has a failed upload processed again
)

// A rule says from where a move leads where to, and what follows in the same transaction. Every move is told to the
// timeline and to listeners (live changes).
type rule struct {
	from     []Status
	to       Status
	event    Event       // the entry in the timeline
	announce string      // the announcement; "" for none. Partial uploads are never announced
	batch    batchEffect // on the batch that the upload is in
	quota    quotaEffect
	discard  bool // its tail is deleted, and the partial uploads that it had taken are free again
	notPart  bool // a partial upload stays in its state
}

type batchEffect string

const (
	opens   batchEffect = "opens"   // a batch that had ended has not, unless it was cancelled
	settles batchEffect = "settles" // a batch ends if this was the last upload that had not
)

type quotaEffect string

const (
	charges   quotaEffect = "charged"                     // with the declared size, or the largest allowed one
	adjusts   quotaEffect = "adjusted to the stored size" // what was charged too much is refunded
	refunds   quotaEffect = "refunded"                    // all that was charged
	handsOver quotaEffect = "charged to the final upload" // instead of to this one
)

var receiving = []Status{Pending, Uploading}

// moves is the life of an upload: there is no other way from one state to another, but that a deleted upload is in none.
var moves = map[Move]rule{
	MoveCreate:   {to: Pending, event: EventCreated, batch: opens, quota: charges},
	MoveBegin:    {from: []Status{Pending}, to: Uploading, event: EventUploading},
	MoveFinish:   {from: receiving, to: Uploaded, event: EventUploaded, quota: adjusts, notPart: true},
	MoveProcess:  {from: []Status{Uploaded, Processing}, to: Processing, event: EventProcessing},
	MoveComplete: {from: []Status{Processing}, to: Completed, event: EventCompleted, announce: AnnounceUploadCompleted, batch: settles},

	MoveFail: {
		from: []Status{Pending, Uploading, Uploaded, Processing}, to: Failed,
		event: EventFailed, announce: AnnounceUploadFailed, batch: settles,
	},
	MoveQuarantine: {
		from: []Status{Processing, Completed}, to: Failed,
		event: EventFailed, announce: AnnounceUploadFailed, batch: settles,
	},
	MoveLose: {
		from: []Status{Uploaded, Processing, Completed}, to: Failed,
		event: EventFailed, announce: AnnounceUploadFailed, batch: settles, quota: refunds,
	},
	MoveReject: {
		from: receiving, to: Failed,
		event: EventFailed, announce: AnnounceUploadFailed, batch: settles, quota: refunds, discard: true,
	},
	MoveCancel: {
		from: receiving, to: Cancelled,
		event: EventCancelled, announce: AnnounceUploadCancelled, batch: settles, quota: refunds, discard: true,
	},
	MoveExpire: {
		from: receiving, to: Expired,
		event: EventExpired, announce: AnnounceUploadExpired, batch: settles, quota: refunds, discard: true,
	},
	MoveConcatenate: {from: []Status{Uploading}, to: Concatenated, event: EventConcatenated, batch: settles, quota: handsOver},
	MoveRetry:       {from: []Status{Failed}, to: Uploaded, event: EventUploaded, batch: opens},
}

// from is the condition that upload u is where the move begins.
func (m Move) from() string {
	var names []string
	for _, s := range moves[m].from {
		names = append(names, "'"+string(s)+"'")
	}
	return `u.status in (` + strings.Join(names, ", ") + `) and u.deleted_at is null`
}

// to are the assignments to an upload u that take it to where the move ends.
func (m Move) to() string {
	status := "'" + string(moves[m].to) + "'"
	if moves[m].notPart {
		status = "case u.kind when 'partial' then u.status else " + status + " end"
	}
	return "status = " + status + ", updated_at = now()"
}

// A Transition is a move and what belongs to it. Conditions and assignments are SQL for an upload u, in which $1 is the tenant
// and $2 what [Tx.Move] or [Tx.MoveAll] was called with.
type Transition struct {
	Move   Move
	If     string         // another condition than that of the move; "" for none
	Set    string         // more assignments, such as "sha256 = $3"; "" for none
	Args   []any          // of If and Set, from $3 on
	Detail map[string]any // of the entry in the timeline
	Once   bool           // no entry if the timeline has the same since the upload was uploaded last, see [Tx.AppendOnce]
	// Also makes more changes, behind the upload's own and before its batch is locked, which is the last lock of a
	// transaction. Nil for none.
	Also func(moved []Moved) error
}

// Because is a move to [Failed].
func (m Move) Because(f Failure) Transition {
	return Transition{
		Move: m, Set: "failure_reason = $3, failure_detail = $4", Args: []any{f.Reason, f.Detail},
		Detail: map[string]any{"reason": f.Reason, "detail": f.Detail},
	}
}

// A Moved is an upload that a move was made with.
type Moved struct {
	ID      uuid.UUID `db:"id"`
	Charged int64     `db:"charged_bytes"` // before
}

// Move makes the move with one upload, and all that follows from it. If the upload is not where the move begins, it is
// [ErrWrongStatus], and nothing has changed.
func (tx Tx) Move(ctx context.Context, id uuid.UUID, t Transition) error {
	moved, err := tx.MoveAll(ctx, "u.id = $2", id, t)
	if err == nil && len(moved) == 0 {
		err = ErrWrongStatus
	}
	return err
}

// MoveAll makes the move with those of the tenant's uploads that which selects by $2 and that are where it begins, in the
// order of their ids. It returns them.
func (tx Tx) MoveAll(ctx context.Context, which string, arg any, t Transition) ([]Moved, error) {
	r := moves[t.Move]
	lock, set := "for no key update", t.Move.to()
	if r.quota == refunds {
		// The tenant is locked before its uploads, everywhere. No other transaction may refer to an upload that ends here:
		// it could be taking a lease.
		if err := tx.LockTenant(ctx); err != nil {
			return nil, err
		}
		lock = "for update"
	}
	if r.quota == refunds || r.quota == handsOver {
		set += ", charged_bytes = 0"
	}
	if t.Set != "" {
		set += ", " + t.Set
	}
	if t.If != "" {
		which += " and " + t.If
	}
	// RETURNING would tell the new charge, so the old one is read, and its row locked, first.
	rows, err := tx.Query(ctx, `
		with old as (
			select u.id, u.charged_bytes from uploads u
			where u.tenant_id = $1 and `+which+` and `+t.Move.from()+` order by u.id `+lock+`
		)
		update uploads u set `+set+` from old where u.tenant_id = $1 and u.id = old.id
		returning u.id, old.charged_bytes`, append([]any{tx.Tenant, arg}, t.Args...)...)
	moved, err := Collect[Moved](string(t.Move)+" uploads", rows, err)
	if err != nil || len(moved) == 0 {
		return nil, err
	}
	if err := tx.release(ctx, r, moved); err != nil {
		return nil, err
	}
	if t.Also != nil {
		if err := t.Also(moved); err != nil {
			return nil, err
		}
	}
	entries := make([]Entry, len(moved))
	for i := range entries {
		entries[i] = Entry{Detail: t.Detail}
	}
	ids := idsOf(moved)
	if err := tx.follow(ctx, t.Move, ids, entries, t.Once); err != nil {
		return nil, err
	}
	switch r.batch { // last: it locks batches
	case settles:
		err = tx.settleBatchesOf(ctx, ids)
	case opens:
		err = tx.openBatchesOf(ctx, ids)
	}
	return moved, err
}

func idsOf(moved []Moved) []uuid.UUID {
	ids := make([]uuid.UUID, len(moved))
	for i, m := range moved {
		ids[i] = m.ID
	}
	return ids
}

// release gives up what uploads had, in one round trip.
func (tx Tx) release(ctx context.Context, r rule, moved []Moved) error {
	var all pgx.Batch
	if r.discard {
		all.Queue(`delete from tails where tenant_id = $1 and upload_id = any($2)`, tx.Tenant, idsOf(moved))
		all.Queue(`
			update uploads p set final_id = null, updated_at = now() from uploads f
			where f.tenant_id = $1 and f.id = any($2) and p.tenant_id = $1 and p.id = any(f.partials) and p.final_id = f.id`,
			tx.Tenant, idsOf(moved))
	}
	if r.quota == refunds {
		var sum int64
		for _, m := range moved {
			sum += m.Charged
		}
		all.Queue(`update tenants set charged_bytes = charged_bytes - $2 where id = $1`, tx.Tenant, sum)
	}
	if all.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, &all).Close(); err != nil {
		return fmt.Errorf("release what uploads had: %w", err)
	}
	return nil
}

// follow tells others of a move: the timeline, which gets an entry for each upload, the receivers of announcements, and
// listeners. The rows of the uploads and the quota have been changed by then.
func (tx Tx) follow(ctx context.Context, m Move, ids []uuid.UUID, entries []Entry, once bool) error {
	r := moves[m]
	for i := range entries {
		entries[i].Event = r.event
	}
	if err := tx.append(ctx, ids, entries, once); err != nil {
		return err
	}
	if r.announce != "" {
		if err := tx.announceUploads(ctx, ids, r.announce); err != nil {
			return err
		}
	}
	tx.Changed(UploadChanged, ids...)
	return nil
}
