package hooks

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tramo/tramo/processing"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// underLease runs fn under the upload's lease: nobody else can write it or change where its bytes are meanwhile, and what a
// holder that froze writes later counts no more. A lease that somebody living holds is [lease.ErrHeld], and is not
// asked for.
func (r *Reconciler) underLease(ctx context.Context, f Finding, fn func(context.Context) error) error {
	held, release, err := r.Locker.Hold(ctx, f.Upload)
	if err != nil {
		return err
	}
	defer release()
	return fn(held)
}

// repaired runs a repair of rows and enters it into the timeline, in one transaction.
func (r *Reconciler) repaired(ctx context.Context, f Finding, repair func(storage.Tx) error) error {
	return r.DB.InTenant(ctx, func(tx storage.Tx) error {
		if err := repair(tx); err != nil {
			return err
		}
		return tx.Append(ctx, f.Upload, storage.Entry{Event: storage.EventRepaired, Detail: map[string]any{"kind": f.Kind}})
	})
}

// finish does as a HEAD of the client's would. What the store answers is meant for clients: the row says what has become of
// the upload.
func (r *Reconciler) finish(ctx context.Context, f Finding) error {
	return r.underLease(ctx, f, func(ctx context.Context) error {
		err := r.DB.InTenant(ctx, func(tx storage.Tx) error { return tx.Confirm(ctx, f.Upload, storage.FinishCutOff, r.StuckGrace) })
		if err != nil {
			return err
		}
		_, cause := r.Store.GetUpload(ctx, f.Upload.String())
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

// expire ends the upload in its rows first. What S3 keeps of it then belongs to nobody, and is found as that if it is not
// removed here.
func (r *Reconciler) expire(ctx context.Context, f Finding) error {
	return r.underLease(ctx, f, func(ctx context.Context) error {
		var c storage.Claim
		err := r.repaired(ctx, f, func(tx storage.Tx) (err error) {
			if err = tx.Expire(ctx, f.Upload, r.Expiry); err != nil {
				return err
			}
			c, err = tx.Claim(ctx, f.Upload)
			return err
		})
		if err != nil {
			return err
		}
		r.Uploads.became(storage.Expired)
		if err := r.discard(ctx, c); err != nil {
			r.Log.WarnContext(ctx, "expired upload left something in S3", slog.String("upload_id", f.Upload.String()), slog.Any("err", err))
		}
		return nil
	})
}

func (r *Reconciler) discard(ctx context.Context, c storage.Claim) error {
	if c.ContentKey == nil {
		return nil
	}
	var err error
	if c.MultipartID != nil {
		err = r.Bucket.Abort(ctx, *c.ContentKey, *c.MultipartID)
	}
	return errors.Join(err, r.Bucket.Delete(ctx, *c.ContentKey))
}

func (r *Reconciler) enqueue(ctx context.Context, f Finding) error {
	return r.repaired(ctx, f, func(tx storage.Tx) error {
		if err := tx.Confirm(ctx, f.Upload, storage.WithoutJob, r.StuckGrace); err != nil {
			return err
		}
		return r.Queue.Enqueue(ctx, tx, f.Upload)
	})
}

func (r *Reconciler) bury(ctx context.Context, f Finding) error {
	err := r.repaired(ctx, f, func(tx storage.Tx) error {
		return processing.GiveUp(ctx, tx, f.Upload)
	})
	if err == nil {
		r.Uploads.became(storage.Failed)
	}
	return err
}

func (r *Reconciler) dropTail(ctx context.Context, f Finding) error {
	return r.underLease(ctx, f, func(ctx context.Context) error {
		return r.repaired(ctx, f, func(tx storage.Tx) error { return tx.DropUnownedTail(ctx, f.Upload) })
	})
}

func (r *Reconciler) settleQuota(ctx context.Context, _ Finding) error {
	return r.DB.InTenant(ctx, func(tx storage.Tx) error { return tx.SettleQuota(ctx) }) // a tenant has no timeline
}

func (r *Reconciler) abort(ctx context.Context, f Finding) error {
	return r.remove(ctx, f, func(c storage.Claim) bool { return !c.OwnsMultipart(f.MultipartID) })
}

func (r *Reconciler) deleteUnowned(ctx context.Context, f Finding) error {
	keys, _ := object.ParseKey(f.Key)
	return r.remove(ctx, f, func(c storage.Claim) bool { return unowned(c, keys, f.Key) })
}

// remove removes something of an upload from S3 if it is still nobody's.
func (r *Reconciler) remove(ctx context.Context, f Finding, nobodys func(storage.Claim) bool) error {
	return r.underLease(ctx, f, func(ctx context.Context) error {
		err := r.DB.InTenant(ctx, func(tx storage.Tx) error {
			c, err := tx.Claim(ctx, f.Upload)
			if err == nil && !nobodys(c) {
				return storage.ErrWrongStatus
			}
			return err
		})
		if err != nil {
			return err
		}
		// Keys carry a fence and multipart uploads an id, and neither is used again: this can come late and harm nobody.
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

// deleteUnknown has no upload whose lease or timeline there were. Ids are never used again, so none can come.
func (r *Reconciler) deleteUnknown(ctx context.Context, f Finding) error {
	ref := storage.UploadRef{Tenant: f.Tenant, Upload: f.Upload}
	claims, err := r.DB.ClaimsOf(ctx, ref)
	if err != nil {
		return err
	}
	if _, known := claims[ref]; known {
		return storage.ErrWrongStatus
	}
	return r.erase(ctx, f)
}

// lose ends an upload whose object is gone, after S3 has been asked once more.
func (r *Reconciler) lose(ctx context.Context, f Finding) error {
	_, err := r.Bucket.Size(ctx, f.Key)
	switch {
	case err == nil:
		return storage.ErrWrongStatus
	case !errors.Is(err, object.ErrNoObject):
		return err
	}
	err = r.repaired(ctx, f, func(tx storage.Tx) error {
		return tx.Lose(ctx, f.Upload, f.Key, storage.Failure{Reason: storage.ReasonLost, Detail: lostDetail})
	})
	if err == nil {
		r.Uploads.became(storage.Failed)
	}
	return err
}
