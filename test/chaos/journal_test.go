package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// An exchange is a request that a client sent, and its answer.
type exchange struct {
	upload, client, method string
	from                   int64 // the Upload-Offset that it was sent with; -1 for none
	sent, answered         time.Duration
	status                 int   // 0 when no answer came
	offset                 int64 // the answer's Upload-Offset; -1 for none
	note                   string
}

func (e exchange) String() string {
	s := fmt.Sprintf("%7.3f–%7.3f  %s  %s", e.sent.Seconds(), e.answered.Seconds(), e.client, e.method)
	if e.from >= 0 {
		s += fmt.Sprintf(" at %d", e.from)
	}
	if e.status > 0 {
		s += fmt.Sprintf(": %d", e.status)
	}
	if e.offset >= 0 {
		s += fmt.Sprintf(", offset %d", e.offset)
	}
	if e.note != "" {
		s += "  " + e.note
	}
	return s
}

// A journal is what happened in a run. Times count from its beginning.
type journal struct {
	begun time.Time

	mu         sync.Mutex
	exchanges  []exchange
	faults     []exchange // what happened to all: only sent and note are set
	violations []string
}

func newJournal() *journal { return &journal{begun: time.Now()} }

func (j *journal) now() time.Duration { return time.Since(j.begun) }

// since is when it was so many seconds after 1970.
func (j *journal) since(epoch float64) time.Duration {
	return time.UnixMicro(int64(epoch * 1e6)).Sub(j.begun)
}

func (j *journal) add(e exchange) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.exchanges = append(j.exchanges, e)
}

// fault notes what was done to the installation.
func (j *journal) fault(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.faults = append(j.faults, exchange{sent: j.now(), note: fmt.Sprintf(format, args...)})
}

// violate notes that a promise was broken; upload is "" where it concerns none in particular.
func (j *journal) violate(upload, format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if upload != "" {
		text = upload + ": " + text
	}
	j.violations = append(j.violations, text)
}

// broken returns the violations.
func (j *journal) broken() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.violations)
}

// of returns an upload's exchanges in the order in which they were sent.
func (j *journal) of(upload string) []exchange {
	j.mu.Lock()
	defer j.mu.Unlock()
	var own []exchange
	for _, e := range j.exchanges {
		if e.upload == upload {
			own = append(own, e)
		}
	}
	slices.SortStableFunc(own, bySent)
	return own
}

// describe prints the faults and the exchanges of the uploads that a violation names.
func (j *journal) describe() string {
	broken := j.broken()
	concerned := func(upload string) bool {
		return slices.ContainsFunc(broken, func(v string) bool { return strings.HasPrefix(v, upload+":") })
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := slices.Clone(j.faults)
	for _, e := range j.exchanges {
		if concerned(e.upload) {
			lines = append(lines, e)
		}
	}
	slices.SortStableFunc(lines, bySent)
	var b strings.Builder
	for _, e := range lines {
		if e.method == "" {
			fmt.Fprintf(&b, "  %7.3f  *** %s\n", e.sent.Seconds(), e.note)
			continue
		}
		fmt.Fprintf(&b, "  %s\n", e)
	}
	return b.String()
}

func bySent(a, b exchange) int { return cmp.Compare(a.sent, b.sent) }

// setbacks returns the exchanges whose offset is lower than that of an answer received before they were sent.
// Concurrent requests may be answered in any order.
func setbacks(sent []exchange) []exchange {
	answered := slices.Clone(sent)
	slices.SortStableFunc(answered, func(a, b exchange) int { return cmp.Compare(a.answered, b.answered) })
	var known int64
	var back []exchange
	for _, e := range sent {
		for len(answered) > 0 && answered[0].answered < e.sent {
			known = max(known, answered[0].offset)
			answered = answered[1:]
		}
		if e.offset >= 0 && e.offset < known {
			e.note += fmt.Sprintf(" (was %d)", known)
			back = append(back, e)
		}
	}
	return back
}
