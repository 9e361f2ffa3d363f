package hooks

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

const (
	// releaseTime bounds how long a request works on the removal of what its uploads left in S3. The reconciler does the rest.
	releaseTime = 20 * time.Second
	// releasesAtOnce is how many uploads of a batch are removed side by side. Nearly all of the time is waiting for S3.
	releasesAtOnce = 16
)

// Release removes from S3 what it has of uploads that have ended, and then refunds what they were charged: a refund follows the
// bytes. Nobody may hold their leases but the caller. Uploads that are not charged any more do not change. It can be repeated
// from wherever it was cut off.
func (s *Uploads) Release(ctx context.Context, ids ...uuid.UUID) error {
	who, err := tenant.From(ctx)
	if err != nil {
		return err
	}
	remaining, err := storage.InTenant(ctx, s.DB, func(tx storage.Tx) ([]storage.Remain, error) {
		return storage.Remaining(ctx, tx, ids)
	})
	if err != nil {
		return err
	}
	var errs []error
	var gone []uuid.UUID
	for _, r := range remaining {
		err := s.Bucket.RemoveUnfinished(ctx, object.Keys{Tenant: who.Tenant, Project: r.Project, Upload: r.ID}, r.ObjectKey, r.MultipartID)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, r.ID)
	}
	if len(gone) > 0 {
		errs = append(errs, s.DB.InTenant(ctx, func(tx storage.Tx) error {
			_, err := storage.Release(ctx, tx, gone)
			return err
		}))
	}
	return errors.Join(errs...)
}

// release is [Uploads.Release] at the end of a request that ended the uploads: what it cannot do now, the reconciler does. The
// client may have gone.
func (s *Uploads) release(ctx context.Context, ids ...uuid.UUID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	if err := s.Release(ctx, ids...); err != nil {
		s.logRemains(ctx, ids[0], err)
	}
}

// ReleaseEach is [Uploads.Release] for uploads that others may be writing: it asks these to let go, and waits for them. What it
// cannot do within twenty seconds, the reconciler does.
func (s *Uploads) ReleaseEach(ctx context.Context, ids []uuid.UUID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(releasesAtOnce)
	for _, id := range ids {
		group.Go(func() error {
			if err := s.seizeAndRelease(ctx, id); err != nil {
				s.logRemains(ctx, id, err)
			}
			return nil
		})
	}
	_ = group.Wait() // each has logged its own
}

func (s *Uploads) seizeAndRelease(ctx context.Context, id uuid.UUID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	held, err := s.Leases.Acquire(ctx, id, nil) // which is given up to nobody, and soon over
	if err != nil {
		return err
	}
	defer held.Close(ctx)
	return s.Release(ctx, id)
}

func (s *Uploads) logRemains(ctx context.Context, id uuid.UUID, err error) {
	level := slog.LevelWarn
	if errors.Is(err, lease.ErrHeld) || errors.Is(err, context.DeadlineExceeded) { // others are slow, or there are many
		level = slog.LevelInfo
	}
	s.Log.LogAttrs(ctx, level, "ended upload left something in S3 and stays charged", slog.String("upload_id", id.String()),
		tenant.LogAttr(ctx), slog.Any("err", err))
}
