package object

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
)

// releaseTime bounds how long giving a lease back may take once its request is over.
const releaseTime = 5 * time.Second

type leaseKey struct{}

// WithLeaseSlot prepares ctx to carry the lease that tusd takes for its request to the store that writes
// under it. tusd gives both the same request context and nothing else in common.
func WithLeaseSlot(ctx context.Context) context.Context {
	return context.WithValue(ctx, leaseKey{}, new(leaseSlot))
}

// A leaseSlot is filled by the locker and read by the store, one after the other in one request.
type leaseSlot struct {
	lease  *lease.Lease
	waited time.Duration // for the lease
	cut    error         // why the request's body ended early; nil if it did not
	// letGo is set once somebody else wants the upload. tusd passes that on only to a body that is being
	// read already, and only once; a request that has not come so far must see it too.
	letGo atomic.Bool
}

func slotIn(ctx context.Context) *leaseSlot {
	slot, _ := ctx.Value(leaseKey{}).(*leaseSlot)
	return slot
}

// fenceIn returns the fence of the request's lease; 0, which is nobody's, without one.
func fenceIn(ctx context.Context) int64 {
	slot := slotIn(ctx)
	if slot == nil || slot.lease == nil {
		return 0
	}
	return slot.lease.Fence()
}

// A Locker is tusd's view of [lease.Manager].
type Locker struct {
	Leases *lease.Manager
	Log    *slog.Logger
}

// NewLock implements [handler.Locker]. An id that is none of ours is not found.
func (l Locker) NewLock(id string) (handler.Lock, error) {
	upload, err := uuid.Parse(id)
	if err != nil {
		return nil, handler.ErrNotFound
	}
	return &lock{Locker: l, upload: upload}, nil
}

type lock struct {
	Locker
	upload uuid.UUID
	ctx    context.Context //nolint:containedctx // tusd's Unlock takes none
	lease  *lease.Lease
}

// Lock implements [handler.Lock]. A wait that ends in vain is [handler.ErrFileLocked] (423), because
// clients retry that, and never tusd's lock timeout (500), after which tus-js-client begins again from
// zero.
func (l *lock) Lock(ctx context.Context, requestUnlock func()) error {
	slot := slotIn(ctx)
	if slot == nil {
		return fmt.Errorf("lock upload %s: the request has no slot for a lease", l.upload)
	}
	began := time.Now()
	taken, err := l.Leases.Acquire(ctx, l.upload, func() {
		slot.letGo.Store(true)
		requestUnlock()
	})
	switch {
	case errors.Is(err, lease.ErrHeld):
		return handler.ErrFileLocked
	case errors.Is(err, storage.ErrNotFound):
		return handler.ErrNotFound
	case err != nil:
		return err
	}
	l.ctx, l.lease, slot.lease, slot.waited = ctx, taken, taken, time.Since(began)
	return nil
}

// Unlock implements [handler.Lock]. It runs when the request is over, dropped connections included.
func (l *lock) Unlock() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), releaseTime)
	defer cancel()
	if err := l.lease.Release(ctx); err != nil {
		// tusd ignores what Unlock returns. The lease runs out by itself.
		l.Log.WarnContext(ctx, "lease not given back", slog.Any("err", err))
	}
	return nil
}
