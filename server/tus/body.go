package tus

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/tramo/tramo/storage/object"
)

// A body is a request's. It remembers how it ended, which tusd keeps to itself, and sees to it that its client alone is
// made to answer for silence.
type body struct {
	io.ReadCloser
	exchange *exchange
	ended    bool      // at its client's end
	cut      error     // why it ended before that; nil if it did not
	read     time.Time // when the last read ended
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	b.waitAnew()
	n, err := b.ReadCloser.Read(p)
	b.read = time.Now()
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.ended = true
	case errors.Is(context.Cause(b.exchange.request.Context()), object.ErrStopping):
		b.cut = object.ErrStopping
	default:
		b.cut = err
	}
	return n, err
}

// waitAnew puts the connection's deadline for reading off, if nothing was read for a while. tusd sets it when the request
// arrives and after each read, and a read after it fails at once; but the request may have waited since for its lease, or
// for room.
func (b *body) waitAnew() {
	x := b.exchange
	if time.Since(b.read) < x.handler.NetworkTimeout/4 {
		return
	}
	_ = x.control.SetReadDeadline(time.Now().Add(x.handler.NetworkTimeout))
	// tusd interrupts a read by a deadline. Whoever asks for that has said so before.
	if x.lease != nil && x.lease.Wanted() || x.request.Context().Err() != nil {
		_ = x.control.SetReadDeadline(time.Now())
	}
}

// abandon makes net/http not wait for what is left of a silent body, as it does before it sends an answer, in order to use
// the connection again.
func (b *body) abandon() {
	_ = b.exchange.control.SetReadDeadline(time.Now())
	_ = b.Close()
}

// A source is a body as tusd's reader passes it on, without its errors.
type source struct {
	io.Reader
	body *body
}

// Ended implements [object.Body].
func (s source) Ended() bool { return s.body.ended }

// Cut implements [object.Body].
func (s source) Cut() error { return s.body.cut }

// answerTime is how long an answer may take to leave. tusd counts from the last read, but bytes may take longer than that to
// become durable, and a final upload to be assembled: its client would find the connection closed.
const answerTime = 30 * time.Second

// allowAnswer puts off the connection's deadline for writing. Where there is no connection, as in some tests, nothing is
// bounded.
func (x *exchange) allowAnswer() { _ = x.control.SetWriteDeadline(time.Now().Add(answerTime)) }
