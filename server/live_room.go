package server

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

const (
	// totalsEvery is how often at most the totals of a batch are told.
	totalsEvery = time.Second
	// retryEvery is how long a room waits when Postgres did not answer.
	retryEvery = time.Second
	// readAtOnce is how many uploads are read, described and told together.
	readAtOnce = 500
)

// A room is where the listeners of a tenant are told what changes. One goroutine reads for all of them, so that what
// they are told of an upload is in order.
type room struct {
	hub    *hub
	tenant uuid.UUID
	wake   chan struct{} // something is to be done
	primed chan struct{} // closed once all that changes from now on will be told
	closed chan struct{} // closed behind the last listener

	mu        sync.Mutex
	listeners map[*listener]struct{}
	due       due
	mark      time.Time // all that was committed before is told, but for what the longest transactions did

	// What follows is attend's own.
	told   map[uuid.UUID]storage.Version // of uploads that changed lately, as they were told
	spread map[uuid.UUID]struct{}        // announcements that were made lately, and told
	counts map[uuid.UUID]struct{}        // batches whose totals are to be told
	summed time.Time                     // when totals were told last
}

// due is what a room has to do.
type due struct {
	look                            bool // for changes that were not heard of
	uploads, batches, announcements map[uuid.UUID]struct{}
}

func newRoom(h *hub, owner uuid.UUID) *room {
	return &room{
		hub: h, tenant: owner, wake: make(chan struct{}, 1), primed: make(chan struct{}), closed: make(chan struct{}),
		listeners: make(map[*listener]struct{}), due: newDue(),
		told: make(map[uuid.UUID]storage.Version), spread: make(map[uuid.UUID]struct{}), counts: make(map[uuid.UUID]struct{}),
	}
}

func newDue() due {
	return due{
		uploads: make(map[uuid.UUID]struct{}), batches: make(map[uuid.UUID]struct{}), announcements: make(map[uuid.UUID]struct{}),
	}
}

func (d due) add(c storage.Changes) {
	note := func(set map[uuid.UUID]struct{}, ids []uuid.UUID) {
		for _, id := range ids {
			set[id] = struct{}{}
		}
	}
	note(d.uploads, c.Uploads)
	note(d.batches, c.Batches)
	note(d.announcements, c.Announcements)
}

// enter lets a listener in, unless there are too many, of its user or in all. The hub's mutex is held.
func (r *room) enter(l *listener) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	same := 0
	for other := range r.listeners {
		if other.who.User == l.who.User {
			same++
		}
	}
	if same >= r.hub.PerUser || len(r.listeners) >= r.hub.PerTenant {
		return problem.ErrTooManyListeners
	}
	r.listeners[l] = struct{}{}
	return nil
}

// leave returns how many listeners are left.
func (r *room) leave(l *listener) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.listeners, l)
	return len(r.listeners)
}

// heard notes what is to be read.
func (r *room) heard(c storage.Changes) {
	r.hub.metrics.found.WithLabelValues(foundByBeingTold).Add(float64(len(c.Uploads)))
	r.mu.Lock()
	r.due.add(c)
	r.mu.Unlock()
	r.rouse()
}

// look has the room look for changes.
func (r *room) look() {
	r.mu.Lock()
	r.due.look = true
	r.mu.Unlock()
	r.rouse()
}

func (r *room) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// takeDue returns what is to be done, and forgets it.
func (r *room) takeDue() due {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.due
	r.due = newDue()
	return d
}

// putBack is for what could not be done.
func (r *room) putBack(d due) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.Copy(r.due.uploads, d.uploads)
	maps.Copy(r.due.batches, d.batches)
	maps.Copy(r.due.announcements, d.announcements)
	r.due.look = r.due.look || d.look
}

// id is what a listener that comes back says to be told all that has changed since.
func (r *room) id() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return eventID(r.mark)
}

func eventID(at time.Time) string { return strconv.FormatInt(at.UnixMicro(), 10) }

