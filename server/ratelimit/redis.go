package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/sony/gobreaker/v2"
	"github.com/sourcegraph/conc/panics"

	"github.com/tramo/tramo/telemetry"
)

const (
	redisFailures = 3           // consecutive, after which requests do not ask Redis
	redisPause    = time.Second // how long they do not ask it
)

// RedisConfig says which Redis servers share their counts through.
type RedisConfig struct {
	URL     telemetry.Secret `name:"redis-url" placeholder:"URL" help:"URL of a Redis through which servers share their rate limits, such as redis://cache:6379/0. Without it, and while it does not answer, each server counts alone."`
	Timeout time.Duration    `name:"redis-timeout" help:"How long a request waits for Redis before this server counts it alone."`
}

// DefaultRedisConfig is used where nothing is set.
func DefaultRedisConfig() RedisConfig { return RedisConfig{Timeout: 50 * time.Millisecond} }

// Validate reports what is wrong with c.
func (c RedisConfig) Validate() error {
	var errs []error
	if _, err := redis.ParseURL(string(c.URL)); c.URL != "" && err != nil {
		errs = append(errs, fmt.Errorf("TRAMO_REDIS_URL: %w", errRedisURL))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("TRAMO_REDIS_TIMEOUT: %s is not more than 0", c.Timeout))
	}
	return errors.Join(errs...)
}

// errRedisURL does not say more, because the parser's error quotes the password.
var errRedisURL = errors.New("not a URL such as redis://cache.internal:6379/0 or rediss://:PASSWORD@cache.internal:6380/0")

// Redis is a Redis server that several servers count in.
type Redis struct {
	client  *redis.Client
	timeout time.Duration
}

// quiet stops the client from logging each connection that fails: [shared] logs the change once.
var quiet = sync.OnceFunc(logging.Disable)

// Open prepares to use the server, which need not be reachable yet. It returns nil if no URL is set.
func (c RedisConfig) Open() (*Redis, error) {
	if c.URL == "" {
		return nil, nil
	}
	o, err := redis.ParseURL(string(c.URL))
	if err != nil {
		return nil, errRedisURL
	}
	quiet()
	o.MaxRetries = -1
	o.DialTimeout = time.Second // connections are made ahead, so that no request waits for a handshake
	o.MinIdleConns = 2
	o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = c.Timeout, c.Timeout, c.Timeout
	o.ContextTimeoutEnabled = true
	o.ClientName = "tramo"
	return &Redis{redis.NewClient(o), c.Timeout}, nil
}

// Close closes its connections.
func (r *Redis) Close() error { return r.client.Close() }

// shared counts in Redis and, while Redis does not answer, in this process. Then each server allows what all servers
// should allow together, but no request is refused or delayed for long because of Redis.
type shared struct {
	limiter   *redis_rate.Limiter
	timeout   time.Duration
	breaker   *gobreaker.CircuitBreaker[verdict]
	alone     memory
	up        prometheus.Gauge
	fallbacks prometheus.Counter
	log       *slog.Logger
}

func newShared(r *Redis, alone memory, registry prometheus.Registerer, log *slog.Logger) *shared {
	f := promauto.With(registry)
	s := &shared{
		limiter: redis_rate.NewLimiter(r.client),
		timeout: r.timeout,
		alone:   alone,
		up: f.NewGauge(prometheus.GaugeOpts{
			Name: "tramo_rate_limit_redis_up",
			Help: "1 while rate limits are shared through Redis, 0 while this server counts alone because Redis does not answer.",
		}),
		fallbacks: f.NewCounter(prometheus.CounterOpts{
			Name: "tramo_rate_limit_fallbacks_total",
			Help: "Requests that this server counted alone because Redis did not answer.",
		}),
		log: log,
	}
	s.up.Set(1)
	s.breaker = gobreaker.NewCircuitBreaker[verdict](gobreaker.Settings{
		Name:          "redis",
		MaxRequests:   1,
		Timeout:       redisPause,
		ReadyToTrip:   func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= redisFailures },
		OnStateChange: s.changed,
	})
	return s
}

// changed logs once that Redis fails and once that it answers again, not each attempt.
func (s *shared) changed(_ string, from, to gobreaker.State) {
	switch {
	case from == gobreaker.StateClosed:
		s.up.Set(0)
		s.log.Warn("Redis unavailable, rate limits are counted by each server alone")
	case to == gobreaker.StateClosed:
		s.up.Set(1)
		s.log.Info("Redis available, rate limits are shared again")
	}
}

func (s *shared) take(ctx context.Context, p Limit, key string, n int) (verdict, error) {
	v, err := s.breaker.Execute(func() (verdict, error) {
		// A client that disconnects must not count as a failure of Redis.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
		defer cancel()
		var v verdict
		var err error
		if caught := panics.Try(func() { v, err = s.ask(ctx, p, key, n) }); caught != nil {
			err = caught.AsError() // the client takes what a script answers for what it must be
		}
		return v, err
	})
	if err == nil {
		return v, nil
	}
	s.fallbacks.Inc()
	return s.alone.take(ctx, p, key, n)
}

func (s *shared) ask(ctx context.Context, p Limit, key string, n int) (verdict, error) {
	r, err := s.limiter.AllowN(ctx, "tramo:"+key, redis_rate.Limit{Rate: p.PerMinute, Period: time.Minute, Burst: p.Burst}, n)
	if err != nil {
		return verdict{}, fmt.Errorf("count in Redis: %w", err)
	}
	return verdict{allowed: r.Allowed > 0, remaining: r.Remaining, reset: r.ResetAfter, retry: r.RetryAfter}, nil
}
