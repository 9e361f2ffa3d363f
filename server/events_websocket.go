package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/labstack/echo/v4"

	"github.com/tramo/tramo/server/problem"
)

// pongTime is how long a client may take to answer a ping.
const pongTime = 10 * time.Second

// checkOrigin refuses pages of others: browsers open WebSockets for every page, whatever CORS says (RFC 6455, section
// 10.2). What is no browser sends no Origin.
func (s *Server) checkOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(s.CORSOrigins, "*") || slices.Contains(s.CORSOrigins, origin) {
		return nil
	}
	u, err := url.Parse(origin)
	if err == nil && (strings.EqualFold(u.Host, r.Host) || origin == strings.TrimRight(s.PublicURL, "/")) {
		return nil
	}
	return problem.ErrForeignOrigin
}

// A webSocket tells messages as text frames (RFC 6455), each a JSON object with event, id and data.
type webSocket struct {
	conn      *websocket.Conn
	left      <-chan struct{} // closed when the client has closed
	stop      context.CancelFunc
	writeTime time.Duration
}

func (s *Server) openWebSocket(ctx context.Context, c echo.Context) (stream, error) {
	r := c.Request()
	conn, err := websocket.Accept(c.Response(), r, &websocket.AcceptOptions{
		InsecureSkipVerify: true,                          // checkOrigin has looked
		CompressionMode:    websocket.CompressionDisabled, // it would cost each listener more memory than all else
	})
	if err != nil {
		return nil, err
	}
	st := &webSocket{conn: conn, writeTime: s.Events.WriteTime}
	// Not the request's context: that ends when the server is to stop, and the client is to hear so.
	gone, stop := context.WithCancel(context.WithoutCancel(ctx))
	st.left, st.stop = conn.CloseRead(gone).Done(), stop
	return st, nil
}

func (st *webSocket) gone() <-chan struct{} { return st.left }

func (st *webSocket) transport() string { return "websocket" }

func (st *webSocket) send(ctx context.Context, m *message) error {
	frame, err := json.Marshal(struct {
		Event string          `json:"event"`
		ID    *string         `json:"id"`
		Data  json.RawMessage `json:"data"`
	}{m.event, optional(m.id), m.data})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, st.writeTime)
	defer cancel()
	if err := st.conn.Write(ctx, websocket.MessageText, frame); err != nil {
		return errStreamGone
	}
	return nil
}

// flush has nothing to do: each frame is sent at once.
func (st *webSocket) flush(context.Context) error { return nil }

func (st *webSocket) beat(ctx context.Context, _ string) error {
	ctx, cancel := context.WithTimeout(ctx, pongTime)
	defer cancel()
	if err := st.conn.Ping(ctx); err != nil {
		return errStreamGone
	}
	return nil
}

// close says goodbye, but does not wait for long to hear it back.
func (st *webSocket) close() {
	st.conn.Close(websocket.StatusGoingAway, "")
	st.stop()
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