// attend tells the listeners what changes, until the last one has left or ctx is done.
func (r *room) attend(ctx context.Context) {
	looking := time.NewTicker(r.hub.Recheck)
	defer looking.Stop()
	again := time.NewTimer(0) // at once: to prime
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.closed:
			return
		case <-r.wake:
		case <-again.C:
		case <-looking.C:
			r.look()
		}
		wait, err := r.work(ctx)
		if err != nil && ctx.Err() == nil {
			r.hub.log.WarnContext(ctx, "listeners not told", slog.String("tenant_id", r.tenant.String()), slog.Any("err", err))
			wait = retryEvery
		}
		if wait > 0 {
			again.Reset(wait)
		}
	}
}

// work does what is due. It returns after how long there is more to do, or 0.
func (r *room) work(ctx context.Context) (wait time.Duration, err error) {
	select {
	case <-r.primed:
	default:
		if err := r.prime(ctx); err != nil {
			return 0, err
		}
	}
	d := r.takeDue()
	next, err := r.tell(ctx, d)
	if err != nil {
		r.putBack(d)
		return 0, err
	}
	if !next.IsZero() {
		r.mu.Lock()
		r.mark = next // only now: who leaves in the middle of this has to be told it again
		r.mu.Unlock()
	}
	return r.sum(ctx)
}

// as acts for the whole room, or for those in it who see only what is completed: row-level security sees to that.
func (r *room) as(ctx context.Context, onlyCompleted bool) context.Context {
	who := tenant.Identity{Tenant: r.tenant}
	if onlyCompleted {
		who.Role = tenant.Inversionista
	}
	return tenant.With(ctx, who)
}

// prime takes what has changed lately for told: a listener that comes later reads it itself.
func (r *room) prime(ctx context.Context) error {
	f, err := r.find(ctx, time.Time{})
	if err != nil {
		return err
	}
	r.told = f.uploads
	for _, a := range f.announcements {
		r.spread[a.ID] = struct{}{}
	}
	r.mu.Lock()
	r.mark = f.now
	r.mu.Unlock()
	close(r.primed)
	return nil
}

// findings are what has changed lately.
type findings struct {
	now           time.Time
	uploads       map[uuid.UUID]storage.Version
	announcements []storage.Announced
}

// find looks for what has changed since mark, the zero time for lately; a little longer, for transactions take time.
func (r *room) find(ctx context.Context, mark time.Time) (f findings, err error) {
	ctx = r.as(ctx, false)
	err = r.hub.db.InTenant(ctx, func(tx storage.Tx) (err error) {
		if f.now, err = tx.Now(ctx); err != nil {
			return err
		}
		if mark.IsZero() {
			mark = f.now
		}
		since := mark.Add(-r.hub.Overlap)
		if f.uploads, err = tx.MovedSince(ctx, since); err != nil {
			return err
		}
		f.announcements, err = tx.AnnouncementsSince(ctx, since)
		return err
	})
	return f, err
}

// tell tells what is due. If that is to look too, it returns the time before which all is told.
func (r *room) tell(ctx context.Context, d due) (next time.Time, err error) {
	var f findings
	if d.look {
		if f, err = r.find(ctx, r.mark); err != nil {
			return next, err
		}
		for id, v := range f.uploads {
			if _, heard := d.uploads[id]; !heard && r.told[id] != v {
				d.uploads[id] = struct{}{}
				r.hub.metrics.found.WithLabelValues(foundByLooking).Inc()
			}
		}
		for _, a := range f.announcements {
			if _, known := r.spread[a.ID]; !known {
				d.announcements[a.ID] = struct{}{}
			}
		}
	}
	if err := r.tellUploads(ctx, slices.Collect(maps.Keys(d.uploads))); err != nil {
		return next, err
	}
	if err := r.tellAnnouncements(ctx, slices.Collect(maps.Keys(d.announcements))); err != nil {
		return next, err
	}
	maps.Copy(r.counts, d.batches)
	if d.look {
		r.forget(f)
	}
	return f.now, nil
}

