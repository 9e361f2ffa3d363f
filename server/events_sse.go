package server

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
)

// comeBack is about how long a client should wait before it reconnects. Each gets a time of its own: those that a server
// has told to go must not come to the next one all at once.
const comeBack = 2 * time.Second

// An sse is a stream of server-sent events (WHATWG HTML, section 9.2).
type sse struct {
	w         http.ResponseWriter
	control   *http.ResponseController
	writeTime time.Duration
	unhook    func()
}

func (s *Server) openSSE(ctx context.Context, c echo.Context) (stream, error) {
	w := c.Response()
	st := &sse{w: w, control: http.NewResponseController(w), writeTime: s.Events.WriteTime}
	// The connection's deadlines are for requests that end.
	_ = st.control.SetReadDeadline(time.Time{})
	// Who takes nothing must not hold up a server that is to stop, nor stay when it is dropped.
	hurried := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(hurried)
		_ = st.control.SetWriteDeadline(time.Now().Add(farewell))
	})
	st.unhook = func() {
		if !stop() {
			<-hurried // the response is another request's once this one is over
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx passes on what there is
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	retry := comeBack/2 + rand.N(comeBack)
	if err := st.write(ctx, "retry: ", strconv.FormatInt(retry.Milliseconds(), 10), "\n\n"); err != nil {
		return st, err
	}
	return st, st.flush(ctx)
}

// gone is what the request's context tells.
func (st *sse) gone() <-chan struct{} { return nil }

func (st *sse) transport() string { return "sse" }

func (st *sse) send(ctx context.Context, m *message) error {
	if err := st.deadline(ctx); err != nil {
		return err
	}
	if m.id != "" {
		if err := st.write(ctx, "id: ", m.id, "\n"); err != nil {
			return err
		}
	}
	if err := st.write(ctx, "event: ", m.event, "\ndata: "); err != nil {
		return err
	}
	if _, err := st.w.Write(m.data); err != nil {
		return errStreamGone
	}
	return st.write(ctx, "\n\n")
}

func (st *sse) write(_ context.Context, parts ...string) error {
	for _, p := range parts {
		if _, err := io.WriteString(st.w, p); err != nil {
			return errStreamGone
		}
	}
	return nil
}

// deadline gives the client time to take what follows, unless the stream ends; farewell is all that there is then.
func (st *sse) deadline(ctx context.Context) error {
	until := time.Now().Add(st.writeTime)
	if last, ok := ctx.Deadline(); ok && last.Before(until) {
		until = last
	}
	if err := st.control.SetWriteDeadline(until); err != nil {
		return errStreamGone
	}
	return ctx.Err()
}

func (st *sse) flush(ctx context.Context) error {
	if err := st.deadline(ctx); err != nil {
		return err
	}
	if err := st.control.Flush(); err != nil {
		return errStreamGone
	}
	return nil
}

// beat is a comment, and moves on where to go on from: a message without data is none, but its id counts.
func (st *sse) beat(ctx context.Context, id string) error {
	if err := st.deadline(ctx); err != nil {
		return err
	}
	if err := st.write(ctx, ":\nid: ", id, "\n\n"); err != nil {
		return err
	}
	return st.flush(ctx)
}

func (st *sse) close() { st.unhook() }
