// Package deadletter keeps what is known of uploads whose processing was given up, until an admin decides what is done about
// them. It does not know the steps of processing.
package deadletter

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
)

// A State is what has become of a dead letter.
type State string

// The states of dead letters.
const (
	Open      State = "open"      // its upload failed, and waits for a decision
	Retried   State = "retried"   // its upload was processed again since
	Discarded State = "discarded" // somebody decided that nothing is to be done
	Settled   State = "settled"   // nothing can be done any more: the file was sent again, say
)

// Known reports whether s is one.
func (s State) Known() bool {
	return slices.Contains([]State{Open, Retried, Discarded, Settled}, s)
}

// A Letter tells of a job that was given up, and what has become of its upload.
type Letter struct {
	Tenant      uuid.UUID  `db:"tenant_id" json:"-"`
	ID          uuid.UUID  `db:"id" json:"id"`
	Upload      uuid.UUID  `db:"upload_id" json:"upload_id"`
	State       State      `db:"state" json:"state"`
	Kind        string     `db:"kind" json:"kind"`
	Step        string     `db:"step" json:"step"`
	Error       string     `db:"error" json:"error"`
	Attempts    int        `db:"attempts" json:"attempts"`
	Job         int64      `db:"job_id" json:"job_id"`
	TraceID     *string    `db:"trace_id" json:"trace_id"`
	FailedAt    time.Time  `db:"failed_at" json:"failed_at"`
	RetriedAt   *time.Time `db:"retried_at" json:"retried_at"`
	RetriedBy   *string    `db:"retried_by" json:"retried_by"`
	DiscardedAt *time.Time `db:"discarded_at" json:"discarded_at"`
	DiscardedBy *string    `db:"discarded_by" json:"discarded_by"`
}

// A Cause is why a job was given up.
type Cause struct {
	Job      int64
	Kind     string
	Step     string // at which its last attempt failed
	Error    string // internal: no tenant reads it. Longer ones are cut
	Attempts int
}

// maxError is the most that a letter keeps of an error, in bytes.
const maxError = 8000

// Failure is why an upload fails whose job was given up.
func Failure() storage.Failure {
	return storage.Failure{
		Reason: storage.ReasonDeadLettered,
		Detail: "The file is safe, but it could not be processed. Your administrator can find out why.",
	}
}

// Write fails the upload and writes its dead letter, in the trace of ctx. Whoever calls it has made sure in the same transaction
// that no attempt of the job runs, or that it is its own. An upload that has ended is [storage.ErrWrongStatus].
func Write(ctx context.Context, tx storage.Tx, upload uuid.UUID, c Cause) error {
	if err := tx.Move(ctx, upload, storage.MoveFail.Because(Failure())); err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	_, err = tx.Exec(ctx, `
		insert into dead_letters (tenant_id, id, upload_id, job_id, kind, step, error, attempts, trace_id)
		values ($1, $2, $3, $4, $5, $6, $7, $8, nullif($9, ''))`,
		tx.Tenant, id, upload, c.Job, c.Kind, c.Step, clip(c.Error, maxError), c.Attempts, storage.TraceID(ctx))
	if err != nil {
		return fmt.Errorf("write dead letter: %w", err)
	}
	return nil
}

// clip makes s text that Postgres takes (UTF-8, no NUL) of at most so many bytes.
func clip(s string, most int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= most {
		return s
	}
	const mark = "…"
	end := most - len(mark)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}