// forget keeps of what was told only what would be found again.
func (r *room) forget(f findings) {
	maps.DeleteFunc(r.told, func(id uuid.UUID, _ storage.Version) bool { _, recent := f.uploads[id]; return !recent })
	for id, v := range f.uploads {
		if _, told := r.told[id]; !told {
			r.told[id] = v // there is nobody here who may see it
		}
	}
	clear(r.spread)
	for _, a := range f.announcements {
		r.spread[a.ID] = struct{}{}
	}
}

// audience returns those listeners who see only what is completed, or those who see all.
func (r *room) audience(onlyCompleted bool) (ls []*listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.listeners {
		if l.who.Role.SeesOnlyCompleted() == onlyCompleted {
			ls = append(ls, l)
		}
	}
	return ls
}

// tellUploads reads uploads once for each audience there is.
func (r *room) tellUploads(ctx context.Context, ids []uuid.UUID) error {
	for chunk := range slices.Chunk(ids, readAtOnce) {
		told := make(map[uuid.UUID]storage.Version, len(chunk)) // the oldest that anybody was told
		for _, onlyCompleted := range []bool{false, true} {
			ls := r.audience(onlyCompleted)
			if len(ls) == 0 {
				continue
			}
			ms, err := r.hub.readUploads(r.as(ctx, onlyCompleted), func(ctx context.Context, tx storage.Tx) ([]storage.Upload, error) {
				return tx.UploadsByID(ctx, chunk)
			})
			if err != nil {
				return err
			}
			for _, m := range ms {
				if _, known := told[m.subject]; !known {
					told[m.subject] = m.version
					r.hub.metrics.lag.Observe(time.Since(m.moved).Seconds())
				}
				if m.batch != uuid.Nil {
					r.counts[m.batch] = struct{}{}
				}
			}
			r.deliver(ls, ms)
		}
		maps.Copy(r.told, told)
	}
	return nil
}

func (r *room) tellAnnouncements(ctx context.Context, ids []uuid.UUID) error {
	if len(ids) == 0 {
		return nil
	}
	for _, onlyCompleted := range []bool{false, true} {
		ls := r.audience(onlyCompleted)
		if len(ls) == 0 {
			continue
		}
		var as []storage.Announced
		err := r.hub.db.InTenant(r.as(ctx, onlyCompleted), func(tx storage.Tx) (err error) {
			as, err = tx.AnnouncementsByID(ctx, ids)
			return err
		})
		if err != nil {
			return err
		}
		for _, a := range as {
			r.spread[a.ID] = struct{}{}
		}
		ms, err := announcementMessages(as)
		if err != nil {
			return err
		}
		r.deliver(ls, ms)
	}
	return nil
}

// deliver gives messages to those listeners whom they concern. It waits for nobody.
func (r *room) deliver(ls []*listener, ms []*message) {
	if len(ms) == 0 {
		return
	}
	id := r.id()
	for _, m := range ms {
		m.id = id
	}
	for _, l := range ls {
		if dropped := l.offer(ms); dropped {
			r.hub.metrics.dropped.Inc()
		}
	}
}

// sum tells the totals of batches that have changed, all of them at most so often. It returns after how long there
// are more to tell, or 0.
func (r *room) sum(ctx context.Context) (wait time.Duration, err error) {
	if len(r.counts) == 0 {
		return 0, nil
	}
	if wait := totalsEvery - time.Since(r.summed); wait > 0 {
		return wait, nil
	}
	ids := slices.Collect(maps.Keys(r.counts))
	for _, onlyCompleted := range []bool{false, true} {
		ls := r.audience(onlyCompleted)
		if len(ls) == 0 {
			continue
		}
		ctx, ms := r.as(ctx, onlyCompleted), []*message(nil)
		err := r.hub.db.InTenant(ctx, func(tx storage.Tx) error {
			bs, err := tx.BatchesByID(ctx, ids)
			if err != nil {
				return err
			}
			ms, err = countBatches(ctx, tx, bs)
			return err
		})
		if err != nil {
			return 0, err
		}
		r.deliver(ls, ms)
	}
	clear(r.counts)
	r.summed = time.Now()
	return 0, nil
}
