package webhook

import (
	"net/http"
	"testing"
	"time"
)

// Attempts are those of the specification: ten, the last one more than 72 hours after the first, each delay longer than
// the one before and at most a fifth more than written.
func TestScheduleReaches72Hours(t *testing.T) {
	t.Parallel()
	for name, draw := range map[string]float64{"no jitter": 0, "all jitter": 0.999} {
		var total, last time.Duration
		n := 1
		for ; ; n++ {
			d, ok := schedule.after(n, func() float64 { return draw })
			if !ok {
				break
			}
			if d <= last || d < schedule[n-1] || d > schedule[n-1]*6/5 {
				t.Errorf("%s: attempt %d waits %s, after %s", name, n+1, d, last)
			}
			total, last = total+d, d
		}
		if n != 10 || total < 72*time.Hour || total > 92*time.Hour {
			t.Errorf("%s: %d attempts in %s", name, n, total)
		}
	}
	if !next(10, 0, time.Now()).IsZero() || next(9, 0, time.Now()).IsZero() {
		t.Error("the tenth attempt is not the last")
	}
}

func TestRetryAfterHeader(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 4, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		status int
		value  string
		want   time.Duration
	}{
		{429, "120", 2 * time.Minute},
		{503, "Sun, 22 Nov 2026 05:00:00 GMT", time.Hour},
		{503, "Sun, 22 Nov 2026 03:00:00 GMT", 0},
		{429, "99999999", maxRetryAfter},
		{429, "-5", 0}, {429, "soon", 0}, {429, "", 0},
		{500, "120", 0}, {404, "120", 0},
	} {
		if got := retryAfter(c.status, http.Header{"Retry-After": {c.value}}, now); got != c.want {
			t.Errorf("%d with %q: %s, want %s", c.status, c.value, got, c.want)
		}
	}
	if got := next(1, time.Hour, now); !got.Equal(now.Add(time.Hour)) {
		t.Errorf("the longer of both is %s", got)
	}
}
