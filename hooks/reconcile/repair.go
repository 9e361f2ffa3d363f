package reconcile

import (
	"context"
	"errors"
	"log/slog"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/processing"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
)

// underLease runs fn under the upload's lease: nobody else can write it or change where its bytes are meanwhile, and writes
// of a holder that froze are fenced. A lease that a live process holds is [lease.ErrHeld]; the holder is not asked to
// let go.
func (r *Reconciler) underLease(ctx context.Context, f Finding, fn func(*lease.Lease) error) error {
	held, err := r.Leases.Try(ctx, f.Upload, nil)
	if err != nil {
		return err
	}
	defer held.Close(ctx)
	return fn(held)
}

// repaired runs a repair of rows and enters it into the timeline, in one transaction.
func (r *Reconciler) repaired(ctx context.Context, f Finding, repair func(storage.Tx) error) error {
	return r.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := repair(tx); err != nil {
			return err
		}
		tx.Append(ctx, f.Upload, storage.Entry{Event: storage.EventRepaired, Detail: map[string]any{"kind": f.Kind}})
		return nil
	})
}

// finish does as a HEAD of the client would. The store's error is meant for clients; the row says what has become of the
// upload.
func (r *Reconciler) finish(ctx context.Context, f Finding) error {
	return r.underLease(ctx, f, func(held *lease.Lease) error {
		err := r.DB.InTenant(ctx, func(tx storage.Tx) error { return confirm(ctx, tx, f.Upload, finishCutOff, r.StuckGrace) })
		if err != nil {
			return err
		}
		_, cause := r.Finish.OpenUnder(ctx, f.Upload, held)
		return r.repaired(ctx, f, func(tx storage.Tx) error {
			u, err := tx.Upload(ctx, f.Upload)
			if err == nil && u.Status.Receiving() {
				return errors.Join(errUnfinished, cause)
			}
			return err
		})
	})
}

var errUnfinished = errors.New("the store did not finish it")

// expire ends the upload in its rows first. It stays charged until S3 has nothing more of it, and is found as an ended upload if
// that is not removed here.
func (r *Reconciler) expire(ctx context.Context, f Finding) error {
	return r.underLease(ctx, f, func(*lease.Lease) error {
		if err := r.repaired(ctx, f, func(tx storage.Tx) error { return r.expireRows(ctx, tx, f.Upload) }); err != nil {
			return err
		}
		r.Uploads.Into(storage.Expired).Inc()
		if err := r.Finish.Release(ctx, f.Upload); err != nil {
			r.Log.WarnContext(ctx, "parts of an expired upload are left in S3", slog.String("upload_id", f.Upload.String()), slog.Any("err", err))
		}
		return nil
	})
}

// expireRows ends an upload that is idle. Any other is [storage.ErrWrongStatus].
func (r *Reconciler) expireRows(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
	if err := tx.LockTenant(ctx); err != nil { // before the upload's row
		return err
	}
	if err := confirm(ctx, tx, id, idle, r.Expiry); err != nil {
		return err
	}
	return tx.Move(ctx, id, storage.Transition{Move: storage.MoveExpire})
}

// release removes what S3 has of an upload that has ended, and refunds it.
func (r *Reconciler) release(ctx context.Context, f Finding) error {
	return r.underLease(ctx, f, func(*lease.Lease) error {
		remaining, err := storage.InTenant(ctx, r.DB, func(tx storage.Tx) ([]storage.Remain, error) {
			return storage.Remaining(ctx, tx, []uuid.UUID{f.Upload})
		})
		if err == nil && len(remaining) == 0 {
			err = storage.ErrWrongStatus
		}
		if err != nil {
			return err
		}
		if err := r.Finish.Release(ctx, f.Upload); err != nil {
			return err
		}
		return r.repaired(ctx, f, func(storage.Tx) error { return nil })
	})
}

