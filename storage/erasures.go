package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// What an erasure is of.
const (
	EraseUpload = "upload"
	EraseUser   = "user"   // all uploads that a user has when it is asked for
	EraseTenant = "tenant" // all that a tenant has
)

// An ErasureState is how far an erasure has come.
type ErasureState string

// The states of an erasure.
const (
	ErasureWaiting   ErasureState = "waiting"   // a tenant's: another admin has to approve
	ErasureRunning   ErasureState = "running"   // what is erased does not exist any more; it is being removed
	ErasureDone      ErasureState = "done"      // an end
	ErasureCancelled ErasureState = "cancelled" // an end: nothing was erased
)

// Why an erasure is not as somebody wants it.
var (
	// ErrSamePerson says that who asked for an erasure may not approve it.
	ErrSamePerson = errors.New("requester and approver are the same")
	// ErrErasing says that the tenant's erasure has been asked for already.
	ErrErasing = errors.New("tenant is to be erased already")
)

// An Erasure is one removal for good, as somebody asked for it. It stays as evidence.
type Erasure struct {
	Tenant      uuid.UUID    `db:"tenant_id"`
	ID          uuid.UUID    `db:"id"`
	Kind        string       `db:"kind"`
	Subject     *string      `db:"subject"` // the upload's id, or the user's; nil for the tenant
	State       ErasureState `db:"state"`
	RequestedBy string       `db:"requested_by"`
	RequestedAt time.Time    `db:"requested_at"`
	ApprovedBy  *string      `db:"approved_by"`
	ApprovedAt  *time.Time   `db:"approved_at"`
	CancelledBy *string      `db:"cancelled_by"`
	EndedAt     *time.Time   `db:"ended_at"`
	Uploads     int64        `db:"uploads"` // removed so far
	Objects     int64        `db:"objects"` // removed from S3 so far; what a worker that died had removed last is missing
}

const selectErasure = `
	select tenant_id, id, kind, subject, state, requested_by, requested_at, approved_by, approved_at, cancelled_by,
		ended_at, uploads, objects from erasures `

// RequestErasure writes down that the transaction's user wants something erased. A tenant's erasure waits for
// somebody's approval, and is [ErrErasing] if there is one already; the others run. An upload that the tenant does not
// have, deleted or not, is [ErrNotFound].
func (tx Tx) RequestErasure(ctx context.Context, kind, subject string) (Erasure, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Erasure{}, fmt.Errorf("make erasure id: %w", err)
	}
	if kind == EraseUpload {
		if err := tx.requireErasable(ctx, subject); err != nil {
			return Erasure{}, err
		}
	}
	_, err = tx.Exec(ctx, `
		insert into erasures (tenant_id, id, kind, subject, state, requested_by)
		values ($1, $2, $3::text, nullif($4, ''), case when $3 = 'tenant' then 'waiting' else 'running' end, $5)`,
		tx.Tenant, id, kind, subject, tx.Who.User)
	switch {
	case IsUniqueViolation(err, "erasures_of_tenant"):
		return Erasure{}, ErrErasing
	case err != nil:
		return Erasure{}, fmt.Errorf("request erasure: %w", err)
	}
	detail := map[string]any{"kind": kind}
	if subject != "" {
		detail["subject"] = subject
	}
	if err := tx.Audit(ctx, Audit{Action: AuditErasureRequest, Subject: id.String(), Detail: detail}); err != nil {
		return Erasure{}, err
	}
	return tx.Erasure(ctx, id)
}

func (tx Tx) requireErasable(ctx context.Context, upload string) error {
	return tx.AmongDeleted(ctx, func() error {
		var there bool
		err := tx.QueryRow(ctx, `select exists (select from uploads where tenant_id = $1 and id = $2::text::uuid
			and kind <> 'partial' and (purge_at is null or purge_at > '-infinity'))`, tx.Tenant, upload).Scan(&there)
		switch {
		case err != nil:
			return fmt.Errorf("look for upload: %w", err)
		case !there:
			return ErrNotFound
		}
		return nil
	})
}

// Erasure returns one, or [ErrNotFound].
func (tx Tx) Erasure(ctx context.Context, id uuid.UUID) (Erasure, error) {
	found, err := erasures(tx.Query(ctx, selectErasure+`where tenant_id = $1 and id = $2`, tx.Tenant, id))
	switch {
	case err != nil:
		return Erasure{}, err
	case len(found) == 0:
		return Erasure{}, ErrNotFound
	}
	return found[0], nil
}

// Erasures returns at most limit, newest first, that are older than before (the zero id: from the newest).
func (tx Tx) Erasures(ctx context.Context, before uuid.UUID, limit int) ([]Erasure, error) {
	if before == uuid.Nil {
		before = uuid.Max
	}
	return erasures(tx.Query(ctx, selectErasure+`where tenant_id = $1 and id < $2 order by id desc limit $3`, tx.Tenant, before, limit))
}

// RunningErasures returns those of all tenants, the oldest first. It needs an operator's role.
func (db *DB) RunningErasures(ctx context.Context) ([]Erasure, error) {
	return erasures(db.pool.Query(ctx, selectErasure+`where state = 'running' order by id`))
}

func erasures(rows pgx.Rows, err error) (found []Erasure, _ error) {
	if err == nil {
		found, err = pgx.CollectRows(rows, pgx.RowToStructByName[Erasure])
	}
	if err != nil {
		return nil, fmt.Errorf("read erasures: %w", err)
	}
	return found, nil
}

// ApproveErasure lets the tenant's erasure begin: from the commit on it takes no uploads. Who asked for it gets
// [ErrSamePerson]; one that does not wait is [ErrWrongStatus].
func (tx Tx) ApproveErasure(ctx context.Context, id uuid.UUID) (Erasure, error) {
	if err := tx.LockTenant(ctx); err != nil {
		return Erasure{}, err
	}
	e, err := tx.Erasure(ctx, id)
	switch {
	case err != nil:
		return e, err
	case e.State != ErasureWaiting:
		return e, ErrWrongStatus
	case e.RequestedBy == tx.Who.User:
		return e, ErrSamePerson
	}
	_, err = tx.Exec(ctx, `
		with told as (update tenants set erasing_at = now() where id = $1)
		update erasures set state = 'running', approved_by = $3, approved_at = now() where tenant_id = $1 and id = $2`,
		tx.Tenant, id, tx.Who.User)
	if err != nil {
		return e, fmt.Errorf("approve erasure: %w", err)
	}
	if err := tx.Audit(ctx, Audit{Action: AuditErasureApprove, Subject: id.String()}); err != nil {
		return e, err
	}
	return tx.Erasure(ctx, id)
}

// CancelErasure ends one that still waits. Any other is [ErrWrongStatus].
func (tx Tx) CancelErasure(ctx context.Context, id uuid.UUID) (Erasure, error) {
	if err := tx.LockTenant(ctx); err != nil { // as approval does
		return Erasure{}, err
	}
	e, err := tx.Erasure(ctx, id)
	switch {
	case err != nil:
		return e, err
	case e.State != ErasureWaiting:
		return e, ErrWrongStatus
	}
	_, err = tx.Exec(ctx, `
		update erasures set state = 'cancelled', cancelled_by = $3, ended_at = now() where tenant_id = $1 and id = $2`,
		tx.Tenant, id, tx.Who.User)
	if err != nil {
		return e, fmt.Errorf("cancel erasure: %w", err)
	}
	if err := tx.Audit(ctx, Audit{Action: AuditErasureCancel, Subject: id.String()}); err != nil {
		return e, err
	}
	return tx.Erasure(ctx, id)
}
