package live

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/sourcegraph/conc/panics"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

const (
	// totalsInterval is the least time between two messages with the totals of a batch.
	totalsInterval = time.Second
	// retryDelay is how long a feed waits after an error of Postgres.
	retryDelay = time.Second
	// chunkSize is how many uploads are read and sent together.
	chunkSize = 500
)

// A feed sends a tenant's changes to its listeners. One goroutine reads for all of them, so that the messages of an upload
// are in order.
type feed struct {
	hub    *Hub
	tenant uuid.UUID
	wake   chan struct{} // there is work
	primed chan struct{} // closed once all changes from now on will be sent
	closed chan struct{} // closed when the last listener has left

	mu        sync.Mutex
	listeners map[*listener]struct{}
	pending   pending
	mark      time.Time // changes committed before it are sent, except those of transactions longer than Overlap

	// Only run uses these.
	sent      map[uuid.UUID]version  // recently changed uploads, as they were sent
	announced map[uuid.UUID]struct{} // recent announcements that were sent
	totals    map[uuid.UUID]struct{} // batches whose totals are to be sent
	totalsAt  time.Time              // when totals were sent last
}

// pending is the work of a feed.
type pending struct {
	poll                            bool // for changes without a notification
	uploads, batches, announcements map[uuid.UUID]struct{}
}

func newFeed(h *Hub, owner uuid.UUID) *feed {
	return &feed{
		hub: h, tenant: owner, wake: make(chan struct{}, 1), primed: make(chan struct{}), closed: make(chan struct{}),
		listeners: make(map[*listener]struct{}), pending: newPending(),
		sent: make(map[uuid.UUID]version), announced: make(map[uuid.UUID]struct{}), totals: make(map[uuid.UUID]struct{}),
	}
}

func newPending() pending {
	return pending{
		uploads: make(map[uuid.UUID]struct{}), batches: make(map[uuid.UUID]struct{}), announcements: make(map[uuid.UUID]struct{}),
	}
}

// add lets a listener in, unless its user or its tenant has too many. The hub's mutex is held.
func (f *feed) add(l *listener) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	same := 0
	for other := range f.listeners {
		if other.who.User == l.who.User {
			same++
		}
	}
	if same >= f.hub.PerUser || len(f.listeners) >= f.hub.PerTenant {
		return problem.ErrTooManyListeners
	}
	f.listeners[l] = struct{}{}
	return nil
}

// remove returns how many listeners are left.
func (f *feed) remove(l *listener) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listeners, l)
	return len(f.listeners)
}

// notified adds what a notification names to the pending work.
func (f *feed) notified(c storage.Changes) {
	f.mu.Lock()
	add(f.pending.uploads, c.Uploads)
	add(f.pending.batches, c.Batches)
	add(f.pending.announcements, c.Announcements)
	f.mu.Unlock()
	f.rouse()
}

func add(set map[uuid.UUID]struct{}, ids []uuid.UUID) {
	for _, id := range ids {
		set[id] = struct{}{}
	}
}

// poll makes the feed look for changes without a notification.
func (f *feed) poll() {
	f.mu.Lock()
	f.pending.poll = true
	f.mu.Unlock()
	f.rouse()
}

func (f *feed) rouse() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// takePending returns the pending work and empties it.
func (f *feed) takePending() pending {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pending
	f.pending = newPending()
	return p
}

// restore adds work that failed to the pending work again.
func (f *feed) restore(p pending) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.Copy(f.pending.uploads, p.uploads)
	maps.Copy(f.pending.batches, p.batches)
	maps.Copy(f.pending.announcements, p.announcements)
	f.pending.poll = f.pending.poll || p.poll
}

// resumeID is the id of the messages that are sent now.
func (f *feed) resumeID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return formatResumeID(f.mark)
}

