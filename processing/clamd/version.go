package clamd

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// Version is the answer of a clamd to VERSION (clamd(8)).
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

// known returns the last version that the clamd reported, which [Scanner.Run] keeps a minute old at most. A clamd that has never
// reported one is asked; if it does not answer, the version is unknown, and the verdict counts all the same.
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

// Version is that of the first clamd that answers. A scan that begins now uses these signatures or newer ones.
func (s *Scanner) Version(ctx context.Context) (v Version, err error) {
	for _, d := range s.order() {
		at := d.refresh(ctx)
		if err = at.err; err == nil {
			return at.version, nil
		}
	}
	return Version{}, err
}