func (r *Reconciler) enqueue(ctx context.Context, f Finding) error {
	return r.repaired(ctx, f, func(tx storage.Tx) error {
		if err := confirm(ctx, tx, f.Upload, withoutJob, r.StuckGrace); err != nil {
			return err
		}
		return r.Queue.Enqueue(ctx, tx, f.Upload)
	})
}

func (r *Reconciler) deadLetter(ctx context.Context, f Finding) error {
	err := r.repaired(ctx, f, func(tx storage.Tx) error {
		if err := confirm(ctx, tx, f.Upload, jobGivenUp, r.StuckGrace); err != nil {
			return err
		}
		return processing.GiveUp(ctx, tx, f.Upload)
	})
	if err == nil {
		r.Uploads.Into(storage.Failed).Inc()
	}
	return err
}

func (r *Reconciler) dropTail(ctx context.Context, f Finding) error {
	return r.underLease(ctx, f, func(*lease.Lease) error {
		return r.repaired(ctx, f, func(tx storage.Tx) error { return dropTails(ctx, tx, f.Upload) })
	})
}

func (r *Reconciler) settleQuota(ctx context.Context, _ Finding) error {
	return r.DB.InTenant(ctx, func(tx storage.Tx) error { return settleQuota(ctx, tx) }) // a tenant has no timeline
}

func (r *Reconciler) abort(ctx context.Context, f Finding) error {
	return r.remove(ctx, f, func(c claim) bool { return !c.ownsMultipart(f.MultipartID) })
}

func (r *Reconciler) deleteOrphaned(ctx context.Context, f Finding) error {
	keys, _ := object.ParseKey(f.Key)
	return r.remove(ctx, f, func(c claim) bool { return orphaned(c, keys, f.Key) })
}

// remove removes something of an upload from S3 if it is still orphaned.
func (r *Reconciler) remove(ctx context.Context, f Finding, isOrphan func(claim) bool) error {
	return r.underLease(ctx, f, func(*lease.Lease) error {
		err := r.DB.InTenant(ctx, func(tx storage.Tx) error {
			c, err := readClaim(ctx, tx, f.Upload)
			if err == nil && !isOrphan(c) {
				return storage.ErrWrongStatus
			}
			return err
		})
		if err != nil {
			return err
		}
		// Keys carry a fence and multipart uploads an id, and neither is used again: a late request deletes nothing else.
		if err := r.erase(ctx, f); err != nil {
			return err
		}
		return r.repaired(ctx, f, func(storage.Tx) error { return nil })
	})
}

func (r *Reconciler) erase(ctx context.Context, f Finding) error {
	if f.MultipartID != "" {
		return r.Bucket.Abort(ctx, f.Key, f.MultipartID)
	}
	return r.Bucket.Delete(ctx, f.Key)
}

// deleteUnknown takes no lease and writes no timeline, for there is no upload. Ids are never used again, so none can come.
func (r *Reconciler) deleteUnknown(ctx context.Context, f Finding) error {
	_, err := findClaim(ctx, r.DB, f.Tenant, f.Upload)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return r.erase(ctx, f)
	case err != nil:
		return err
	}
	return storage.ErrWrongStatus
}

// lose ends an upload whose object is gone. It asks S3 once more.
func (r *Reconciler) lose(ctx context.Context, f Finding) error {
	_, err := r.Bucket.Size(ctx, f.Key)
	switch {
	case err == nil:
		return storage.ErrWrongStatus
	case !errors.Is(err, object.ErrNoObject):
		return err
	}
	err = r.repaired(ctx, f, func(tx storage.Tx) error {
		t := storage.MoveLose.Because(storage.Failure{Reason: storage.ReasonLost, Detail: hooks.LostDetail})
		t.If, t.Args = "u.object_key = $5", append(t.Args, f.Key)
		return tx.Move(ctx, f.Upload, t)
	})
	if err == nil {
		r.Uploads.Into(storage.Failed).Inc()
	}
	return err
}
