// Package ratelimit holds clients to rates, counted in this process or, through Redis, by all servers together, and a
// tenant to so many uploads that send at the same time.
package ratelimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// A Rate allows PerMinute events a minute on average, and Burst events at once after a pause. 0 a minute is no limit; a
// Burst of 0 is as many as a minute allows.
type Rate struct {
	PerMinute int
	Burst     int
}

// Rates are the limits on what clients request. See docs/reference/limits.md.
type Rates struct {
	IP          Rate // requests of an address, or of an IPv6 network of 64 bits, other than transfers
	IPTransfers Rate // PATCH, HEAD and DELETE of uploads, and thumbnails, of the same
	User        Rate // requests of a user, other than transfers, creations and thumbnails
	Uploads     Rate // uploads that a user creates; a batch counts as its entries
	Thumbnails  Rate // thumbnails that a user is shown
	Transfers   Rate // PATCH, HEAD and DELETE of uploads, of a user
}

// Config is the settings of the rates.
type Config struct {
	IP             int `name:"rate-ip" help:"Requests a minute of an IP address; 0 for any number."`
	IPBurst        int `name:"rate-ip-burst" help:"Burst of TRAMO_RATE_IP: how many requests at once; 0 for as many as in a minute."`
	IPTransfers    int `name:"rate-ip-transfers" help:"PATCH, HEAD and DELETE of uploads, and thumbnails, a minute of an IP address, which TRAMO_RATE_IP does not count; 0 for any number."`
	User           int `name:"rate-user" help:"Requests to the API a minute of a user; 0 for any number."`
	UserBurst      int `name:"rate-user-burst" help:"Burst of TRAMO_RATE_USER: how many requests at once; 0 for as many as in a minute."`
	Uploads        int `name:"rate-uploads" help:"New uploads a minute of a user, on average; 0 for any number."`
	UploadsBurst   int `name:"rate-uploads-burst" help:"Burst of TRAMO_RATE_UPLOADS: how many new uploads at once, after a time without any; 0 for as many as in a minute."`
	UserThumbnails int `name:"rate-user-thumbnails" help:"Thumbnails a minute of a user, which TRAMO_RATE_USER does not count; 0 for any number."`
	UserTransfers  int `name:"rate-user-transfers" help:"PATCH, HEAD and DELETE of uploads a minute of a user, which TRAMO_RATE_USER does not count; 0 for any number."`
}

// DefaultConfig serves a crew that sends 2,000 photos at once, and stops a client that loops.
func DefaultConfig() Config {
	return Config{IP: 1000, IPTransfers: 12000, User: 100, Uploads: 50, UploadsBurst: 2000, UserThumbnails: 3000, UserTransfers: 3000}
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	for _, r := range []struct {
		variable string
		rate     int
	}{
		{"TRAMO_RATE_IP", c.IP}, {"TRAMO_RATE_IP_BURST", c.IPBurst}, {"TRAMO_RATE_IP_TRANSFERS", c.IPTransfers},
		{"TRAMO_RATE_USER", c.User}, {"TRAMO_RATE_USER_BURST", c.UserBurst}, {"TRAMO_RATE_USER_TRANSFERS", c.UserTransfers},
		{"TRAMO_RATE_USER_THUMBNAILS", c.UserThumbnails},
		{"TRAMO_RATE_UPLOADS", c.Uploads}, {"TRAMO_RATE_UPLOADS_BURST", c.UploadsBurst},
	} {
		if r.rate < 0 || r.rate > maxPerMinute {
			errs = append(errs, fmt.Errorf("%s: %d is not between 0, for no limit, and %d", r.variable, r.rate, maxPerMinute))
		}
	}
	return errors.Join(errs...)
}

