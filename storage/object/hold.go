package object

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// holdTime bounds how long Hold waits for this process to become a holder of leases.
const holdTime = 10 * time.Second

// Seize takes the lease as [Locker.Hold] does, and asks whoever holds it to let go. It waits for that for as long as ctx
// lasts and wait says: then it is [lease.ErrHeld]. What is written under the lease shows its fence.
func (l Locker) Seize(ctx context.Context, upload uuid.UUID, wait time.Duration) (fence int64, release func(), err error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	lease, err := l.Leases.Acquire(waiting, upload, func() {}) // which is given up to nobody
	if err != nil {
		return 0, nil, err
	}
	lk := &lock{Locker: l, upload: upload, ctx: ctx, lease: lease}
	return lease.Fence(), func() { _ = lk.Unlock() }, nil // which logs what goes wrong
}

// Hold takes the lease on an upload of the tenant in ctx for somebody who is no request of a client, unless
// anybody living holds it: then it is [lease.ErrHeld]. Under the context that it returns a [Store] may
// write. release must be called in the end.
func (l Locker) Hold(ctx context.Context, upload uuid.UUID) (held context.Context, release func(), err error) {
	held = WithLeaseSlot(ctx)
	slot := slotIn(held)
	wait, cancel := context.WithTimeout(held, holdTime)
	defer cancel()
	lease, err := l.Leases.Try(wait, upload, func() { slot.letGo.Store(true) })
	if err != nil {
		return nil, nil, err
	}
	slot.lease = lease
	lk := &lock{Locker: l, upload: upload, ctx: held, lease: lease}
	return held, func() { _ = lk.Unlock() }, nil // which logs what goes wrong
}
