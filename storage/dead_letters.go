package storage

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A LetterState is what has become of a dead letter.
type LetterState string

// The states of dead letters.
const (
	LetterOpen      LetterState = "open"      // its upload failed of it, and waits for somebody's decision
	LetterRetried   LetterState = "retried"   // its upload was processed again since
	LetterDiscarded LetterState = "discarded" // somebody has decided that nothing is to be done
	LetterSettled   LetterState = "settled"   // nothing can be done any more: the file was sent again, say
)

// Known reports whether s is one.
func (s LetterState) Known() bool {
	switch s {
	case LetterOpen, LetterRetried, LetterDiscarded, LetterSettled:
		return true
	}
	return false
}

// maxLetterError is the most that a dead letter keeps of an error, in bytes.
const maxLetterError = 8000

// A Death is how a job ended that is not tried again.
type Death struct {
	Job      int64 // 0 if it is not known any more
	Kind     string
	Step     string // that its last attempt had come to
	Error    string // internal: no tenant is told. What is too long is cut
	Attempts int
	At       time.Time // the zero time is now
}

// Bury fails the upload as f says and writes its dead letter, in the trace that ctx belongs to. An upload that has ended
// before is left as it is, with [ErrWrongStatus].
func (tx Tx) Bury(ctx context.Context, upload uuid.UUID, d Death, f Failure) error {
	if err := tx.Fail(ctx, upload, f); err != nil {
		return err
	}
	return tx.WriteLetter(ctx, upload, d)
}

// WriteLetter writes the dead letter of an upload that has failed.
func (tx Tx) WriteLetter(ctx context.Context, upload uuid.UUID, d Death) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	// There is a letter that was not retried only if a server of the previous release has retried the upload.
	_, err = tx.Exec(ctx, `
		insert into dead_letters (tenant_id, id, upload_id, job_id, kind, step, error, attempts, trace_id, died_at)
		values ($1, $2, $3, nullif($4, 0), $5, $6, $7, $8, nullif($9, ''), coalesce($10, clock_timestamp()))
		on conflict (tenant_id, upload_id) where retried_at is null do update set
			id = excluded.id, job_id = excluded.job_id, kind = excluded.kind, step = excluded.step, error = excluded.error,
			attempts = excluded.attempts, trace_id = excluded.trace_id, died_at = excluded.died_at, discarded_at = null, discarded_by = null`,
		tx.Tenant, id, upload, d.Job, d.Kind, d.Step, clip(d.Error, maxLetterError), d.Attempts, TraceID(ctx), OrNull(d.At))
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

// A DeadLetter is the death of a job, and what has become of it.
type DeadLetter struct {
	Tenant      uuid.UUID   `db:"tenant_id"`
	ID          uuid.UUID   `db:"id"`
	Upload      uuid.UUID   `db:"upload_id"`
	State       LetterState `db:"state"`
	Kind        string      `db:"kind"`
	Step        string      `db:"step"`
	Error       string      `db:"error"`
	Attempts    int         `db:"attempts"`
	Job         *int64      `db:"job_id"`
	TraceID     *string     `db:"trace_id"`
	DiedAt      time.Time   `db:"died_at"`
	RetriedAt   *time.Time  `db:"retried_at"`
	RetriedBy   *string     `db:"retried_by"`
	DiscardedAt *time.Time  `db:"discarded_at"`
	DiscardedBy *string     `db:"discarded_by"`
}

// letterState is a letter's, d, by what has become of its upload u. Settled is what [Tx.Retry] would do nothing about.
const letterState = `case
	when d.retried_at is not null then 'retried'
	when d.discarded_at is not null then 'discarded'
	when u.status = 'failed' and u.failure_reason = 'dead_lettered' and u.replaced_by is null and not exists (
		select from uploads o where o.tenant_id = u.tenant_id and o.user_id = u.user_id and o.client_id = u.client_id
		and o.status not in ('failed', 'expired', 'cancelled', 'joined') and o.deleted_at is null) then 'open'
	else 'settled' end`

// letters are all that there are: of what is deleted there is none.
const letters = `dead_letters d join uploads u on u.tenant_id = d.tenant_id and u.id = d.upload_id and u.deleted_at is null`

const selectLetter = `
	select d.tenant_id, d.id, d.upload_id, ` + letterState + ` as state, d.kind, d.step, d.error, d.attempts, d.job_id, d.trace_id,
		d.died_at, d.retried_at, d.retried_by, d.discarded_at, d.discarded_by
	from ` + letters