// MarkRetried records that uploads are processed again. Whoever moves an upload from failed to uploaded calls it.
func MarkRetried(ctx context.Context, tx storage.Tx, uploads ...uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		update dead_letters set retried_at = now(), retried_by = $3
		where tenant_id = $1 and upload_id = any($2) and retried_at is null`, tx.Tenant, uploads, tx.Who.User)
	if err != nil {
		return fmt.Errorf("mark dead letters: %w", err)
	}
	return nil
}

// stateOf is the state of a letter d, by what has become of its upload u. It is settled when a retry would do nothing.
const stateOf = `case
	when d.retried_at is not null then 'retried'
	when d.discarded_at is not null then 'discarded'
	when u.status = 'failed' and u.failure_reason = 'dead_lettered' and u.replaced_by is null and not exists (
		select from uploads o where o.tenant_id = u.tenant_id and o.user_id = u.user_id and o.client_id = u.client_id
		and o.status not in ('failed', 'expired', 'cancelled', 'concatenated') and o.deleted_at is null) then 'open'
	else 'settled' end`

// letters are all that exist: a deleted upload has none.
const letters = `dead_letters d join uploads u on u.tenant_id = d.tenant_id and u.id = d.upload_id and u.deleted_at is null`

const selectLetter = `
	select d.tenant_id, d.id, d.upload_id, ` + stateOf + ` as state, d.kind, d.step, d.error, d.attempts, d.job_id, d.trace_id,
		d.failed_at, d.retried_at, d.retried_by, d.discarded_at, d.discarded_by
	from ` + letters

// A Page asks for dead letters, newest first, that are older than Before (the zero id: from the newest). Empty filters match
// all.
type Page struct {
	Before uuid.UUID
	Limit  int
	State  State
	Kind   string
	Step   string
	Since  time.Time // failed then, or later
}

// matching are the conditions of a page, whose arguments are from $2 on.
const matching = ` and d.id < $2 and ($3 = '' or ` + stateOf + ` = $3) and ($4 = '' or d.kind = $4) and ($5 = '' or d.step = $5)
	and ($6::timestamptz is null or d.failed_at >= $6) order by d.id desc limit $7`

func (p Page) args(tenant any) []any {
	before := p.Before
	if before == uuid.Nil {
		before = uuid.Max
	}
	return []any{tenant, before, string(p.State), p.Kind, p.Step, storage.OrNull(p.Since), p.Limit}
}

func list(ctx context.Context, tx storage.Tx, p Page) ([]Letter, error) {
	rows, err := tx.Query(ctx, selectLetter+` where d.tenant_id = $1`+matching, p.args(tx.Tenant)...)
	return storage.Collect[Letter]("list dead letters", rows, err)
}

// ListAll returns one page of all tenants', or of the one named. It needs an operator's role.
func ListAll(ctx context.Context, db *storage.DB, tenant uuid.UUID, p Page) ([]Letter, error) {
	rows, err := db.Pool().Query(ctx, selectLetter+` where ($1::uuid is null or d.tenant_id = $1)`+matching, p.args(storage.OrNull(tenant))...)
	return storage.Collect[Letter]("list dead letters", rows, err)
}

// FindAny returns any tenant's letter, or [storage.ErrNotFound]. It needs an operator's role.
func FindAny(ctx context.Context, db *storage.DB, id uuid.UUID) (Letter, error) {
	rows, err := db.Pool().Query(ctx, selectLetter+` where d.id = $1`, id)
	return storage.CollectOne[Letter]("read dead letter", rows, err)
}

func find(ctx context.Context, tx storage.Tx, id uuid.UUID) (Letter, error) {
	rows, err := tx.Query(ctx, selectLetter+` where d.tenant_id = $1 and d.id = $2`, tx.Tenant, id)
	return storage.CollectOne[Letter]("read dead letter", rows, err)
}

// discard returns [storage.ErrWrongStatus] for a letter that was retried or discarded.
func discard(ctx context.Context, tx storage.Tx, id uuid.UUID) (Letter, error) {
	l, err := find(ctx, tx, id)
	if err != nil {
		return l, err
	}
	tag, err := tx.Exec(ctx, `
		update dead_letters set discarded_at = now(), discarded_by = $3
		where tenant_id = $1 and id = $2 and retried_at is null and discarded_at is null`, tx.Tenant, id, tx.Who.User)
	switch {
	case err != nil:
		return l, fmt.Errorf("discard dead letter: %w", err)
	case tag.RowsAffected() == 0:
		return l, storage.ErrWrongStatus
	}
	return l, nil
}

// CountOpen counts, by step, the letters of all tenants that wait for a decision. It needs an operator's role.
func CountOpen(ctx context.Context, db *storage.DB) (map[string]int64, error) {
	rows, err := db.Pool().Query(ctx, `
		select d.step, count(*) from `+letters+`
		where d.retried_at is null and d.discarded_at is null and `+stateOf+` = 'open' group by d.step`)
	return storage.CollectCounts[string]("count dead letters", rows, err)
}
