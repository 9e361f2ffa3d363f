package clamd

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// Version is what a clamd says of itself (clamd(8), VERSION).
type Version struct {
	Engine     string    // such as "ClamAV 1.4.3"
	Signatures int64     // the number of the daily database; 0 if it has none
	SignedAt   time.Time // when that was made, if the number is known
}

// parseVersion reads "ClamAV 1.4.3/27500/Sat Nov 21 09:25:05 2026"; without a daily database there is the engine alone.
func parseVersion(text string) Version {
	engine, rest, _ := strings.Cut(text, "/")
	number, date, _ := strings.Cut(rest, "/")
	v := Version{Engine: engine}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 {
		return v
	}
	v.Signatures = n
	if at, err := time.Parse(time.ANSIC, date); err == nil {
		v.SignedAt = at
	}
	return v
}

// known returns what the clamd said of itself last, which [Scanner.Run] keeps a minute old at most. One that has never said
// is asked; of one that does not say nothing is known, and the verdict stands without.
func (d *daemon) known(ctx context.Context) Version {
	if at := d.state.Load(); at != nil && at.err == nil {
		return at.version
	}
	return d.refresh(ctx).version
}

// refresh asks a clamd for its version.
func (d *daemon) refresh(ctx context.Context) *state {
	text, err := d.ask(ctx, "VERSION")
	now := &state{asked: time.Now(), err: err}
	if err == nil {
		now.version = parseVersion(text)
	}
	if ctx.Err() == nil {
		d.state.Store(now)
	}
	return now
}

// Version is of the first clamd that says: what a scan that begins now will have looked for at least.
func (s *Scanner) Version(ctx context.Context) (v Version, err error) {
	for _, d := range s.order() {
		at := d.refresh(ctx)
		if err = at.err; err == nil {
			return at.version, nil
		}
	}
	return Version{}, err
}
