package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// EventsPath is where live state is listened to.
const EventsPath = "/api/events"

const (
	// maxFilter is how many values each filter of a listener may have.
	maxFilter = 100
	// snapshotLimit is how many uploads a snapshot has at most.
	snapshotLimit = 1000
	// snapshotBatches is how many batches it has at most.
	snapshotBatches = 100
	// snapshotReach is how long ago an upload may have ended that a snapshot still has: a client that listed uploads
	// a moment before misses none.
	snapshotReach = 5 * time.Minute
	// absenceLimit is for how long a client may have been away to be told only what it has missed.
	absenceLimit = 24 * time.Hour
	// ticketTTL is how long a ticket waits to be used.
	ticketTTL = 30 * time.Second
)

func (s *Server) routeEvents(e *echo.Echo, api *echo.Group) {
	e.GET(EventsPath, s.listen, s.authenticateListener)
	api.POST("/events/tickets", s.issueTicket)
}

// authenticateListener takes a ticket in place of a token: a browser's EventSource and WebSocket send no header.
func (s *Server) authenticateListener(next echo.HandlerFunc) echo.HandlerFunc {
	byToken := s.auth.Authenticate(next)
	return func(c echo.Context) error {
		query := c.QueryParams()
		if query.Has("token") || query.Has("access_token") {
			return problem.BadRequest("A token does not belong into a URL, where logs and histories keep it. Send it as Authorization: Bearer TOKEN, or get a ticket with POST %s/tickets and send that as ticket.", EventsPath)
		}
		if !query.Has("ticket") {
			return byToken(c)
		}
		r := c.Request()
		who, err := s.DB.RedeemTicket(r.Context(), query.Get("ticket"))
		if err != nil {
			return err
		}
		c.SetRequest(r.WithContext(tenant.With(r.Context(), who)))
		return next(c)
	}
}

