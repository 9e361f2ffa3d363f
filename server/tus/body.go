package tus

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// A body is a request's. It bounds its client's silence, and remembers how it ended, which tusd keeps to itself.
type body struct {
	io.ReadCloser
	exchange *exchange
	read     int64       // bytes
	ended    atomic.Bool // at its client's end
	cut      error       // why it ended before that; nil if it did not
}

// Read implements [io.Reader]. It waits for [Config.NetworkTimeout], from now: the request may have waited before for its
// lease, or for room, and its client was not silent then.
func (b *body) Read(p []byte) (int, error) {
	x := b.exchange
	if b.ended.Load() {
		return 0, io.EOF // without a deadline: see awaitNothing
	}
	_ = x.connection.SetReadDeadline(time.Now().Add(x.handler.NetworkTimeout))
	if x.interrupted.Load() { // before that deadline was set, perhaps
		_ = x.connection.SetReadDeadline(time.Now())
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.ended.Store(true)
		x.awaitNothing()
	case errors.Is(err, problem.ErrGaveWay):
		b.cut = x.note(err) // tusd would call it an error of the server
		x.interrupted.Store(true)
	default:
		b.cut = err
		if cause := context.Cause(x.request.Context()); errors.Is(cause, object.ErrStopping) {
			b.cut = object.ErrStopping
		} else if errors.As(cause, new(*tenant.Refusal)) {
			b.cut = cause
		}
	}
	return n, err
}

// interruptIfRefused interrupts the body when the client's token is no longer valid. What has arrived is kept.
func (x *exchange) interruptIfRefused() (stop func() bool) {
	ctx := x.request.Context()
	return context.AfterFunc(ctx, func() {
		if errors.As(context.Cause(ctx), new(*tenant.Refusal)) {
			_ = x.SetReadDeadline(time.Now())
		}
	})
}

// awaitNothing takes the deadline for reading away, while no body is read. net/http reads then, to learn whether the client
// goes, and takes a deadline that passes for that: it would cancel this request and all that follow on the connection.
func (x *exchange) awaitNothing() { _ = x.connection.SetReadDeadline(time.Time{}) }

// SetReadDeadline is how tusd bounds silence, from the last read on, and how it interrupts a read. Only the latter gets
// through, and only while there is something to read: see awaitNothing.
func (x *exchange) SetReadDeadline(t time.Time) error {
	if t.After(time.Now()) || x.body.ended.Load() {
		return nil
	}
	x.interrupted.Store(true)
	return x.connection.SetReadDeadline(t)
}

// SetWriteDeadline is how tusd bounds the answer, from the last read on. Bytes may take longer than that to become durable,
// and a final upload to be assembled: its client would find the connection closed.
func (x *exchange) SetWriteDeadline(time.Time) error { return nil }

// answerTime is how long an answer may take to leave.
const answerTime = 30 * time.Second

// allowAnswer bounds the answer, which is sent now. A connection whose reading was interrupted ends with it, because net/http
// has cancelled all requests that would follow.
func (x *exchange) allowAnswer() {
	_ = x.connection.SetWriteDeadline(time.Now().Add(answerTime))
	if x.interrupted.Load() {
		x.Header().Set("Connection", "close")
	}
}

// A source is a body as tusd's reader passes it on, without its errors.
type source struct {
	io.Reader
	body   *body
	passed int64 // bytes
}

// Read implements [io.Reader]. tusd's reader holds back the first byte that goes beyond the upload's length.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if s.passed += int64(n); s.body.read > s.passed {
		err = object.ErrBeyondLength
	}
	return n, err
}

// Ended implements [object.Body].
func (s *source) Ended() bool { return s.body.ended.Load() }

// Cut implements [object.Body].
func (s *source) Cut() error { return s.body.cut }
