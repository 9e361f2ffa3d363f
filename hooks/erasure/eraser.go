package erasure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/sourcegraph/conc/panics"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// EraserConfig says how often workers erase.
type EraserConfig struct {
	Every time.Duration `name:"erase-interval" help:"How often uploads whose TRAMO_DELETED_RETENTION is over are erased, and erasures continue that were cut off. One worker at a time does it."`
}

// DefaultEraserConfig is used where nothing is set.
func DefaultEraserConfig() EraserConfig { return EraserConfig{Every: time.Minute} }

// Validate reports what is wrong with c.
func (c EraserConfig) Validate() error {
	if c.Every < time.Second {
		return fmt.Errorf("TRAMO_ERASE_INTERVAL: %s is less than 1s", c.Every)
	}
	return nil
}

// An Eraser removes for good deleted uploads whose retention is over, and what erasures name. The rows say what is to be
// removed, and go after the objects, so that a pass can be cut off anywhere: the next one goes on.
type Eraser struct {
	DB     *storage.DB // as an operator
	Bucket *object.Bucket
	Leases *lease.Manager
	Log    *slog.Logger

	tables []table
}

const (
	// purgesAtOnce is how many uploads are removed side by side. Nearly all of the time is waiting for S3.
	purgesAtOnce = 8
	// seizeTimeout is how long the holder of an upload's lease may take to let go. Otherwise the upload is left for the next pass.
	seizeTimeout = 20 * time.Second
)

// Erase makes one pass. What fails, or is in use, stays for the next pass and keeps nothing else from being removed.
func (e *Eraser) Erase(ctx context.Context) error {
	return e.DB.Alone(ctx, "erase", func(ctx context.Context) (err error) {
		if e.tables, err = tenantTables(ctx, e.DB); err != nil {
			return err
		}
		return errors.Join(e.startDue(ctx), e.eraseAll(ctx), e.purgeDue(ctx))
	})
}

// startDue starts the erasures whose delay is over.
func (e *Eraser) startDue(ctx context.Context) error {
	due, err := scheduled(ctx, e.DB)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range due {
		ctx := asEraser(ctx, s.Tenant)
		if err := e.DB.InTenant(ctx, func(tx storage.Tx) error { return start(ctx, tx, s) }); err != nil {
			errs = append(errs, fmt.Errorf("erasure %s: %w", s.ID, err))
		}
	}
	return errors.Join(errs...)
}

