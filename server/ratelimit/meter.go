package ratelimit

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/tramo/tramo/server/problem"
)

// A rate is what a body must bring to keep its place once somebody waits for it.
type rate struct {
	perSecond int64         // bytes
	over      time.Duration // of waiting for the client
}

// A meter measures how fast a client sends, over the time that the server waits for it: a body that is not read, because the
// server is busy, is not slow.
type meter struct {
	mu      sync.Mutex
	last    sample // the one before, which is complete; empty at the beginning
	current sample
	since   time.Time // when the read in progress began; zero for none
	over    time.Duration
	ended   bool // there is nothing more to wait for
	stopped bool // the request gives way
}

// A sample is what came in some time of waiting.
type sample struct {
	bytes  int64
	waited time.Duration
}

// begin says that a read begins. It reports whether it may.
func (m *meter) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since = time.Now()
	return !m.stopped
}

// end says what the read has brought. It reports whether the request goes on.
func (m *meter) end(n int, ended bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = m.now()
	m.current.bytes += int64(n)
	m.since, m.ended = time.Time{}, ended
	if m.current.waited >= m.over {
		m.last, m.current = m.current, sample{}
	}
	return !m.stopped
}

// now is the current sample, with the read in progress.
func (m *meter) now() sample {
	s := m.current
	if !m.since.IsZero() {
		s.waited += time.Since(m.since)
	}
	return s
}

// measured is what came lately: in the current sample once it is long enough, or else with the one before. It is not
// complete before the server has waited long enough.
func (m *meter) measured() (s sample, complete bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s = m.now()
	if s.waited < m.over {
		s.bytes += m.last.bytes
		s.waited += m.last.waited
	}
	return s, s.waited >= m.over && !m.ended
}

// below reports whether less comes than r.
func (m *meter) below(r rate) bool {
	s, complete := m.measured()
	return complete && r.perSecond > 0 && float64(s.bytes) < float64(r.perSecond)*s.waited.Seconds()
}

// slower reports whether less comes than to other.
func (m *meter) slower(other *meter) bool {
	a, _ := m.measured()
	b, _ := other.measured()
	return float64(a.bytes)*b.waited.Seconds() < float64(b.bytes)*a.waited.Seconds()
}

// stop makes the read in progress, which is interrupted, and all later ones fail.
func (m *meter) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
}

// A meteredBody is a body whose place can be taken.
type meteredBody struct {
	io.ReadCloser
	meter *meter
}

// Read implements [io.Reader]. A body that gives way ends with [problem.ErrGaveWay].
func (b meteredBody) Read(p []byte) (int, error) {
	if !b.meter.begin() {
		return 0, problem.ErrGaveWay
	}
	n, err := b.ReadCloser.Read(p)
	if goesOn := b.meter.end(n, errors.Is(err, io.EOF)); !goesOn && err != nil && !errors.Is(err, io.EOF) {
		err = problem.ErrGaveWay
	}
	return n, err
}
