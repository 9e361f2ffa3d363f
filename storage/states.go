package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// Ended reports whether s is an end: only a retry, a rescan or a loss changes an upload in such a state.
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
	MoveReject      Move = "reject"      // the bytes that arrived are wrong or gone, and are not kept
	MoveCancel      Move = "cancel"      // its client takes it back, or its batch is cancelled
	MoveExpire      Move = "expire"      // no byte arrived for too long
	MoveConcatenate Move = "concatenate" // of a partial upload: its final upload has its bytes
	MoveRetry       Move = "retry"       // somebody has a failed upload processed again
)

// A rule says from which states to which one a move leads, and what follows in the same transaction. Every move is written
// to the timeline and notified to listeners (live changes).
type rule struct {
	from     []Status
	to       Status
	event    Event       // the entry in the timeline
	announce string      // the announcement; "" for none. Partial uploads are never announced
	batch    batchEffect // on the upload's batch
	quota    quotaEffect
	discard  bool // its tail is deleted
	notPart  bool // a partial upload stays in its state
	notTaken bool // a partial upload that a final one has taken cannot make the move
}

type batchEffect string

const (
	opens   batchEffect = "opens"   // an ended batch is open again, unless it was cancelled
	settles batchEffect = "settles" // the batch ends with its last upload
)

type quotaEffect string

const (
	charges quotaEffect = "charged"                            // with the declared size, or the largest allowed one
	adjusts quotaEffect = "adjusted to the stored size"        // the rest is refunded
	refunds quotaEffect = "refunded"                           // completely: S3 has nothing of it
	keeps   quotaEffect = "refunded once S3 has nothing of it" // in this transaction, or by [Release]
)

var receiving = []Status{Pending, Uploading}

// moves are all moves. A deleted upload makes none.
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
		event: EventFailed, announce: AnnounceUploadFailed, batch: settles, quota: keeps, discard: true,
	},
	MoveCancel: {
		from: receiving, to: Cancelled,
		event: EventCancelled, announce: AnnounceUploadCancelled, batch: settles, quota: keeps, discard: true, notTaken: true,
	},
	MoveExpire: {
		from: receiving, to: Expired,
		event: EventExpired, announce: AnnounceUploadExpired, batch: settles, quota: keeps, discard: true, notTaken: true,
	},
	MoveConcatenate: {from: []Status{Uploading}, to: Concatenated, event: EventConcatenated, batch: settles, quota: keeps},
	MoveRetry:       {from: []Status{Failed}, to: Uploaded, event: EventUploaded, batch: opens},
}

// from is the condition that upload u can make the move.
func (m Move) from() string {
	var names []string
	for _, s := range moves[m].from {
		names = append(names, "'"+string(s)+"'")
	}
	sql := `u.status in (` + strings.Join(names, ", ") + `) and u.deleted_at is null`
	if moves[m].notTaken {
		sql += ` and u.final_id is null`
	}
	return sql
}

// to are the assignments to upload u that make the move.
func (m Move) to() string {
	status := "'" + string(moves[m].to) + "'"
	if moves[m].notPart {
		status = "case u.kind when 'partial' then u.status else " + status + " end"
	}
	return "status = " + status + ", updated_at = now()"
}

// A Transition is a move with its particulars. Conditions and assignments are SQL for an upload u, in which $1 is the tenant
// and $2 the argument of [Tx.Move] or [Tx.MoveAll].
type Transition struct {
	Move   Move
	If     string         // a condition beside that of the move; "" for none
	Set    string         // more assignments, such as "sha256 = $3"; "" for none
	Args   []any          // of If and Set, from $3 on
	Detail map[string]any // of the entry in the timeline
	Once   bool           // see [Entry.Once]
	// Also makes more changes, after that of the uploads and before their batch is locked, which is the last lock of a
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

// A Moved is an upload that has made a move.
type Moved struct {
	ID      uuid.UUID `db:"id"`
	Charged int64     `db:"charged_bytes"` // before
	Remains bool      `db:"remains"`       // it has ended and is still charged, because S3 may have bytes of it: see [Release]
}

// Move moves one upload, and does all that follows. If the upload cannot make the move, Move changes nothing and returns
// [ErrWrongStatus].
func (tx Tx) Move(ctx context.Context, id uuid.UUID, t Transition) error {
	moved, err := tx.MoveAll(ctx, "u.id = $2", id, t)
	if err == nil && len(moved) == 0 {
		err = ErrWrongStatus
	}
	return err
}

// MoveAll moves those of the tenant's uploads that the condition which selects by $2 and that can make the move, in the order
// of their ids. It returns them.
func (tx Tx) MoveAll(ctx context.Context, which string, arg any, t Transition) ([]Moved, error) {
	r := moves[t.Move]
	set := t.Move.to()
	switch r.quota {
	case refunds, keeps:
		if err := tx.lockToEnd(ctx, which, arg); err != nil {
			return nil, err
		}
		set += `, remains = old.remains, charged_bytes = case when old.remains then u.charged_bytes else 0 end`
	}
	remains := "false"
	if r.quota == keeps {
		remains = mayRemain
	}
	if t.Set != "" {
		set += ", " + t.Set
	}
	if t.If != "" {
		which += " and " + t.If
	}
	// RETURNING has only the new charge, so the row is locked and the old charge read first.
	rows, err := tx.Query(ctx, `
		with old as (
			select u.id, u.charged_bytes, `+remains+` remains from uploads u
			where u.tenant_id = $1 and `+which+` and `+t.Move.from()+` order by u.id for no key update
		)
		update uploads u set `+set+` from old where u.tenant_id = $1 and u.id = old.id
		returning u.id, old.charged_bytes, old.remains`, append([]any{tx.Tenant, arg}, t.Args...)...)
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
		entries[i] = Entry{Detail: t.Detail, Once: t.Once}
	}
	ids := idsOf(moved)
	tx.follow(ctx, t.Move, ids, entries)
	switch r.batch { // last: it locks batches
	case settles:
		err = tx.settleBatchesOf(ctx, ids)
	case opens:
		err = tx.openBatchesOf(ctx, ids)
	}
	return moved, err
}

