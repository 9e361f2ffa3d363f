// Package erasure deletes uploads so that they can be restored, removes them for good, erases users and tenants, and exports
// a tenant before that. It decides who may.
package erasure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/quarantine"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Why a request is refused.
var (
	ErrSameAdmin  = errors.New("the requester of an erasure cannot approve it")
	ErrWrongState = errors.New("erasure is in another state")
	ErrBadRequest = errors.New("request for an erasure is not valid")
)

// Config says how long deleted uploads can be restored, and erasures cancelled.
type Config struct {
	Delay     time.Duration `name:"erasure-delay" help:"How long after its request, or its approval, the erasure of a user or a tenant starts. Until then managers can cancel it. 0 to start at once."`
	Retention time.Duration `name:"deleted-retention" help:"How long a deleted upload can be restored before it is erased. A change applies to later deletions."`
}

// DefaultConfig is used where nothing is set.
func DefaultConfig() Config { return Config{Delay: 24 * time.Hour, Retention: 30 * 24 * time.Hour} }

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if c.Retention < time.Minute {
		errs = append(errs, fmt.Errorf("TRAMO_DELETED_RETENTION: %s is less than 1m", c.Retention))
	}
	if c.Delay < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_ERASURE_DELAY: %s is less than 0", c.Delay))
	}
	return errors.Join(errs...)
}

// maxUser is the longest user id, in bytes.
const maxUser = 255

// Service takes the requests of users: deletion, restoring, erasures.
type Service struct {
	Config
	DB    *storage.DB
	Queue *queue.Queue
	Log   *slog.Logger
}

// Delete hides an upload that takes no more bytes, until its retention is over and workers remove it. One that still takes
// bytes, or is part of another, is [storage.ErrWrongStatus].
func (s *Service) Delete(ctx context.Context, upload uuid.UUID) error {
	err := s.DB.InTenant(ctx, func(tx storage.Tx) error {
		_, err := deleteUpload(ctx, tx, upload, s.Retention)
		return err
	})
	if err == nil {
		s.Log.InfoContext(ctx, "upload deleted", slog.String("upload_id", upload.String()), tenant.LogAttr(ctx))
	}
	return err
}

// Restore brings a deleted upload back as it was. If it was not processed yet, that begins now.
func (s *Service) Restore(ctx context.Context, upload uuid.UUID) error {
	if _, err := tenant.RequireManager(ctx); err != nil {
		return err
	}
	err := s.DB.InTenant(ctx, func(tx storage.Tx) error {
		u, err := restoreUpload(ctx, tx, upload)
		if err == nil && (u.Status == storage.Uploaded || u.Status == storage.Processing) {
			err = s.Queue.Enqueue(ctx, tx, upload)
		}
		return err
	})
	if errors.Is(err, storage.ErrDuplicateClientID) {
		return tenant.Refuse(err, "The file was sent again since then, as another upload with the same client_id. Delete that upload first if you want this one.")
	}
	return err
}

// A Request says what is to be removed for good: one of the three.
type Request struct {
	Upload uuid.UUID // the zero id for none
	User   string    // "" for none
	Tenant bool
}

// Request requests an erasure. A manager may erase an upload, which does not exist from then on, and all uploads of a user,
// which starts after the delay. An admin may erase the tenant, which another admin has to approve.
func (s *Service) Request(ctx context.Context, r Request) (e Erasure, err error) {
	who, err := tenant.RequireManagerOfAll(ctx)
	if err != nil {
		return e, err
	}
	kind, subject, err := r.parse()
	if err != nil {
		return e, err
	}
	if r.Tenant && who.Role != tenant.Admin {
		return e, tenant.Refuse(tenant.ErrForbidden, "Only an admin of the installation can request the erasure of a company.")
	}
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if e, err = request(ctx, tx, kind, subject, s.Delay); err != nil || e.State != Running {
			return err
		}
		return s.Queue.EnqueueErase(ctx, tx)
	})
	if errors.Is(err, errErasing) {
		return e, tenant.Refuse(ErrWrongState, "The erasure of this company was requested before. See /api/erasures.")
	}
	return e, s.logState(ctx, err, e)
}