// run sends changes to the listeners until the last one has left or ctx is done.
func (f *feed) run(ctx context.Context) {
	polling := time.NewTicker(f.hub.Recheck)
	defer polling.Stop()
	again := time.NewTimer(0) // at once, to prime
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.closed:
			return
		case <-f.wake:
		case <-again.C:
		case <-polling.C:
			f.poll()
		}
		var wait time.Duration
		var err error
		if p := panics.Try(func() { wait, err = f.work(ctx) }); p != nil {
			f.poll() // for what was taken and not sent
			err = p.AsError()
		}
		if err != nil && ctx.Err() == nil {
			f.hub.Log.WarnContext(ctx, "changes not sent to listeners", slog.String("tenant_id", f.tenant.String()), slog.Any("err", err))
			wait = retryDelay
		}
		if wait > 0 {
			again.Reset(wait)
		}
	}
}

// work does the pending work. It returns after how long there is more to do, or 0.
func (f *feed) work(ctx context.Context) (wait time.Duration, err error) {
	select {
	case <-f.primed:
	default:
		if err := f.prime(ctx); err != nil {
			return 0, err
		}
	}
	p := f.takePending()
	next, err := f.send(ctx, p)
	if err != nil {
		f.restore(p)
		return 0, err
	}
	if !next.IsZero() {
		f.mu.Lock()
		f.mark = next // not earlier: a listener that left in the middle has to be sent all of it again
		f.mu.Unlock()
	}
	return f.sendTotals(ctx)
}

// as acts for all listeners, or for those that see only completed uploads: row-level security hides the others.
func (f *feed) as(ctx context.Context, onlyCompleted bool) context.Context {
	who := tenant.Identity{Tenant: f.tenant}
	if onlyCompleted {
		who.Role = tenant.Inversionista
	}
	return tenant.With(ctx, who)
}

// prime takes recent changes as sent: a listener that joins later reads them in its snapshot.
func (f *feed) prime(ctx context.Context) error {
	c, err := f.recent(ctx, time.Time{})
	if err != nil {
		return err
	}
	f.sent = c.uploads
	for _, a := range c.announcements {
		f.announced[a.ID] = struct{}{}
	}
	f.mu.Lock()
	f.mark = c.now
	f.mu.Unlock()
	close(f.primed)
	return nil
}

// changes are those that a poll found.
type changes struct {
	now           time.Time
	uploads       map[uuid.UUID]version
	announcements []announced
}

// recent reads what has changed since Overlap before mark. The zero mark is now.
func (f *feed) recent(ctx context.Context, mark time.Time) (c changes, err error) {
	ctx = f.as(ctx, false)
	err = f.hub.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		if c.now, err = clock(ctx, tx); err != nil {
			return err
		}
		if mark.IsZero() {
			mark = c.now
		}
		since := mark.Add(-f.hub.Overlap)
		if c.uploads, err = movedSince(ctx, tx, since); err != nil {
			return err
		}
		c.announcements, err = announcementsSince(ctx, tx, since)
		return err
	})
	return c, err
}

// send sends what is pending. If that includes a poll, it returns the time before which all changes are sent.
func (f *feed) send(ctx context.Context, p pending) (next time.Time, err error) {
	var c changes
	if p.poll {
		if c, err = f.recent(ctx, f.mark); err != nil {
			return next, err
		}
		for id, v := range c.uploads {
			if _, notified := p.uploads[id]; !notified && f.sent[id] != v {
				p.uploads[id] = struct{}{}
				f.hub.Metrics.missed.Inc()
			}
		}
		for _, a := range c.announcements {
			if _, sent := f.announced[a.ID]; !sent {
				p.announcements[a.ID] = struct{}{}
			}
		}
	}
	if err := f.sendUploads(ctx, slices.Collect(maps.Keys(p.uploads))); err != nil {
		return next, err
	}
	if err := f.sendAnnouncements(ctx, slices.Collect(maps.Keys(p.announcements))); err != nil {
		return next, err
	}
	maps.Copy(f.totals, p.batches)
	if p.poll {
		f.prune(c)
	}
	return c.now, nil
}