func idsOf(moved []Moved) []uuid.UUID {
	return column(moved, func(m Moved) uuid.UUID { return m.ID })
}

// mayRemain is the condition that S3 may have bytes of upload u: its rows name some, or somebody holds its lease or died with
// it, and may have stored some that no row names yet.
const mayRemain = `(
	exists (select from contents c where c.tenant_id = u.tenant_id and c.upload_id = u.id and c.object_key is not null)
	or exists (select from upload_leases l where l.tenant_id = u.tenant_id and l.upload_id = u.id))`

// lockToEnd locks the tenant, and then its uploads, before their charge may change. FOR UPDATE also keeps others from taking a
// first lease: its row would refer to the upload. The statement after it sees all leases that were taken before.
func (tx Tx) lockToEnd(ctx context.Context, which string, arg any) error {
	var both pgx.Batch
	both.Queue(lockTenant, tx.Tenant)
	both.Queue(`select from uploads u where u.tenant_id = $1 and `+which+` order by u.id for update`, tx.Tenant, arg)
	if err := tx.SendBatch(ctx, &both).Close(); err != nil {
		return fmt.Errorf("lock uploads to end them: %w", err)
	}
	return nil
}

// release gives up the tails of uploads, and refunds those of which S3 has nothing.
func (tx Tx) release(ctx context.Context, r rule, moved []Moved) error {
	if r.discard {
		tx.dropTails(idsOf(moved))
	}
	if r.quota != refunds && r.quota != keeps {
		return nil
	}
	return tx.refundAll(ctx, slices.DeleteFunc(slices.Clone(moved), func(m Moved) bool { return m.Remains }))
}

// follow writes timeline entries and announcements for a move and notifies listeners. The rows of the uploads and the quota
// have been changed before.
func (tx Tx) follow(ctx context.Context, m Move, ids []uuid.UUID, entries []Entry) {
	r := moves[m]
	for i := range entries {
		entries[i].Event = r.event
	}
	tx.append(ctx, ids, entries)
	if r.announce != "" {
		tx.announceUploads(ctx, ids, r.announce)
	}
	tx.Changed(UploadChanged, ids...)
}

// ErrSendAgain says that nothing of a failed or expired upload is left that could be processed again.
var ErrSendAgain = errors.New("upload must be sent again")

// LockFailed returns the uploads of a batch that failed or expired and were not sent again. It locks the tenant and them.
func LockFailed(ctx context.Context, tx Tx, batch uuid.UUID) ([]Upload, error) {
	return lockFailed(ctx, tx, `u.batch_id = $2`, batch)
}

// LockFailedUpload returns the upload if it failed or expired and was not sent again, and locks the tenant and it. Any other
// upload is [ErrWrongStatus], and one that the tenant does not have [ErrNotFound].
func LockFailedUpload(ctx context.Context, tx Tx, id uuid.UUID) (Upload, error) {
	us, err := lockFailed(ctx, tx, `u.id = $2`, id)
	if err != nil {
		return Upload{}, err
	}
	if len(us) == 1 {
		return us[0], nil
	}
	if _, err := tx.Upload(ctx, id); err != nil {
		return Upload{}, err
	}
	return Upload{}, ErrWrongStatus
}

func lockFailed(ctx context.Context, tx Tx, which string, id uuid.UUID) ([]Upload, error) {
	if err := tx.LockTenant(ctx); err != nil { // so that no upload is created with one of their client ids meanwhile
		return nil, err
	}
	return tx.FindUploads(ctx, `
		where u.tenant_id = $1 and `+which+` and u.status in ('failed', 'expired') and u.replaced_by is null
		order by u.id for no key update of u`, id)
}

// Retry makes [MoveRetry] with failed uploads that [LockFailed] has locked and that have objects. The caller enqueues their
// processing. It returns the uploads that it moved; the others were sent again meanwhile under the same client ids.
func (tx Tx) Retry(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	moved, err := tx.MoveAll(ctx, "u.id = any($2)", ids, Transition{
		Move: MoveRetry, Set: "failure_reason = null, failure_detail = null", Detail: map[string]any{"retry": true},
		If: `u.object_key is not null and not u.remains and not exists (
			select from uploads o where o.tenant_id = $1 and o.user_id = u.user_id and o.client_id = u.client_id
			and o.status not in ('failed', 'expired', 'cancelled', 'concatenated') and o.deleted_at is null)`,
	})
	return idsOf(moved), err
}