// A LetterPage asks for dead letters, newest first, that are older than Before (the zero id: from the newest). Empty
// filters match all.
type LetterPage struct {
	Before uuid.UUID
	Limit  int
	State  LetterState
	Kind   string
	Step   string
	Since  time.Time // died then, or later
}

// matching are the conditions of a page, whose arguments are from $2 on.
const matching = ` and d.id < $2 and ($3 = '' or ` + letterState + ` = $3) and ($4 = '' or d.kind = $4) and ($5 = '' or d.step = $5)
	and ($6::timestamptz is null or d.died_at >= $6) order by d.id desc limit $7`

func (p LetterPage) args(tenant any) []any {
	before := p.Before
	if before == uuid.Nil {
		before = uuid.Max
	}
	return []any{tenant, before, string(p.State), p.Kind, p.Step, OrNull(p.Since), p.Limit}
}

// DeadLetters returns one page of the tenant's.
func (tx Tx) DeadLetters(ctx context.Context, p LetterPage) ([]DeadLetter, error) {
	return collectLetters(tx.Query(ctx, selectLetter+` where d.tenant_id = $1`+matching, p.args(tx.Tenant)...))
}

// DeadLetters returns one page of all tenants', or of the one named. It needs an operator's role.
func (db *DB) DeadLetters(ctx context.Context, tenant uuid.UUID, p LetterPage) ([]DeadLetter, error) {
	return collectLetters(db.pool.Query(ctx, selectLetter+` where ($1::uuid is null or d.tenant_id = $1)`+matching, p.args(OrNull(tenant))...))
}

func collectLetters(rows pgx.Rows, err error) (found []DeadLetter, _ error) {
	if err == nil {
		found, err = pgx.CollectRows(rows, pgx.RowToStructByName[DeadLetter])
	}
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return found, nil
}

// DeadLetter returns one of the tenant's, or [ErrNotFound].
func (tx Tx) DeadLetter(ctx context.Context, id uuid.UUID) (DeadLetter, error) {
	rows, err := tx.Query(ctx, selectLetter+` where d.tenant_id = $1 and d.id = $2`, tx.Tenant, id)
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter: %w", err)
	}
	d, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[DeadLetter])
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter: %w", OrNotFound(err))
	}
	return d, nil
}

// TenantOfLetter returns whose it is, or [ErrNotFound]. It needs an operator's role.
func (db *DB) TenantOfLetter(ctx context.Context, id uuid.UUID) (tenant uuid.UUID, err error) {
	err = db.pool.QueryRow(ctx, `select tenant_id from dead_letters where id = $1`, id).Scan(&tenant)
	if err != nil {
		return uuid.Nil, fmt.Errorf("look for dead letter: %w", OrNotFound(err))
	}
	return tenant, nil
}

// DiscardLetter records that nothing is to be done about a dead letter. One about which something was done is
// [ErrWrongStatus], one that the tenant does not have [ErrNotFound].
func (tx Tx) DiscardLetter(ctx context.Context, id uuid.UUID) (DeadLetter, error) {
	d, err := tx.DeadLetter(ctx, id)
	if err != nil {
		return d, err
	}
	tag, err := tx.Exec(ctx, `
		update dead_letters set discarded_at = now(), discarded_by = $3
		where tenant_id = $1 and id = $2 and retried_at is null and discarded_at is null`, tx.Tenant, id, tx.Who.User)
	switch {
	case err != nil:
		return d, fmt.Errorf("discard dead letter: %w", err)
	case tag.RowsAffected() == 0:
		return d, ErrWrongStatus
	}
	return d, nil
}

// answerLetters records that what died is processed again. It is part of an upload's way back from its end.
func (tx Tx) answerLetters(ctx context.Context, uploads []uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		update dead_letters set retried_at = now(), retried_by = $3
		where tenant_id = $1 and upload_id = any($2) and retried_at is null`, tx.Tenant, uploads, tx.Who.User)
	if err != nil {
		return fmt.Errorf("mark dead letters: %w", err)
	}
	return nil
}

// openLetters counts, by step, what waits for a decision.
func (db *DB) openLetters(ctx context.Context) (map[string]int64, error) {
	found, err := counts[string](ctx, db, `
		select d.step, count(*) from `+letters+`
		where d.retried_at is null and d.discarded_at is null and `+letterState+` = 'open' group by d.step`)
	if err != nil {
		return nil, fmt.Errorf("count dead letters: %w", err)
	}
	return found, nil
}