// prune keeps of what was sent only what the next poll would find.
func (f *feed) prune(c changes) {
	maps.DeleteFunc(f.sent, func(id uuid.UUID, _ version) bool { _, recent := c.uploads[id]; return !recent })
	for id, v := range c.uploads {
		if _, sent := f.sent[id]; !sent {
			f.sent[id] = v // no listener may see it
		}
	}
	clear(f.announced)
	for _, a := range c.announcements {
		f.announced[a.ID] = struct{}{}
	}
}

// audience returns the listeners that see only completed uploads, or those that see all.
func (f *feed) audience(onlyCompleted bool) (ls []*listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.listeners {
		if l.who.Role.SeesOnlyCompleted() == onlyCompleted {
			ls = append(ls, l)
		}
	}
	return ls
}

// eachAudience reads messages for each audience that has listeners, and sends them.
func (f *feed) eachAudience(ctx context.Context, read func(context.Context) ([]*message, error)) error {
	for _, onlyCompleted := range []bool{false, true} {
		ls := f.audience(onlyCompleted)
		if len(ls) == 0 {
			continue
		}
		ms, err := read(f.as(ctx, onlyCompleted))
		if err != nil {
			return err
		}
		f.deliver(ls, ms)
	}
	return nil
}

func (f *feed) sendUploads(ctx context.Context, ids []uuid.UUID) error {
	for chunk := range slices.Chunk(ids, chunkSize) {
		sent := make(map[uuid.UUID]version, len(chunk)) // the oldest version that any listener was sent
		err := f.eachAudience(ctx, func(ctx context.Context) ([]*message, error) {
			ms, err := f.hub.readUploads(ctx, func(ctx context.Context, tx storage.Tx) ([]storage.Upload, error) {
				return tx.FindUploads(ctx, `where u.tenant_id = $1 and u.id = any($2) and u.kind <> 'partial' order by u.updated_at, u.id`, chunk)
			})
			for _, m := range ms {
				if _, known := sent[m.subject]; !known {
					sent[m.subject] = m.version
					f.hub.Metrics.lag.Observe(time.Since(m.moved).Seconds())
				}
				if m.batch != uuid.Nil {
					f.totals[m.batch] = struct{}{}
				}
			}
			return ms, err
		})
		if err != nil {
			return err
		}
		maps.Copy(f.sent, sent)
	}
	return nil
}

func (f *feed) sendAnnouncements(ctx context.Context, ids []uuid.UUID) error {
	if len(ids) == 0 {
		return nil
	}
	return f.eachAudience(ctx, func(ctx context.Context) ([]*message, error) {
		var as []announced
		err := f.hub.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
			as, err = announcementsByID(ctx, tx, ids)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, a := range as {
			f.announced[a.ID] = struct{}{}
		}
		return announcementMessages(as)
	})
}

// sendTotals sends the totals of batches that have changed, at most once in totalsInterval. It returns after how long
// there are more to send, or 0.
func (f *feed) sendTotals(ctx context.Context) (wait time.Duration, err error) {
	if len(f.totals) == 0 {
		return 0, nil
	}
	if wait := totalsInterval - time.Since(f.totalsAt); wait > 0 {
		return wait, nil
	}
	ids := slices.Collect(maps.Keys(f.totals))
	err = f.eachAudience(ctx, func(ctx context.Context) (ms []*message, err error) {
		err = f.hub.DB.InTenant(ctx, func(tx storage.Tx) error {
			bs, err := tx.FindBatches(ctx, `where b.tenant_id = $1 and b.id = any($2) order by b.updated_at, b.id`, ids)
			if err != nil {
				return err
			}
			ms, err = batchMessages(ctx, tx, bs)
			return err
		})
		return ms, err
	})
	if err != nil {
		return 0, err
	}
	clear(f.totals)
	f.totalsAt = time.Now()
	return 0, nil
}

// deliver queues messages for the listeners that they concern. It does not wait for any listener.
func (f *feed) deliver(ls []*listener, ms []*message) {
	if len(ms) == 0 {
		return
	}
	id := f.resumeID()
	for _, m := range ms {
		m.id = id
	}
	for _, l := range ls {
		if dropped := l.offer(ms); dropped {
			f.hub.Metrics.dropped.Inc()
		}
	}
}
