package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/tus/tusd/v2/pkg/handler"

	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
)

// EventsConfig shapes the live state that [Server] tells.
type EventsConfig struct {
	PerUser   int           `name:"listeners-per-user" help:"How many event streams (SSE and WebSocket) a user may have open at one server."`
	PerTenant int           `name:"listeners-per-tenant" help:"How many event streams all users of a tenant may have open at one server."`
	Heartbeat time.Duration `kong:"-"` // how often a listener that hears nothing is told so
	Recheck   time.Duration `kong:"-"` // how often changes are looked for that nobody has told of
	Overlap   time.Duration `kong:"-"` // the longest that a transaction may take without a change of its being missed
	WriteTime time.Duration `kong:"-"` // how long a listener may take to accept what it is sent
	Backlog   int           `kong:"-"` // how many messages may wait for a listener
}

// DefaultEventsConfig is what is used for what is not said.
func DefaultEventsConfig() EventsConfig {
	return EventsConfig{
		PerUser:   20,
		PerTenant: 500,
		Heartbeat: 15 * time.Second,
		Recheck:   5 * time.Second,
		Overlap:   30 * time.Second,
		WriteTime: 20 * time.Second,
		Backlog:   4096,
	}
}

// Validate reports what is wrong with c.
func (c EventsConfig) Validate() error {
	var errs []error
	if c.PerUser < 1 {
		errs = append(errs, fmt.Errorf("TRAMO_LISTENERS_PER_USER: %d is less than 1", c.PerUser))
	}
	if c.PerTenant < 1 {
		errs = append(errs, fmt.Errorf("TRAMO_LISTENERS_PER_TENANT: %d is less than 1", c.PerTenant))
	}
	return errors.Join(errs...)
}

var (
	// errShuttingDown ends listeners as it ends uploads: their clients are to come back.
	errShuttingDown = handler.ErrServerShutdown
)

// A hub tells all listeners of this process what changes, wherever it was changed. It hears which rows have changed
// over one connection, and reads them once for all listeners of a tenant.
type hub struct {
	EventsConfig
	db      *storage.DB
	reader  *resource.Reader
	metrics *liveMetrics
	log     *slog.Logger

	opened chan *room

	mu      sync.Mutex
	rooms   map[uuid.UUID]*room // those with listeners, by tenant
	closing bool
	streams sync.WaitGroup
}

func newHub(c EventsConfig, p Parts, reader *resource.Reader) *hub {
	return &hub{
		EventsConfig: c, db: p.DB, reader: reader, metrics: p.Metrics.live, log: p.Log,
		opened: make(chan *room), rooms: make(map[uuid.UUID]*room),
	}
}

// followRetry is how long the hub waits until it connects again. What changes meanwhile is found by looking.
const followRetry = time.Second

// run follows the database and tells listeners until ctx is done.
func (h *hub) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		for ctx.Err() == nil {
			err := h.db.Follow(ctx, h.lookAll, h.heard)
			if ctx.Err() != nil {
				return
			}
			h.metrics.reconnects.Inc()
			h.log.WarnContext(ctx, "changes are not heard", slog.Any("err", err))
			select {
			case <-ctx.Done():
			case <-time.After(followRetry):
			}
		}
	})
	for {
		select {
		case r := <-h.opened:
			all.Go(func() { r.attend(ctx) })
		case <-ctx.Done():
			return
		}
	}
}

// heard passes on what another process, or this one, says to have changed.
func (h *hub) heard(c storage.Changes) {
	h.mu.Lock()
	r := h.rooms[c.Tenant]
	h.mu.Unlock()
	if r != nil {
		r.heard(c)
	}
}

// lookAll has every room look for what it has not heard.
func (h *hub) lookAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.rooms {
		r.look()
	}
}

// join lets a listener in. It hears all that is changed from the moment that join returns.
func (h *hub) join(ctx context.Context, l *listener) error {
	fresh, err := h.enter(l)
	if err != nil {
		return err
	}
	if fresh {
		select {
		case h.opened <- l.room:
		case <-ctx.Done():
			h.leave(l)
			return context.Cause(ctx)
		}
	}
	select {
	case <-l.room.primed:
		return nil
	case <-ctx.Done():
		h.leave(l)
		return context.Cause(ctx)
	}
}

// enter puts a listener into its tenant's room, which is fresh if it is the first.
func (h *hub) enter(l *listener) (fresh bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false, errShuttingDown
	}
	r := h.rooms[l.who.Tenant]
	if fresh = r == nil; fresh {
		r = newRoom(h, l.who.Tenant)
	}
	if err := r.enter(l); err != nil {
		return false, err
	}
	h.rooms[l.who.Tenant], l.room = r, r
	h.streams.Add(1)
	return fresh, nil
}

// leave takes a listener out, and closes its room behind the last one.
func (h *hub) leave(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams.Done()
	if l.room.leave(l) > 0 {
		return
	}
	delete(h.rooms, l.who.Tenant)
	close(l.room.closed)
}

// close lets no more listeners in and waits until all have left, which they do when their requests' context is done.
func (h *hub) close() {
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	h.streams.Wait()
}
