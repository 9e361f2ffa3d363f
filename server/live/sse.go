package live

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// retryInterval is about how long a client should wait before it reconnects. Each client gets a random interval, so that
// the clients of a server that shuts down do not all reconnect at once.
const retryInterval = 2 * time.Second

// An sse is a stream of server-sent events (WHATWG HTML, section 9.2).
type sse struct {
	w            http.ResponseWriter
	control      *http.ResponseController
	writeTimeout time.Duration
	unhook       func()
}

func (h *Hub) openSSE(ctx context.Context, c echo.Context) (stream, error) {
	w := c.Response()
	st := &sse{w: w, control: http.NewResponseController(w), writeTimeout: h.WriteTimeout}
	// The deadlines of the server are for requests that end.
	_ = st.control.SetReadDeadline(time.Time{})
	// A client that reads nothing must neither delay a shutdown nor stay connected once it is dropped.
	hurried := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(hurried)
		_ = st.control.SetWriteDeadline(time.Now().Add(endTimeout))
	})
	st.unhook = func() {
		if !stop() {
			<-hurried // after this request the response may belong to another one
		}
	}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no") // nginx must not buffer
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	retry := retryInterval/2 + rand.N(retryInterval) //nolint:gosec // spreads reconnections; nobody gains by guessing it
	if err := st.write(ctx, "retry: %d\n\n", retry.Milliseconds()); err != nil {
		return st, err
	}
	return st, st.flush(ctx)
}

// gone is never closed: the request's context ends instead.
func (st *sse) gone() <-chan struct{} { return nil }

func (st *sse) send(ctx context.Context, m *message) error {
	id := ""
	if m.id != "" {
		id = "id: " + m.id + "\n"
	}
	return st.write(ctx, "%sevent: %s\ndata: %s\n\n", id, m.event, m.data)
}

func (st *sse) write(ctx context.Context, format string, args ...any) error {
	if err := st.deadline(ctx); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(st.w, format, args...); err != nil {
		return errDisconnected
	}
	return nil
}

// deadline gives the client time to accept what follows: less when the stream ends.
func (st *sse) deadline(ctx context.Context) error {
	until := time.Now().Add(st.writeTimeout)
	if last, ok := ctx.Deadline(); ok && last.Before(until) {
		until = last
	}
	if err := st.control.SetWriteDeadline(until); err != nil {
		return errDisconnected
	}
	return ctx.Err()
}

func (st *sse) flush(ctx context.Context) error {
	if err := st.deadline(ctx); err != nil {
		return err
	}
	if err := st.control.Flush(); err != nil {
		return errDisconnected
	}
	return nil
}

// beat sends a comment and an id. An event without data is not dispatched, but its id counts.
func (st *sse) beat(ctx context.Context, id string) error {
	if err := st.write(ctx, ":\nid: %s\n\n", id); err != nil {
		return err
	}
	return st.flush(ctx)
}

func (st *sse) close() { st.unhook() }