// eraseAll takes steps of all running erasures in turn, so that a small one does not wait for a large one.
func (e *Eraser) eraseAll(ctx context.Context) error {
	erasures, err := running(ctx, e.DB)
	if err != nil {
		return err
	}
	var errs []error
	var going []*advance
	for _, r := range erasures {
		if err := hide(asEraser(ctx, r.Tenant), e.DB, r); err != nil {
			errs = append(errs, err)
			continue
		}
		going = append(going, &advance{Erasure: r})
	}
	for len(going) > 0 && ctx.Err() == nil {
		going = slices.DeleteFunc(going, func(g *advance) bool {
			more, err := e.step(asEraser(ctx, g.Tenant), g)
			if err != nil {
				errs = append(errs, fmt.Errorf("erasure %s: %w", g.ID, err))
			}
			return !more
		})
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// An advance is how far an erasure has come in a pass.
type advance struct {
	Erasure
	after uuid.UUID // the upload that was removed last, or left
	left  bool      // some upload could not be removed
}

// step does a bounded piece of the erasure. It returns true if the erasure can go on in this pass.
func (e *Eraser) step(ctx context.Context, a *advance) (more bool, err error) {
	page, err := e.purgeSome(ctx, a)
	switch {
	case page:
		return true, err
	case err != nil || a.left:
		return false, err
	}
	switch a.Kind {
	case OfTenant:
		more, err = e.stepTenant(ctx, a.Erasure)
	case OfUser:
		err = e.DB.InTenant(ctx, func(tx storage.Tx) error { return eraseUserRows(ctx, tx, a.Erasure, e.tables) })
	}
	if err != nil || more {
		return more && err == nil, err
	}
	err = e.DB.InTenant(ctx, func(tx storage.Tx) error { return finish(ctx, tx, a.Erasure, e.tables) })
	switch {
	case errors.Is(err, storage.ErrWrongStatus): // an upload began meanwhile; the next pass hides it
		return false, nil
	case err != nil:
		return false, err
	}
	e.Log.InfoContext(ctx, "erasure done", slog.String("erasure_id", a.ID.String()), slog.String("kind", string(a.Kind)), tenant.LogAttr(ctx))
	return false, nil
}

// purgeSome removes a page of the uploads of an erasure, each by itself. It returns false when there are no
// more. One that cannot be removed stays for the next pass.
func (e *Eraser) purgeSome(ctx context.Context, a *advance) (page bool, err error) {
	found, err := storage.InTenant(ctx, e.DB, func(tx storage.Tx) ([]storage.UploadRef, error) {
		return remaining(ctx, tx, a.Erasure, a.after)
	})
	if err != nil || len(found) == 0 {
		return false, err
	}
	a.after = found[len(found)-1].Upload
	err = e.purgeEach(ctx, found, a.ID)
	a.left = a.left || err != nil
	return true, err
}

// purgeEach removes uploads side by side, as many of them as it can.
func (e *Eraser) purgeEach(ctx context.Context, refs []storage.UploadRef, erasure uuid.UUID) error {
	errs := make([]error, len(refs))
	var group errgroup.Group
	group.SetLimit(purgesAtOnce)
	for i, ref := range refs {
		group.Go(func() error {
			var err error
			if p := panics.Try(func() { err = e.purge(asEraser(ctx, ref.Tenant), ref.Upload, erasure) }); p != nil {
				err = p.AsError()
			}
			if err != nil {
				errs[i] = fmt.Errorf("remove upload %s: %w", ref.Upload, err)
			}
			return nil
		})
	}
	_ = group.Wait() // each has its own error
	return errors.Join(errs...)
}

// purge removes one upload: its objects, then its rows. The holder of its lease is asked to let go first. What a holder that
// froze writes later, the reconciler knows from the audit log.
func (e *Eraser) purge(ctx context.Context, id, erasure uuid.UUID) error {
	var project string
	var inUse error
	err := e.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		project, err = seal(ctx, tx, id)
		if errors.Is(err, queue.ErrRunning) { // it is sealed all the same
			inUse, err = err, nil
		}
		return err
	})
	if err := errors.Join(err, inUse); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, seizeTimeout)
	defer cancel()
	held, err := e.Leases.Acquire(waiting, id, nil) // which is given up to nobody
	if err != nil {
		return err
	}
	defer held.Close(ctx)
	who, err := tenant.From(ctx)
	if err != nil {
		return err
	}
	objects, err := e.Bucket.RemoveUpload(ctx, object.Keys{Tenant: who.Tenant, Project: project, Upload: id})
	if err != nil {
		return err
	}
	return e.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := purge(ctx, tx, id, e.tables); err != nil || erasure == uuid.Nil {
			return err
		}
		return countErased(ctx, tx, erasure, 1, objects)
	})
}

// stepTenant removes what is left of a tenant once nobody writes any of its uploads: first its jobs, which would write
// thumbnails, then its objects, then its rows.
func (e *Eraser) stepTenant(ctx context.Context, r Erasure) (more bool, err error) {
	if err := queue.DropTenant(ctx, e.DB, r.Tenant); err != nil {
		return false, err
	}
	objects, err := e.Bucket.RemoveSomeOf(ctx, r.Tenant)
	if err != nil {
		return false, err
	}
	err = e.DB.InTenant(ctx, func(tx storage.Tx) error {
		if objects > 0 {
			more = true
			return countErased(ctx, tx, r.ID, 0, objects)
		}
		more, err = eraseTenantRows(ctx, tx, r, e.tables)
		return err
	})
	return more, err
}

// purgeDue removes the deleted uploads whose retention is over.
func (e *Eraser) purgeDue(ctx context.Context) error {
	var errs []error
	var some []storage.UploadRef
	flush := func() {
		if err := e.purgeEach(ctx, some, uuid.Nil); err != nil {
			errs = append(errs, err)
		}
		some = some[:0]
	}
	for ref, err := range due(ctx, e.DB) {
		if err != nil {
			errs = append(errs, err)
			break
		}
		if some = append(some, ref); len(some) >= 10*purgesAtOnce {
			flush()
		}
	}
	flush()
	return errors.Join(errs...)
}

func asEraser(ctx context.Context, id uuid.UUID) context.Context {
	return tenant.With(ctx, tenant.Identity{Tenant: id, User: tenant.Eraser, Role: tenant.Admin})
}
