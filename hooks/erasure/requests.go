package erasure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// A Kind is what an erasure removes.
type Kind string

// The kinds of erasures.
const (
	OfUpload Kind = "upload"
	OfUser   Kind = "user"   // all uploads that a user has when it is requested
	OfTenant Kind = "tenant" // all that a tenant has
)

// A State is how far an erasure has come.
type State string

// The states of an erasure.
const (
	Waiting   State = "waiting"   // of a tenant: another admin has to approve it
	Scheduled State = "scheduled" // it starts after a delay; nothing has changed yet
	Running   State = "running"   // what it removes does not exist for anybody any more
	Done      State = "done"      // an end
	Cancelled State = "cancelled" // an end: nothing was removed
)

// An Erasure is one permanent removal, as somebody requested it. Its row stays as evidence.
type Erasure struct {
	Tenant      uuid.UUID  `db:"tenant_id" json:"-"`
	ID          uuid.UUID  `db:"id" json:"id"`
	Kind        Kind       `db:"kind" json:"kind"`
	Subject     *string    `db:"subject" json:"subject"` // the upload's id, or the user's; nil for the tenant
	State       State      `db:"state" json:"state"`
	RequestedBy string     `db:"requested_by" json:"requested_by"`
	RequestedAt time.Time  `db:"requested_at" json:"requested_at"`
	ApprovedBy  *string    `db:"approved_by" json:"approved_by"`
	ApprovedAt  *time.Time `db:"approved_at" json:"approved_at"`
	CancelledBy *string    `db:"cancelled_by" json:"cancelled_by"`
	// The tenant of the requester's token, and the address; nil if a previous release recorded the request.
	RequestedHome *uuid.UUID `db:"requested_home" json:"-"`
	RequestedFrom *string    `db:"requested_from" json:"-"`
	StartsAt      *time.Time `db:"starts_at" json:"starts_at"` // nil while it waits
	EndedAt       *time.Time `db:"ended_at" json:"ended_at"`
	Uploads       int64      `db:"uploads" json:"uploads"` // removed so far
	Objects       int64      `db:"objects" json:"objects"` // removed from S3 so far; the last ones of a worker that died are missing
}

// Errors of the transactions below.
var (
	errSamePerson = errors.New("requester and approver are the same")
	errErasing    = errors.New("the tenant's erasure was requested before")
)

const selectErasure = `
	select tenant_id, id, kind, subject, state, requested_by, requested_at, approved_by, approved_at, cancelled_by,
		requested_home, requested_from, starts_at, ended_at, uploads, objects from erasures `

// request records that the transaction's user wants something erased. A tenant's erasure waits for approval, and is
// errErasing if there is one already; a user's starts after the delay, and an upload's runs. An upload that the tenant does not have, deleted or not, is
// [storage.ErrNotFound].
func request(ctx context.Context, tx storage.Tx, kind Kind, subject string, delay time.Duration) (Erasure, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Erasure{}, fmt.Errorf("make erasure id: %w", err)
	}
	if kind == OfUpload {
		if err := requireErasable(ctx, tx, subject); err != nil {
			return Erasure{}, err
		}
	}
	state := Running
	switch {
	case kind == OfTenant:
		state = Waiting
	case kind == OfUser && delay > 0:
		state = Scheduled
	default:
		delay = 0
	}
	_, err = tx.Exec(ctx, `
		insert into erasures (tenant_id, id, kind, subject, state, requested_by, requested_home, requested_from, starts_at)
		values ($1, $2, $3, nullif($4, ''), $8::text, $5, $6, nullif($7, ''), case when $8 <> 'waiting' then now() + $9::interval end)`,
		tx.Tenant, id, kind, subject, tx.Who.User, tx.Who.OwnTenant(), tenant.OriginOf(ctx).Address, state, delay)
	switch {
	case storage.IsUniqueViolation(err, "erasures_of_tenant"):
		return Erasure{}, errErasing
	case err != nil:
		return Erasure{}, fmt.Errorf("request erasure: %w", err)
	}
	detail := map[string]any{"kind": kind}
	if subject != "" {
		detail["subject"] = subject
	}
	if err := tx.Audit(ctx, storage.Audit{Action: storage.AuditErasureRequest, Subject: id.String(), Detail: detail}); err != nil {
		return Erasure{}, err
	}
	return announced(ctx, tx, id)
}

// announced returns an erasure, and announces it if it has just been scheduled or cancelled. The announcement names nobody: it
// is delivered to others, and would outlive the erasure.
func announced(ctx context.Context, tx storage.Tx, id uuid.UUID) (Erasure, error) {
	e, err := find(ctx, tx, id)
	if err != nil {
		return e, err
	}
	what := map[State]string{Scheduled: storage.AnnounceErasureScheduled, Cancelled: storage.AnnounceErasureCancelled}[e.State]
	if what == "" {
		return e, nil
	}
	return e, tx.Announce(ctx, storage.Announcement{Type: what, Detail: map[string]any{
		"erasure_id": e.ID, "kind": e.Kind, "starts_at": e.StartsAt,
	}})
}

func requireErasable(ctx context.Context, tx storage.Tx, upload string) error {
	return tx.AmongDeleted(ctx, func() error {
		var there bool
		err := tx.QueryRow(ctx, `select exists (select from uploads where tenant_id = $1 and id = $2::text::uuid
			and kind <> 'partial' and (purge_at is null or purge_at > '-infinity'))`, tx.Tenant, upload).Scan(&there)
		switch {
		case err != nil:
			return fmt.Errorf("look for upload: %w", err)
		case !there:
			return storage.ErrNotFound
		}
		return nil
	})
}

