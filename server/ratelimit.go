package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// A Rate is how often something may happen: so many times a minute in the long run, and Burst times at once by who
// has not done it for a while. 0 a minute is no limit; a Burst of 0 is as much as in a minute.
type Rate struct {
	PerMinute int
	Burst     int
}

// Rates are how often clients may ask. See docs/reference/limits.md.
type Rates struct {
	IP          Rate // requests of an address, or of an IPv6 network of 64 bits, but for transfers
	IPTransfers Rate // PATCH, HEAD and DELETE of uploads, of the same
	User        Rate // requests of a user, but for transfers and creations
	Uploads     Rate // creations of a user; a batch is as many as it creates
	Transfers   Rate // PATCH, HEAD and DELETE of uploads, of a user
}

// DefaultRates serve a crew that sends 2,000 photos at once, and end a client that runs wild.
func DefaultRates() Rates {
	return Rates{
		IP:          Rate{PerMinute: 1000},
		IPTransfers: Rate{PerMinute: 12000},
		User:        Rate{PerMinute: 100},
		Uploads:     Rate{PerMinute: 50, Burst: 2000},
		Transfers:   Rate{PerMinute: 3000},
	}
}

// Validate reports what is wrong with r.
func (r Rate) Validate() error {
	if min(r.PerMinute, r.Burst) < 0 || max(r.PerMinute, r.Burst) > maxPerMinute {
		return fmt.Errorf("rates and bursts go from 0, for no limit, to %d", maxPerMinute)
	}
	return nil
}

const maxPerMinute = 1_000_000

// A policy is a rate under the name by which clients know it.
type policy struct {
	name  string
	burst int
	rate  int // a minute; 0 for no limit
}

func (r Rate) policy(name string) policy {
	p := policy{name: name, rate: r.PerMinute, burst: r.Burst}
	if p.burst == 0 {
		p.burst = p.rate
	}
	return p
}

// window is how long it takes to be allowed a whole burst again.
func (p policy) window() time.Duration {
	return time.Duration(p.burst) * time.Minute / time.Duration(p.rate)
}

// A verdict is what a counter says.
type verdict struct {
	allowed   bool
	remaining int           // how often at once from now on
	reset     time.Duration // until that is the whole burst again
	retry     time.Duration // until what was asked for is allowed
}

// A counter counts by the generic cell rate algorithm (ITU-T I.371, annex A), so that memory does not depend on the
// rate and no window's end lets twice as much pass.
type counter interface {
	// take counts n, all or nothing, for the key under the policy.
	take(ctx context.Context, p policy, key string, n int) (verdict, error)
}

// Limits hold clients to rates: in this process alone, or by way of Redis in all of them together.
type Limits struct {
	ip, ipTransfers, user, uploads, transfers policy

	counter   counter
	decisions *prometheus.CounterVec
	log       *slog.Logger
}

// NewLimits makes limits that this process keeps by itself, or, if redis is not nil, with all that use the same.
func NewLimits(r Rates, redis *Redis, registry prometheus.Registerer, log *slog.Logger) (*Limits, error) {
	l := &Limits{
		ip:          r.IP.policy("ip"),
		ipTransfers: r.IPTransfers.policy("ip-transfers"),
		user:        r.User.policy("user"),
		uploads:     r.Uploads.policy("uploads"),
		transfers:   r.Transfers.policy("transfers"),
		decisions: promauto.With(registry).NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_rate_limit_decisions_total",
			Help: "Requests that a rate limit allowed or turned away, by policy.",
		}, []string{"policy", "outcome"}),
		log: log,
	}
	memory, err := newMemory(l.ip, l.ipTransfers, l.user, l.uploads, l.transfers)
	if err != nil {
		return nil, err
	}
	l.counter = memory
	if redis != nil {
		l.counter = newShared(redis, memory, registry, log)
	}
	return l, nil
}

// take counts n for the key. Without a limit it returns ok false. Trouble of our own never turns anybody away.
func (l *Limits) take(ctx context.Context, p policy, key string, n int) (v verdict, ok bool) {
	if l == nil || p.rate == 0 {
		return verdict{}, false
	}
	// More than a burst would never be allowed, however long one waits.
	v, err := l.counter.take(ctx, p, p.name+":"+key, min(n, p.burst))
	if err != nil {
		l.log.ErrorContext(ctx, "rate limit not counted", slog.String("policy", p.name), slog.Any("err", err))
		return verdict{}, false
	}
	outcome := "allowed"
	if !v.allowed {
		outcome = "limited"
	}
	l.decisions.WithLabelValues(p.name, outcome).Inc()
	return v, true
}

// limitJSON is a rate limit. Its name is that of a policy in RateLimit-Policy.
type limitJSON struct {
	Name      string `json:"name"`
	PerMinute int    `json:"per_minute"`
	Burst     int    `json:"burst"`
}

// describe lists the limits that there are.
func (l *Limits) describe() []limitJSON {
	all := []limitJSON{}
	if l == nil {
		return all
	}
	for _, p := range []policy{l.ip, l.ipTransfers, l.user, l.uploads, l.transfers} {
		if p.rate > 0 {
			all = append(all, limitJSON{p.name, p.rate, p.burst})
		}
	}
	return all
}
