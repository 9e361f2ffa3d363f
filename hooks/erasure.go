package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// Why an erasure does not go on.
var (
	ErrSameAdmin    = errors.New("an erasure cannot be approved by who asked for it")
	ErrErasureState = errors.New("erasure is past that")
	ErrBadErasure   = errors.New("erasure is not valid")
)

// DeletedConfig says how long deleted uploads can be restored.
type DeletedConfig struct {
	Retention time.Duration `name:"deleted-retention" help:"How long a deleted upload can be restored before it is erased. A change applies to later deletions."`
}

// DefaultDeletedConfig is used where nothing is set.
func DefaultDeletedConfig() DeletedConfig { return DeletedConfig{Retention: 30 * 24 * time.Hour} }

// Validate reports what is wrong with c.
func (c DeletedConfig) Validate() error {
	if c.Retention < time.Minute {
		return fmt.Errorf("TRAMO_DELETED_RETENTION: %s is less than 1m", c.Retention)
	}
	return nil
}

// maxUser is the longest user id, in bytes.
const maxUser = 255

// Delete makes an upload that takes no more bytes vanish until its time is over: then workers remove it. One that still
// takes bytes, or is part of another, is [storage.ErrWrongStatus].
func (f *Finisher) Delete(ctx context.Context, upload uuid.UUID) error {
	keep := f.DeletedRetention
	if keep == 0 {
		keep = DefaultDeletedConfig().Retention
	}
	err := f.DB.InTenant(ctx, func(tx storage.Tx) error {
		_, err := tx.Delete(ctx, upload, keep)
		return err
	})
	if err == nil {
		f.Log.InfoContext(ctx, "upload deleted", slog.String("upload_id", upload.String()), tenantAttr(ctx))
	}
	return err
}

// Erasures brings deleted uploads back, and takes what is to be removed for good. Who may is decided here.
type Erasures struct {
	DB    *storage.DB
	Queue *queue.Queue
	Log   *slog.Logger
}

// mustManage returns a [*Refusal] unless who acts manages the whole tenant.
func mustManage(ctx context.Context) (tenant.Identity, error) {
	who, err := tenant.From(ctx)
	switch {
	case err != nil:
		return who, err
	case !who.Role.CanManage():
		return who, refuse(ErrForbidden, "Only a manager of the company can do this.")
	}
	return who, nil
}

// mustManageAll is mustManage for what goes beyond projects.
func mustManageAll(ctx context.Context) (tenant.Identity, error) {
	who, err := mustManage(ctx)
	if err == nil && who.Projects != nil {
		return who, refuse(ErrForbidden, "This is about all projects of the company, and your token covers some of them only.")
	}
	return who, err
}

// Restore brings a deleted upload back as it was. What was to be processed then is processed now.
func (e *Erasures) Restore(ctx context.Context, upload uuid.UUID) error {
	if _, err := mustManage(ctx); err != nil {
		return err
	}
	err := e.DB.InTenant(ctx, func(tx storage.Tx) error {
		u, err := tx.Restore(ctx, upload)
		if err == nil && (u.Status == storage.Uploaded || u.Status == storage.Processing) {
			err = e.Queue.Enqueue(ctx, tx, upload)
		}
		return err
	})
	if errors.Is(err, storage.ErrDuplicateClientID) {
		return refuse(ErrClientIDTaken, "The file has been sent again since, as another upload with the same client_id. Delete that one first, if this one is wanted.")
	}
	return err
}

// An EraseRequest says what is to be removed for good: one of the three.
type EraseRequest struct {
	Upload uuid.UUID // the zero id for none
	User   string    // "" for none
	Tenant bool
}

// Request asks for something to be removed for good. A manager may ask for an upload and for all of a user's, which are
// gone at once; an admin for the tenant, which another admin has to approve.
func (e *Erasures) Request(ctx context.Context, r EraseRequest) (erasure storage.Erasure, err error) {
	who, err := mustManageAll(ctx)
	if err != nil {
		return erasure, err
	}
	kind, subject, err := r.parse()
	if err != nil {
		return erasure, err
	}
	if r.Tenant && who.Role != tenant.Admin {
		return erasure, refuse(ErrForbidden, "Only an admin of the installation can ask for the erasure of a company.")
	}
	err = e.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if erasure, err = tx.RequestErasure(ctx, kind, subject); err != nil || r.Tenant {
			return err
		}
		return e.Queue.EnqueueErase(ctx, tx)
	})
	if errors.Is(err, storage.ErrErasing) {
		return erasure, refuse(ErrErasureState, "The erasure of this company has been asked for already. Look at /api/erasures.")
	}
	return erasure, e.told(ctx, err, erasure)
}