// Rates returns the rates that are set.
func (c Config) Rates() Rates {
	return Rates{
		IP:          Rate{PerMinute: c.IP, Burst: c.IPBurst},
		IPTransfers: Rate{PerMinute: c.IPTransfers},
		User:        Rate{PerMinute: c.User, Burst: c.UserBurst},
		Uploads:     Rate{PerMinute: c.Uploads, Burst: c.UploadsBurst},
		Thumbnails:  Rate{PerMinute: c.UserThumbnails},
		Transfers:   Rate{PerMinute: c.UserTransfers},
	}
}

const maxPerMinute = 1_000_000

// A Limit is a rate under the name by which clients know it, in RateLimit-Policy.
type Limit struct {
	Name      string `json:"name"`
	PerMinute int    `json:"per_minute"` // 0 for no limit
	Burst     int    `json:"burst"`
}

func (r Rate) limit(name string) Limit {
	return Limit{name, r.PerMinute, cmp.Or(r.Burst, r.PerMinute)}
}

// window is the time until the whole burst is allowed again.
func (l Limit) window() time.Duration {
	return time.Duration(l.Burst) * time.Minute / time.Duration(l.PerMinute)
}

// A verdict is a counter's answer.
type verdict struct {
	allowed   bool
	remaining int           // events that are allowed at once from now on
	reset     time.Duration // until the whole burst is allowed again
	retry     time.Duration // until the event that was refused is allowed
}

// A counter counts by the generic cell rate algorithm (ITU-T I.371, annex A): it needs the same memory for any rate, and
// does not allow twice the rate around the end of a window.
type counter interface {
	// take counts n events for the key under the limit, all or none.
	take(ctx context.Context, p Limit, key string, n int) (verdict, error)
}

// Limits hold clients to rates. Zero Limits limit nothing.
type Limits struct {
	ip, ipTransfers, user, uploads, thumbnails, transfers Limit

	counter   counter
	decisions *prometheus.CounterVec
	log       *slog.Logger
}

// New makes limits that this process counts alone or, if redis is not nil, together with all servers that use it.
func New(r Rates, redis *Redis, registry prometheus.Registerer, log *slog.Logger) (*Limits, error) {
	l := &Limits{
		ip:          r.IP.limit("ip"),
		ipTransfers: r.IPTransfers.limit("ip-transfers"),
		user:        r.User.limit("user"),
		uploads:     r.Uploads.limit("uploads"),
		thumbnails:  r.Thumbnails.limit("thumbnails"),
		transfers:   r.Transfers.limit("transfers"),
		decisions: promauto.With(registry).NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_rate_limit_decisions_total",
			Help: "Requests that a rate limit allowed or refused, by policy and outcome: allowed, limited.",
		}, []string{"policy", "outcome"}),
		log: log,
	}
	memory, err := newMemory(l.ip, l.ipTransfers, l.user, l.uploads, l.thumbnails, l.transfers)
	if err != nil {
		return nil, err
	}
	l.counter = memory
	if redis != nil {
		l.counter = newShared(redis, memory, registry, log)
	}
	return l, nil
}

// take counts n events for the key. ok is false if there is no limit, or if counting failed: an error of ours refuses no
// request.
func (l *Limits) take(ctx context.Context, p Limit, key string, n int) (v verdict, ok bool) {
	if p.PerMinute == 0 {
		return verdict{}, false
	}
	// More than a burst would never be allowed, however long the client waits.
	v, err := l.counter.take(ctx, p, p.Name+":"+key, min(n, p.Burst))
	if err != nil {
		l.log.ErrorContext(ctx, "rate limit not counted", slog.String("policy", p.Name), slog.Any("err", err))
		return verdict{}, false
	}
	outcome := "allowed"
	if !v.allowed {
		outcome = "limited"
	}
	l.decisions.WithLabelValues(p.Name, outcome).Inc()
	return v, true
}

// List returns the limits that are set.
func (l *Limits) List() []Limit {
	return slices.DeleteFunc([]Limit{l.ip, l.ipTransfers, l.user, l.uploads, l.thumbnails, l.transfers}, func(p Limit) bool { return p.PerMinute == 0 })
}
