package live

import (
	"context"
	"encoding/json"
	"time"

	"github.com/coder/websocket"
	"github.com/labstack/echo/v4"
)

// pongTimeout is how long a client may take to answer a ping.
const pongTimeout = 10 * time.Second

// A webSocket sends messages as text frames (RFC 6455), each a JSON object with event, id and data.
type webSocket struct {
	conn         *websocket.Conn
	left         <-chan struct{} // closed when the client has closed
	stop         context.CancelFunc
	writeTimeout time.Duration
}

func (h *Hub) openWebSocket(ctx context.Context, c echo.Context) (stream, error) {
	r := c.Request()
	conn, err := websocket.Accept(c.Response(), r, &websocket.AcceptOptions{
		InsecureSkipVerify: true,                          // CheckOrigin has checked it
		CompressionMode:    websocket.CompressionDisabled, // it costs more memory than the rest of a listener
	})
	if err != nil {
		return nil, err
	}
	st := &webSocket{conn: conn, writeTimeout: h.WriteTimeout}
	// Not the request's context: it ends when the server shuts down, before the client is sent the reason.
	gone, stop := context.WithCancel(context.WithoutCancel(ctx))
	st.left, st.stop = conn.CloseRead(gone).Done(), stop
	return st, nil
}

func (st *webSocket) gone() <-chan struct{} { return st.left }

func (st *webSocket) send(ctx context.Context, m *message) error {
	frame, err := json.Marshal(struct {
		Event string          `json:"event"`
		ID    *string         `json:"id"`
		Data  json.RawMessage `json:"data"`
	}{m.event, optional(m.id), m.data})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, st.writeTimeout)
	defer cancel()
	if err := st.conn.Write(ctx, websocket.MessageText, frame); err != nil {
		return errDisconnected
	}
	return nil
}

// flush does nothing: each frame is sent at once.
func (st *webSocket) flush(context.Context) error { return nil }

func (st *webSocket) beat(ctx context.Context, _ string) error {
	ctx, cancel := context.WithTimeout(ctx, pongTimeout)
	defer cancel()
	if err := st.conn.Ping(ctx); err != nil {
		return errDisconnected
	}
	return nil
}

// close sends a close frame, and does not wait long for the answer.
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
