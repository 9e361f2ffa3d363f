// Package live sends listeners what changes, as server-sent events or over a WebSocket. It decides who hears of what and
// sends what GET answers with; it changes nothing.
package live

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"golang.org/x/net/http/httpguts"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/server/resource"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// Path is the route of the stream; tickets for it are at Path/tickets.
const Path = "/api/events"

// ticketTTL is how long a ticket is valid.
const ticketTTL = 30 * time.Second

// Config shapes the streams.
type Config struct {
	PerUser      int           `name:"listeners-per-user" help:"How many event streams (SSE and WebSocket) a user may have open at one server."`
	PerTenant    int           `name:"listeners-per-tenant" help:"How many event streams all users of a tenant may have open at one server."`
	Heartbeat    time.Duration `kong:"-"` // between two signs of life to a listener
	Recheck      time.Duration `kong:"-"` // between two polls for changes whose notification was missed
	Overlap      time.Duration `kong:"-"` // how long a transaction may take before a poll can miss its change
	WriteTimeout time.Duration `kong:"-"` // how long a listener may take to accept a message
	Backlog      int           `kong:"-"` // messages that may wait for a listener before it is dropped
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		PerUser:      20,
		PerTenant:    500,
		Heartbeat:    15 * time.Second,
		Recheck:      5 * time.Second,
		Overlap:      30 * time.Second,
		WriteTimeout: 20 * time.Second,
		Backlog:      4096,
	}
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if c.PerUser < 1 {
		errs = append(errs, fmt.Errorf("TRAMO_LISTENERS_PER_USER: %d is less than 1", c.PerUser))
	}
	if c.PerTenant < 1 {
		errs = append(errs, fmt.Errorf("TRAMO_LISTENERS_PER_TENANT: %d is less than 1", c.PerTenant))
	}
	return errors.Join(errs...)
}

// Parts are what a [Hub] needs.
type Parts struct {
	DB      *storage.DB
	Reader  *resource.Reader
	Metrics *Metrics
	Log     *slog.Logger
	// CheckOrigin returns an error for a request from a page that may not use the API.
	CheckOrigin func(*http.Request) error
	// Admit serves a request as the user that its ticket stands for, while that user's token is valid. When it no longer is,
	// the request's context ends with a [*tenant.Refusal] as its cause.
	Admit func(echo.Context, tenant.Identity, echo.HandlerFunc) error
	// Standing is called when the standing of a tenant has changed.
	Standing func(id uuid.UUID)
}

// AuthenticateByTicket wraps the middleware that takes a token: a browser's EventSource and WebSocket cannot send a header,
// so a ticket in the query is taken instead.
func (h *Hub) AuthenticateByTicket(byToken echo.MiddlewareFunc) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		withToken := byToken(next)
		return func(c echo.Context) error {
			query := c.QueryParams()
			if query.Has("token") || query.Has("access_token") {
				return problem.BadRequest("A token must not be in a URL: logs and browser histories keep URLs. Send it as Authorization: Bearer TOKEN, or get a ticket with POST %s/tickets and send that as ticket.", Path)
			}
			if !query.Has("ticket") {
				return withToken(c)
			}
			r := c.Request()
			who, err := redeemTicket(r.Context(), h.DB, query.Get("ticket"))
			if err != nil {
				return err
			}
			return h.Admit(c, who, next)
		}
	}
}

