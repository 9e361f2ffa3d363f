package live

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/sourcegraph/conc/panics"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
)

// A Hub serves all listeners of this process. It is notified over one connection which rows have changed, in whichever
// process, and reads them once for all listeners of a tenant.
type Hub struct {
	Config
	Parts
	opened chan *feed

	mu      sync.Mutex
	feeds   map[uuid.UUID]*feed // of tenants with listeners
	closing bool
	streams sync.WaitGroup
}

// New makes a hub. [Hub.Run] has to run for its listeners to be served.
func New(c Config, p Parts) *Hub {
	return &Hub{Config: c, Parts: p, opened: make(chan *feed), feeds: make(map[uuid.UUID]*feed)}
}

// reconnectInterval is how long the hub waits before it connects again. Polling finds what changes meanwhile.
const reconnectInterval = time.Second

// Run follows the database and sends listeners what changes, until ctx is done.
func (h *Hub) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		for ctx.Err() == nil {
			var err error
			if p := panics.Try(func() { err = h.DB.Follow(ctx, h.pollAll, h.notified) }); p != nil {
				err = p.AsError()
			}
			if ctx.Err() != nil {
				return
			}
			h.Metrics.reconnects.Inc()
			h.Log.WarnContext(ctx, "connection for change notifications lost", slog.Any("err", err))
			select {
			case <-ctx.Done():
			case <-time.After(reconnectInterval):
			}
		}
	})
	for {
		select {
		case f := <-h.opened:
			all.Go(func() { f.run(ctx) })
		case <-ctx.Done():
			return
		}
	}
}

// notified passes a notification to the tenant's feed.
func (h *Hub) notified(c storage.Changes) {
	if c.Standing {
		h.Standing(c.Tenant)
	}
	h.mu.Lock()
	f := h.feeds[c.Tenant]
	h.mu.Unlock()
	if f != nil {
		f.notified(c)
	}
}

// pollAll makes every feed poll for changes whose notification it may have missed.
func (h *Hub) pollAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.feeds {
		f.poll()
	}
}

// join adds a listener. It is sent all changes from the moment that join returns.
func (h *Hub) join(ctx context.Context, l *listener) error {
	fresh, err := h.add(l)
	if err != nil {
		return err
	}
	if fresh {
		select {
		case h.opened <- l.feed:
		case <-ctx.Done():
			h.leave(l)
			return context.Cause(ctx)
		}
	}
	select {
	case <-l.feed.primed:
		return nil
	case <-ctx.Done():
		h.leave(l)
		return context.Cause(ctx)
	}
}

// add puts a listener into its tenant's feed, which is fresh if it is the first.
func (h *Hub) add(l *listener) (fresh bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false, object.ErrStopping
	}
	f := h.feeds[l.who.Tenant]
	if fresh = f == nil; fresh {
		f = newFeed(h, l.who.Tenant)
	}
	if err := f.add(l); err != nil {
		return false, err
	}
	h.feeds[l.who.Tenant], l.feed = f, f
	h.streams.Add(1)
	h.Metrics.listeners.WithLabelValues(l.transport).Inc()
	return fresh, nil
}

// leave removes a listener, and its feed if it was the last one. Its place is free before the gauge falls.
func (h *Hub) leave(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.Metrics.listeners.WithLabelValues(l.transport).Dec()
	h.streams.Done()
	if l.feed.remove(l) > 0 {
		return
	}
	delete(h.feeds, l.who.Tenant)
	close(l.feed.closed)
}

// Close refuses new listeners and waits until all have left, which they do when the context of their request is done.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	h.streams.Wait()
}