func (r EraseRequest) parse() (kind, subject string, err error) {
	named := 0
	if r.Upload != uuid.Nil {
		kind, subject, named = storage.EraseUpload, r.Upload.String(), named+1
	}
	if r.User != "" {
		kind, subject, named = storage.EraseUser, r.User, named+1
	}
	if r.Tenant {
		kind, subject, named = storage.EraseTenant, "", named+1
	}
	switch {
	case named != 1:
		return "", "", refuse(ErrBadErasure, `Say what to erase: one of {"upload": ID}, {"user_id": ID} and {"tenant": true}.`)
	case len(r.User) > maxUser || !utf8.ValidString(r.User) || strings.ContainsRune(r.User, 0):
		return "", "", refuse(ErrBadErasure, "user_id must be a user's id as in tokens: UTF-8 text of at most %d bytes without NUL characters.", maxUser)
	}
	return kind, subject, nil
}

// Approve lets a tenant's erasure begin that another admin asked for. There is no way back.
func (e *Erasures) Approve(ctx context.Context, id uuid.UUID) (storage.Erasure, error) {
	var same bool
	erasure, err := e.decide(ctx, id, func(tx storage.Tx) (erasure storage.Erasure, err error) {
		erasure, err = tx.ApproveErasure(ctx, id)
		if same = errors.Is(err, storage.ErrSamePerson); same {
			return erasure, tx.Audit(ctx, storage.Audit{Action: storage.AuditErasureApprove, Subject: id.String(), Outcome: "same-admin"})
		}
		if err != nil {
			return erasure, err
		}
		return erasure, e.Queue.EnqueueErase(ctx, tx)
	})
	if err == nil && same {
		return storage.Erasure{}, ErrSameAdmin
	}
	return erasure, e.told(ctx, err, erasure)
}

// Cancel takes back a tenant's erasure that nobody has approved yet.
func (e *Erasures) Cancel(ctx context.Context, id uuid.UUID) (storage.Erasure, error) {
	erasure, err := e.decide(ctx, id, func(tx storage.Tx) (storage.Erasure, error) { return tx.CancelErasure(ctx, id) })
	return erasure, e.told(ctx, err, erasure)
}

func (e *Erasures) decide(ctx context.Context, id uuid.UUID, fn func(storage.Tx) (storage.Erasure, error)) (erasure storage.Erasure, err error) {
	who, err := mustManageAll(ctx)
	if err != nil {
		return erasure, err
	}
	err = e.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if erasure, err = tx.Erasure(ctx, id); err != nil {
			return err
		}
		if who.Role != tenant.Admin {
			return refuse(ErrForbidden, "Only an admin of the installation can decide on the erasure of a company.")
		}
		erasure, err = fn(tx)
		return err
	})
	if errors.Is(err, storage.ErrWrongStatus) {
		return erasure, refuse(ErrErasureState, "This erasure is %s.", erasure.State)
	}
	return erasure, err
}

// Find returns an erasure of the tenant's.
func (e *Erasures) Find(ctx context.Context, id uuid.UUID) (erasure storage.Erasure, err error) {
	if _, err := mustManageAll(ctx); err != nil {
		return erasure, err
	}
	err = e.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		erasure, err = tx.Erasure(ctx, id)
		return err
	})
	return erasure, err
}

// List returns a page of the tenant's erasures, newest first, that are older than before.
func (e *Erasures) List(ctx context.Context, before uuid.UUID, limit int) (found []storage.Erasure, err error) {
	if _, err := mustManageAll(ctx); err != nil {
		return nil, err
	}
	err = e.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		found, err = tx.Erasures(ctx, before, limit)
		return err
	})
	return found, err
}

// MayExport returns a context that acts in the tenant whose export somebody wants, and enters that into the audit log. For
// who manages another tenant, this one does not exist: [storage.ErrNotFound].
func (e *Erasures) MayExport(ctx context.Context, id uuid.UUID) (context.Context, error) {
	who, err := tenant.From(ctx)
	if err != nil {
		return nil, err
	}
	if id != who.Tenant {
		if who.Role != tenant.Admin || who.Projects != nil {
			return nil, storage.ErrNotFound
		}
		if who.Home == uuid.Nil {
			who.Home = who.Tenant
		}
		who.Tenant = id
		ctx = tenant.With(ctx, who)
	}
	if _, err := mustManageAll(ctx); err != nil {
		return nil, err
	}
	return ctx, e.DB.InTenant(ctx, func(tx storage.Tx) error {
		if _, err := tx.Account(ctx); err != nil {
			return err
		}
		return tx.Audit(ctx, storage.Audit{Action: storage.AuditTenantExport})
	})
}

// told logs what became of an erasure, if nothing failed.
func (e *Erasures) told(ctx context.Context, err error, erasure storage.Erasure) error {
	if err == nil {
		e.Log.InfoContext(ctx, "erasure", slog.String("erasure_id", erasure.ID.String()), slog.String("kind", erasure.Kind),
			slog.String("state", string(erasure.State)), tenantAttr(ctx))
	}
	return err
}