// issueTicket gives a ticket for whom the token names.
func (s *Server) issueTicket(c echo.Context) error {
	ctx := c.Request().Context()
	var answer struct {
		Ticket    string    `json:"ticket"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	err := s.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		answer.Ticket, answer.ExpiresAt, err = tx.IssueTicket(ctx, ticketTTL)
		return err
	})
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusCreated, answer)
}

// listen opens a stream of live state, over which transport the request says.
func (s *Server) listen(c echo.Context) error {
	r := c.Request()
	ctx, cut := context.WithCancel(r.Context())
	defer cut()
	who, err := tenant.From(ctx)
	if err != nil {
		return err
	}
	f, err := parseFilter(c)
	if err != nil {
		return err
	}
	open := s.openSSE
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		if err := s.checkOrigin(r); err != nil {
			return err
		}
		open = s.openWebSocket
	}
	if err := s.requireFilter(ctx, f); err != nil {
		return err
	}
	l := newListener(who, f, s.Events.Backlog, cut)
	if err := s.hub.join(ctx, l); err != nil {
		return err
	}
	defer s.hub.leave(l)
	st, err := open(ctx, c)
	if err != nil {
		return nil //nolint:nilerr // it is answered already
	}
	defer st.close()
	gauge := s.Metrics.live.listeners.WithLabelValues(st.transport())
	gauge.Inc()
	defer gauge.Dec()
	return s.hub.serve(ctx, l, st, lastEventID(r))
}

// lastEventID is what a client that comes back was told last. EventSource sends it as a header once it reconnects by
// itself; with a new ticket it cannot, and the page says it in the query.
func lastEventID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	return r.URL.Query().Get("last_event_id")
}

func parseFilter(c echo.Context) (f filter, err error) {
	query := c.QueryParams()
	for _, name := range []string{"upload", "batch", "project"} {
		if len(query[name]) > maxFilter {
			return f, problem.BadRequest("%s may be given %d times at most.", name, maxFilter)
		}
		for _, v := range query[name] {
			if v == "" || !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
				return f, problem.BadRequest("%s must be UTF-8 text without NUL characters, and not empty.", name)
			}
		}
	}
	for _, v := range query["upload"] {
		id, err := uuid.Parse(v)
		if err != nil {
			return f, problem.BadRequest("upload must be the id of an upload.")
		}
		f.uploads = append(f.uploads, id)
	}
	f.batches, f.projects = query["batch"], query["project"]
	if v := query.Get("mine"); v != "" {
		if f.mine, err = strconv.ParseBool(v); err != nil {
			return f, problem.BadRequest("mine must be true or false.")
		}
	}
	return f, nil
}

// requireFilter makes sure that what is to be listened to exists. What is another's does not.
func (s *Server) requireFilter(ctx context.Context, f filter) error {
	if f.uploads == nil {
		return nil
	}
	return s.DB.InTenant(ctx, func(tx storage.Tx) error { return tx.RequireUploads(ctx, f.uploads) })
}

// A stream is a transport of messages. Its methods are called by one goroutine at a time.
type stream interface {
	transport() string
	// gone is closed when the listener has closed its end, or the request is to end.
	gone() <-chan struct{}
	// send may keep the message back until flush. An error means that the listener has gone.
	send(context.Context, *message) error
	flush(context.Context) error
	// beat keeps the connection alive and finds out whether it is. id is where to go on from.
	beat(ctx context.Context, id string) error
	// close ends the stream.
	close()
}

// farewell is how long a listener may take to hear why its stream ends.
const farewell = time.Second

// serve tells a listener what there is and then what changes, until its client or its token has gone, or the server
// is to stop.
func (h *hub) serve(ctx context.Context, l *listener, st stream, lastID string) error {
	expiry := time.NewTimer(time.Until(l.who.Expires))
	defer expiry.Stop()
	beat := time.NewTicker(h.Heartbeat)
	defer beat.Stop()
	var told map[uuid.UUID]storage.Version
	var err error
	shallowly(func() { told, err = h.catchUp(ctx, l, st, lastID) })
	for err == nil {
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-st.gone():
			return nil
		case <-expiry.C:
			return h.end(ctx, st, "token_expired")
		case <-l.wake:
			err = h.sendAll(ctx, st, unless(l.take(), told))
		case <-beat.C:
			told = nil // what was read before the snapshot is long through
			err = st.beat(ctx, l.room.id())
		}
	}
	switch {
	case errors.Is(context.Cause(ctx), errShuttingDown):
		return h.end(ctx, st, "shutdown")
	case errors.Is(err, errStreamGone), ctx.Err() != nil:
		return nil
	}
	return errors.Join(err, h.end(ctx, st, "error"))
}

// shallowly runs fn on a stack of its own. A goroutine's stack grows to what fn needs and hardly shrinks again; that of
// a listener is there for hours.
func shallowly(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

var errStreamGone = errors.New("listener has gone")

func (h *hub) sendAll(ctx context.Context, st stream, ms []*message) error {
	for _, m := range ms {
		if err := st.send(ctx, m); err != nil {
			return err
		}
		h.metrics.messages.WithLabelValues(m.event).Inc()
	}
	return st.flush(ctx)
}

// end says why the stream ends, if its client still hears.
func (h *hub) end(ctx context.Context, st stream, reason string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	m, err := newMessage(eventEnd, map[string]string{"reason": reason})
	if err == nil {
		_ = h.sendAll(ctx, st, []*message{m}) // who has gone need not be told
	}
	return err
}

// catchUp tells what has changed since the client was here last, or, if it was not or that cannot be told, what there
// is. It returns the versions that it told of uploads. No message but the last says where to go on from: who leaves
// in between has to begin again.
func (h *hub) catchUp(ctx context.Context, l *listener, st stream, lastID string) (map[uuid.UUID]storage.Version, error) {
	var s snapshot
	since, why := parseEventID(lastID)
	if why == "" {
		var err error
		if s, err = h.missed(ctx, l, since); err != nil {
			return nil, err
		}
		if s.more {
			why = "too_many"
		}
	}
	if why != "" {
		reset, err := newMessage(eventReset, map[string]string{"reason": why})
		if err != nil {
			return nil, err
		}
		if s, err = h.present(ctx, l); err != nil {
			return nil, err
		}
		s.messages = append([]*message{reset}, s.messages...)
	}
	ready, err := newMessage(eventReady, map[string]bool{"complete": !s.more})
	if err != nil {
		return nil, err
	}
	ready.id = eventID(s.now)
	told := make(map[uuid.UUID]storage.Version, len(s.messages))
	for _, m := range s.messages {
		if m.event == eventUpload {
			told[m.subject] = m.version
		}
	}
	return told, h.sendAll(ctx, st, append(s.messages, ready))
}

// parseEventID returns the time that an id names, or why that does not do to go on from.
func parseEventID(id string) (since time.Time, why string) {
	if id == "" {
		return since, "new"
	}
	micros, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return since, "unknown"
	}
	since = time.UnixMicro(micros)
	switch away := time.Since(since); {
	case away > absenceLimit:
		return since, "too_old"
	case away < -absenceLimit:
		return since, "unknown"
	}
	return since, ""
}

// A snapshot is what a listener is told first.
type snapshot struct {
	now      time.Time
	messages []*message
	more     bool // there were more than it has
}

// missed reads what has changed since then that concerns the listener.
func (h *hub) missed(ctx context.Context, l *listener, since time.Time) (s snapshot, err error) {
	since = since.Add(-h.Overlap)
	var as []storage.Announced
	var counted []*message
	s.messages, err = h.readUploads(ctx, func(ctx context.Context, tx storage.Tx) (us []storage.Upload, err error) {
		if s.now, err = tx.Now(ctx); err != nil {
			return nil, err
		}
		if as, err = tx.AnnouncementsSince(ctx, since); err != nil {
			return nil, err
		}
		us, err = tx.Watched(ctx, l.filter.watch(l.who), since, false, snapshotLimit+1)
		if s.more = len(us) > snapshotLimit; s.more || err != nil {
			return nil, err
		}
		counted, err = l.batches(ctx, tx, since, us, false)
		return us, err
	})
	if err != nil || s.more {
		return s, err
	}
	ms, err := announcementMessages(as)
	for _, m := range append(counted, ms...) {
		if l.filter.concerns(m, l.who) {
			s.messages = append(s.messages, m)
		}
	}
	return s, err
}

// present reads what a listener that knows nothing is told.
func (h *hub) present(ctx context.Context, l *listener) (s snapshot, err error) {
	var counted []*message
	s.messages, err = h.readUploads(ctx, func(ctx context.Context, tx storage.Tx) (us []storage.Upload, err error) {
		if s.now, err = tx.Now(ctx); err != nil {
			return nil, err
		}
		since := s.now.Add(-snapshotReach)
		us, err = tx.Watched(ctx, l.filter.watch(l.who), since, true, snapshotLimit+1)
		if err != nil {
			return nil, err
		}
		if s.more = len(us) > snapshotLimit; s.more {
			us = us[1:] // the one that changed first
		}
		counted, err = l.batches(ctx, tx, since, us, true)
		return us, err
	})
	s.messages = append(s.messages, counted...)
	return s, err
}

// batches makes messages of the batches that a listener is told first: those that have changed since then or that one of
// the uploads is in, and, if asked for, those that are open.
func (l *listener) batches(ctx context.Context, tx storage.Tx, since time.Time, us []storage.Upload, open bool) ([]*message, error) {
	if l.filter.uploads != nil {
		return nil, nil
	}
	var changed []uuid.UUID
	for _, u := range us {
		if u.BatchID != nil {
			changed = append(changed, *u.BatchID)
		}
	}
	bs, err := tx.WatchedBatches(ctx, l.filter.watch(l.who), since, changed, open, snapshotBatches)
	if err != nil {
		return nil, err
	}
	return countBatches(ctx, tx, bs)
}
