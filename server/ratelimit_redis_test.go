package server_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

func startRedis(t *testing.T) *stack.Redis {
	t.Helper()
	r, err := stack.StartRedis(t.Context())
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, r.Stop()) })
	return r
}

// A sharing site counts in Redis.
type sharing struct {
	*site
	registry *prometheus.Registry
	log      *record
}

// newSharing makes a site that waits for the Redis at url no longer than patience.
func newSharing(t *testing.T, url string, patience time.Duration, r ratelimit.Rates) *sharing {
	t.Helper()
	s := &sharing{registry: prometheus.NewRegistry(), log: &record{}}
	s.site = newSite(t, func(_ *server.Config, p *server.Parts) {
		redis, err := ratelimit.RedisConfig{URL: telemetry.Secret(url), Timeout: patience}.Open()
		stack.Must(t, err)
		t.Cleanup(func() { stack.Must(t, redis.Close()) })
		p.Limits, err = ratelimit.New(r, redis, s.registry, slog.New(slog.NewTextHandler(s.log, nil)))
		stack.Must(t, err)
	})
	return s
}

// up is the metric that says whether Redis answers.
func (s *sharing) up(t *testing.T) float64 { return s.value(t, "tramo_rate_limit_redis_up") }

func (s *sharing) value(t *testing.T, name string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	stack.Must(t, err)
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// logged counts the lines of the log.
func (s *sharing) logged() int { return strings.Count(s.log.String(), "\n") }

// Servers that share a Redis allow together what one server would, also under concurrent requests.
func TestRateLimitShared(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	const burst, tries = 40, 200
	rates := ratelimit.Rates{IP: ratelimit.Rate{PerMinute: 1, Burst: burst}}
	servers := []*sharing{newSharing(t, redis.URL(), patience, rates), newSharing(t, redis.URL(), patience, rates)}
	var allowed atomic.Int64
	g := new(errgroup.Group)
	g.SetLimit(32)
	for i := range tries {
		g.Go(func() error {
			if s := servers[i%2]; s.user.do("GET", s.user.uploads, nil).status == 200 {
				allowed.Add(1)
			}
			return nil
		})
	}
	stack.Must(t, g.Wait())
	if n := allowed.Load(); n < burst || n > burst+1 { // the rate allows one more in a minute
		t.Errorf("%d requests were allowed, want %d", n, burst)
	}
}

// Kill Redis and start it again: no request fails, each server counts alone meanwhile, the log has one line for each
// change, and the metric follows.
func TestRateLimitRedisGone(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	s := newSharing(t, redis.URL(), time.Second, ratelimit.Rates{IP: ratelimit.Rate{PerMinute: 60000, Burst: 1000}, User: ratelimit.Rate{PerMinute: 1, Burst: 20}})
	get := func() int { return s.user.do("GET", s.user.uploads, nil).status }
	if get() != 200 || s.up(t) != 1 {
		t.Fatal("Redis is not used")
	}
	redis.Kill()
	allowed := 0
	for range 60 {
		switch status := get(); status {
		case 200:
			allowed++
		case 429:
		default:
			t.Fatalf("a request was answered with %d", status)
		}
	}
	if allowed < 20 || allowed > 21 {
		t.Errorf("%d requests were allowed by a server alone, want 20", allowed)
	}
	if s.up(t) != 0 || s.logged() != 1 {
		t.Errorf("the metric says %v, and the log has %d lines, want 0 and 1", s.up(t), s.logged())
	}
	stack.Must(t, redis.Restart(context.WithoutCancel(t.Context())))
	stack.Until(t, "Redis is used again", func() bool { get(); return s.up(t) == 1 })
	if s.logged() != 2 {
		t.Errorf("the log has %d lines, want 2", s.logged())
	}
	before := s.value(t, "tramo_rate_limit_fallbacks_total")
	get()
	if after := s.value(t, "tramo_rate_limit_fallbacks_total"); after != before {
		t.Error("a request was counted alone while Redis is there")
	}
}

// A slow Redis delays a few requests by the timeout each, and then none.
func TestRateLimitRedisSlow(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	proxy, err := stack.NewProxy(redis.Addr())
	stack.Must(t, err)
	t.Cleanup(proxy.Close)
	const timeout = 2 * time.Second
	s := newSharing(t, "redis://"+proxy.Addr(), timeout, ratelimit.Rates{IP: ratelimit.Rate{PerMinute: 60000}})
	s.user.do("GET", s.user.uploads, nil).want(t, 200, "")
	stack.Must(t, proxy.Latency(3*timeout))
	const requests = 20
	stack.Until(t, "requests of which most do not wait for Redis", func() bool {
		start := time.Now()
		for range requests {
			s.user.do("GET", s.user.uploads, nil).want(t, 200, "")
		}
		return time.Since(start) < requests*timeout/2
	})
	if s.up(t) != 0 {
		t.Error("the metric says that Redis is up")
	}
	proxy.Clear()
	stack.Until(t, "Redis is used again", func() bool {
		s.user.do("GET", s.user.uploads, nil).want(t, 200, "")
		return s.up(t) == 1
	})
}

// A server starts and serves without its Redis.
func TestRateLimitRedisUnreachable(t *testing.T) {
	t.Parallel()
	s := newSharing(t, "redis://127.0.0.1:1", ratelimit.DefaultRedisConfig().Timeout, ratelimit.Rates{IP: ratelimit.Rate{PerMinute: 100}})
	for range 10 {
		s.user.do("GET", s.user.uploads, nil).want(t, 200, "")
	}
	for _, url := range []string{"localhost:6379", "http://cache", "redis://cache/zero"} {
		if _, err := (ratelimit.RedisConfig{URL: telemetry.Secret(url)}).Open(); err == nil {
			t.Errorf("%s passes for a Redis", url)
		}
	}
}