// IssueTicket answers with a ticket for the user of the token.
func (h *Hub) IssueTicket(c echo.Context) error {
	ctx := c.Request().Context()
	var answer struct {
		Ticket    string    `json:"ticket"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	err := h.DB.InTenant(ctx, func(tx storage.Tx) (err error) {
		answer.Ticket, answer.ExpiresAt, err = IssueTicket(ctx, tx, ticketTTL)
		return err
	})
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusCreated, answer)
}

// Listen opens a stream over the transport that the request asks for.
func (h *Hub) Listen(c echo.Context) error {
	r := c.Request()
	ctx, cut := context.WithCancel(r.Context())
	defer cut()
	who, err := tenant.From(ctx)
	if err != nil {
		return err
	}
	f, err := parseFilter(c, who)
	if err != nil {
		return err
	}
	l := newListener(who, f, h.Backlog, cut)
	open := h.openSSE
	if httpguts.HeaderValuesContainsToken(r.Header.Values("Upgrade"), "websocket") { // a list (RFC 9110, section 7.8)
		if err := h.CheckOrigin(r); err != nil {
			return err
		}
		l.transport, open = transportWebSocket, h.openWebSocket
	}
	if err := h.requireUploads(ctx, f); err != nil {
		return err
	}
	if err := h.join(ctx, l); err != nil {
		return err
	}
	defer h.leave(l)
	st, err := open(ctx, c)
	if err != nil {
		return nil //nolint:nilerr // the transport has answered already
	}
	defer st.close()
	return h.serve(ctx, l, &personal{st, h.Reader, who}, lastEventID(r))
}

// lastEventID is the id of the last message that a returning client received. EventSource sends it as a header when it
// reconnects by itself. With a new ticket it cannot, so the page puts it in the query.
func lastEventID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return id
	}
	return r.URL.Query().Get("last_event_id")
}

// requireUploads makes sure that the uploads of a filter exist. Another tenant's do not.
func (h *Hub) requireUploads(ctx context.Context, f filter) error {
	if f.uploads == nil {
		return nil
	}
	return h.DB.InTenant(ctx, func(tx storage.Tx) error { return requireUploads(ctx, tx, f.uploads) })
}

// A stream is a transport of messages. One goroutine at a time calls its methods.
type stream interface {
	// gone is closed when the listener has closed its end.
	gone() <-chan struct{}
	// send may keep the message back until flush. An error means that the listener has disconnected.
	send(context.Context, *message) error
	flush(context.Context) error
	// beat keeps the connection alive and checks that it is. id is where a returning client resumes.
	beat(ctx context.Context, id string) error
	// close ends the stream.
	close()
}

// A personal stream adds to messages, which all listeners share, the links to thumbnails of its user.
type personal struct {
	stream
	reader *resource.Reader
	who    tenant.Identity
}

func (p *personal) send(ctx context.Context, m *message) error {
	if m.upload == nil {
		return p.stream.send(ctx, m)
	}
	linked, err := newMessage(m.event, p.reader.Linked(*m.upload, p.who))
	if err != nil {
		return err
	}
	linked.id = m.id
	return p.stream.send(ctx, linked)
}

var errDisconnected = errors.New("listener has disconnected")

// endTimeout is how long a listener may take to receive why its stream ends.
const endTimeout = time.Second

// serve sends a listener what there is and then what changes, until the client disconnects, its token is no longer valid, or
// the server shuts down.
func (h *Hub) serve(ctx context.Context, l *listener, st stream, lastID string) error {
	beat := time.NewTicker(h.Heartbeat)
	defer beat.Stop()
	sent, err := h.catchUp(ctx, l, st, lastID)
	for err == nil {
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-st.gone():
			return nil
		case <-l.wake:
			err = h.sendAll(ctx, st, withoutCovered(l.take(), sent))
		case <-beat.C:
			sent = nil // messages that were read before the snapshot have all been delivered by now
			err = st.beat(ctx, l.feed.resumeID())
		}
	}
	var refusal *tenant.Refusal
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, object.ErrStopping):
		return h.end(ctx, st, "shutdown")
	case errors.As(cause, &refusal) && !time.Now().Before(l.who.Expires):
		return h.end(ctx, st, "token_expired")
	case refusal != nil:
		return h.end(ctx, st, "token_refused")
	case errors.Is(err, errDisconnected), ctx.Err() != nil:
		return nil
	}
	return errors.Join(err, h.end(ctx, st, "error"))
}

func (h *Hub) sendAll(ctx context.Context, st stream, ms []*message) error {
	for _, m := range ms {
		if err := st.send(ctx, m); err != nil {
			return err
		}
		h.Metrics.messages.WithLabelValues(m.event).Inc()
	}
	return st.flush(ctx)
}

// end sends why the stream ends.
func (h *Hub) end(ctx context.Context, st stream, reason string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	m, err := newMessage(eventEnd, map[string]string{"reason": reason})
	if err == nil {
		_ = h.sendAll(ctx, st, []*message{m}) // an error means that the client has disconnected already
	}
	return err
}
