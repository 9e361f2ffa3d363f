package webhook

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// delays are the times between attempts.
type delays []time.Duration

// schedule is that of the Standard Webhooks specification ("Deliverability and reliability"): ten attempts in 75 hours.
var schedule = delays{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// jitter is the most by which a delay is extended, as a share of it, so that deliveries that failed together are not retried together.
const jitter = 0.2

// after returns the delay after the n-th attempt, n from 1, or false if it was the last. draw yields numbers in
// [0, 1).
func (d delays) after(n int, draw func() float64) (time.Duration, bool) {
	if n > len(d) {
		return 0, false
	}
	delay := d[n-1]
	return delay + time.Duration(jitter*draw()*float64(delay)), true
}

// span is the least time from the first attempt to the last.
func (d delays) span() (all time.Duration) {
	for _, delay := range d {
		all += delay
	}
	return all
}

// maxRetryAfter bounds what an endpoint may ask for.
const maxRetryAfter = 24 * time.Hour

// retryAfter returns the delay that a 429 or 503 answer asks for (RFC 9110, section 10.2.3), or 0.
func retryAfter(status int, h http.Header, now time.Time) time.Duration {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return 0
	}
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter)
	}
	return 0
}

// next returns when to try again after the n-th attempt failed, and the zero time if never; not before wait is over, for which the
// endpoint asked.
func next(n int, wait time.Duration, now time.Time) time.Time {
	delay, ok := schedule.after(n, rand.Float64)
	if !ok {
		return time.Time{}
	}
	return now.Add(max(delay, wait))
}