func (r Request) parse() (kind Kind, subject string, err error) {
	switch r {
	case Request{}:
	case Request{Upload: r.Upload}:
		return OfUpload, r.Upload.String(), nil
	case Request{Tenant: true}:
		return OfTenant, "", nil
	case Request{User: r.User}:
		if len(r.User) > maxUser || !storage.IsText(r.User) {
			return "", "", tenant.Refuse(ErrBadRequest, "user_id must be a user's id as in tokens: UTF-8 text of at most %d bytes without NUL characters.", maxUser)
		}
		return OfUser, r.User, nil
	}
	return "", "", tenant.Refuse(ErrBadRequest, `Say what to erase: one of {"upload_id": ID}, {"user_id": ID} and {"tenant": true}.`)
}

// EraseQuarantined requests the erasure of an upload in quarantine. An admin may.
func (s *Service) EraseQuarantined(ctx context.Context, id uuid.UUID) (e Erasure, err error) {
	if _, err := tenant.RequireAdmin(ctx); err != nil {
		return e, err
	}
	err = s.DB.InTenant(ctx, func(tx storage.Tx) error {
		u, err := quarantine.Lock(ctx, tx, id)
		if err != nil {
			return err
		}
		if e, err = request(ctx, tx, OfUpload, id.String(), s.Delay); err != nil {
			return err
		}
		detail := map[string]any{"signature": u.ScanSignature, "erasure": e.ID}
		if err := tx.Audit(ctx, storage.Audit{Action: storage.AuditQuarantineErase, Subject: id.String(), Detail: detail}); err != nil {
			return err
		}
		return s.Queue.EnqueueErase(ctx, tx)
	})
	return e, s.logState(ctx, err, e)
}

// Approve lets a tenant's erasure that another admin has requested start after the delay.
func (s *Service) Approve(ctx context.Context, id uuid.UUID) (Erasure, error) {
	var same bool
	e, err := s.decide(ctx, id, func(tx storage.Tx) (e Erasure, err error) {
		e, err = approve(ctx, tx, id, s.Delay)
		if same = errors.Is(err, errSamePerson); same {
			return e, tx.Audit(ctx, storage.Audit{Action: storage.AuditErasureApprove, Subject: id.String(), Outcome: "same-admin"})
		}
		if err != nil || e.State != Running {
			return e, err
		}
		return e, s.Queue.EnqueueErase(ctx, tx)
	})
	if err == nil && same {
		return Erasure{}, ErrSameAdmin
	}
	return e, s.logState(ctx, err, e)
}

// Cancel takes back an erasure that has not started: that of a user by a manager, that of the tenant by an admin.
func (s *Service) Cancel(ctx context.Context, id uuid.UUID) (Erasure, error) {
	e, err := s.decide(ctx, id, func(tx storage.Tx) (Erasure, error) { return cancel(ctx, tx, id) })
	return e, s.logState(ctx, err, e)
}

func (s *Service) decide(ctx context.Context, id uuid.UUID, fn func(storage.Tx) (Erasure, error)) (e Erasure, err error) {
	who, err := tenant.RequireManagerOfAll(ctx)
	if err != nil {
		return e, err
	}
	err = s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if e, err = find(ctx, tx, id); err != nil {
			return err
		}
		if who.Role != tenant.Admin && e.Kind == OfTenant {
			return tenant.Refuse(tenant.ErrForbidden, "Only an admin of the installation can decide on the erasure of a company.")
		}
		e, err = fn(tx)
		return err
	})
	if errors.Is(err, storage.ErrWrongStatus) {
		return e, tenant.Refuse(ErrWrongState, "This erasure is %s.", e.State)
	}
	return e, err
}

// Find returns an erasure of the tenant.
func (s *Service) Find(ctx context.Context, id uuid.UUID) (Erasure, error) {
	if _, err := tenant.RequireManagerOfAll(ctx); err != nil {
		return Erasure{}, err
	}
	return storage.InTenant(ctx, s.DB, func(tx storage.Tx) (Erasure, error) { return find(ctx, tx, id) })
}

// List returns a page of the tenant's erasures, newest first, that are older than before.
func (s *Service) List(ctx context.Context, before uuid.UUID, limit int) ([]Erasure, error) {
	if _, err := tenant.RequireManagerOfAll(ctx); err != nil {
		return nil, err
	}
	return storage.InTenant(ctx, s.DB, func(tx storage.Tx) ([]Erasure, error) { return list(ctx, tx, before, limit) })
}

// logState logs the state of an erasure unless the request failed, and returns err.
func (s *Service) logState(ctx context.Context, err error, e Erasure) error {
	if err == nil {
		s.Log.InfoContext(ctx, "erasure", slog.String("erasure_id", e.ID.String()), slog.String("kind", string(e.Kind)),
			slog.String("state", string(e.State)), tenant.LogAttr(ctx))
	}
	return err
}