// find returns an erasure, or [storage.ErrNotFound].
func find(ctx context.Context, tx storage.Tx, id uuid.UUID) (Erasure, error) {
	rows, err := tx.Query(ctx, selectErasure+`where tenant_id = $1 and id = $2`, tx.Tenant, id)
	return storage.CollectOne[Erasure]("read erasure", rows, err)
}

// list returns at most limit erasures, newest first, that are older than before (the zero id: from the newest).
func list(ctx context.Context, tx storage.Tx, before uuid.UUID, limit int) ([]Erasure, error) {
	if before == uuid.Nil {
		before = uuid.Max
	}
	rows, err := tx.Query(ctx, selectErasure+`where tenant_id = $1 and id < $2 order by id desc limit $3`, tx.Tenant, before, limit)
	return storage.Collect[Erasure]("list erasures", rows, err)
}

// running returns those of all tenants, the oldest first.
func running(ctx context.Context, db *storage.DB) ([]Erasure, error) {
	rows, err := db.Pool().Query(ctx, selectErasure+`where state = 'running' order by id`)
	return storage.Collect[Erasure]("list running erasures", rows, err)
}

// scheduled returns those of all tenants that are due, the first one first.
func scheduled(ctx context.Context, db *storage.DB) ([]Erasure, error) {
	rows, err := db.Pool().Query(ctx, selectErasure+`where state = 'scheduled' and starts_at <= now() order by starts_at`)
	return storage.Collect[Erasure]("list erasures that are due", rows, err)
}

// start lets an erasure run that is due; one that was cancelled meanwhile stays as it is.
func start(ctx context.Context, tx storage.Tx, e Erasure) error {
	if err := tx.LockTenant(ctx); err != nil {
		return err
	}
	n, err := storage.Exec(ctx, tx, "start erasure", `
		update erasures set state = 'running' where tenant_id = $1 and id = $2 and state = 'scheduled' and starts_at <= now()`, tx.Tenant, e.ID)
	if err != nil || n == 0 {
		return err
	}
	if e.Kind == OfTenant {
		if err := closeTenant(ctx, tx); err != nil {
			return err
		}
	}
	return tx.Audit(ctx, storage.Audit{Action: storage.AuditErasureStart, Subject: e.ID.String()})
}

// closeTenant makes the tenant take no uploads from the commit on.
func closeTenant(ctx context.Context, tx storage.Tx) error {
	if _, err := storage.Exec(ctx, tx, "close tenant", `update tenants set erasing_at = now() where id = $1`, tx.Tenant); err != nil {
		return err
	}
	return storage.AnnounceStanding(ctx, tx)
}

// approve lets the tenant's erasure start after the delay. The requester gets errSamePerson; an erasure that does not wait is
// [storage.ErrWrongStatus].
func approve(ctx context.Context, tx storage.Tx, id uuid.UUID, delay time.Duration) (Erasure, error) {
	e, err := lock(ctx, tx, id, Waiting)
	switch {
	case err != nil:
		return e, err
	case samePerson(ctx, tx.Who, e):
		return e, errSamePerson
	}
	state := Scheduled
	if delay == 0 {
		state = Running
	}
	_, err = tx.Exec(ctx, `
		update erasures set state = $6, starts_at = now() + $7::interval,
			approved_by = $3, approved_at = now(), approved_home = $4, approved_from = nullif($5, '')
		where tenant_id = $1 and id = $2`, tx.Tenant, id, tx.Who.User, tx.Who.OwnTenant(), tenant.OriginOf(ctx).Address, state, delay)
	if err != nil {
		return e, fmt.Errorf("approve erasure: %w", err)
	}
	if state == Running {
		if err := closeTenant(ctx, tx); err != nil {
			return e, err
		}
	}
	if err := tx.Audit(ctx, storage.Audit{Action: storage.AuditErasureApprove, Subject: id.String()}); err != nil {
		return e, err
	}
	return announced(ctx, tx, id)
}

// samePerson reports whether somebody may be who requested the erasure. Whoever gets two tokens from one directory can write
// two names into them, so another name is not enough: the two are of different tenants, or at different addresses.
func samePerson(ctx context.Context, who tenant.Identity, e Erasure) bool {
	from := tenant.OriginOf(ctx).Address
	return strings.EqualFold(strings.TrimSpace(who.User), strings.TrimSpace(e.RequestedBy)) ||
		e.RequestedHome != nil && *e.RequestedHome == who.OwnTenant() && e.RequestedFrom != nil && *e.RequestedFrom == from
}

// cancel ends an erasure that has not started. Any other is [storage.ErrWrongStatus].
func cancel(ctx context.Context, tx storage.Tx, id uuid.UUID) (Erasure, error) {
	e, err := lock(ctx, tx, id, Waiting, Scheduled)
	if err != nil {
		return e, err
	}
	_, err = tx.Exec(ctx, `
		update erasures set state = 'cancelled', cancelled_by = $3, ended_at = now() where tenant_id = $1 and id = $2`,
		tx.Tenant, id, tx.Who.User)
	if err != nil {
		return e, fmt.Errorf("cancel erasure: %w", err)
	}
	if err := tx.Audit(ctx, storage.Audit{Action: storage.AuditErasureCancel, Subject: id.String()}); err != nil {
		return e, err
	}
	return announced(ctx, tx, id)
}

// lock locks the tenant, so that one decision is made at a time, and returns the erasure, with [storage.ErrWrongStatus] if it
// is in no state of these.
func lock(ctx context.Context, tx storage.Tx, id uuid.UUID, states ...State) (Erasure, error) {
	if err := tx.LockTenant(ctx); err != nil {
		return Erasure{}, err
	}
	e, err := find(ctx, tx, id)
	if err == nil && !slices.Contains(states, e.State) {
		err = storage.ErrWrongStatus
	}
	return e, err
}
