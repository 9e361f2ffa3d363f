package server

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
)

const (
	redisFailures = 3           // in a row, after which it is left alone
	redisPause    = time.Second // for so long
)

// RedisPatience is how long a request may wait for Redis, if nobody says otherwise.
const RedisPatience = 50 * time.Millisecond

// Redis is where servers count together.
type Redis struct {
	client   *redis.Client
	patience time.Duration
}

// quiet keeps the client from writing of each connection that fails: we say so once.
var quiet = sync.OnceFunc(logging.Disable)

// OpenRedis prepares to use the server at url, such as redis://cache:6379/0, for which no request waits longer than
// patience. It need not be there.
func OpenRedis(url string, patience time.Duration) (*Redis, error) {
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, errors.New("not a URL such as redis://cache.internal:6379/0 or rediss://:PASSWORD@cache.internal:6380/0")
	}
	quiet()
	o.MaxRetries = -1
	o.DialTimeout = time.Second // connections are made ahead, so that no request waits for a handshake
	o.MinIdleConns = 2
	o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = patience, patience, patience
	o.ContextTimeoutEnabled = true
	o.ClientName = "tramo"
	return &Redis{redis.NewClient(o), patience}, nil
}

// Close ends its connections.
func (r *Redis) Close() error { return r.client.Close() }

// shared counts in Redis, and, while that does not answer, in this process: then each server allows what all should
// together, and nobody is turned away, or kept waiting for long, because of Redis.
type shared struct {
	limiter   *redis_rate.Limiter
	patience  time.Duration
	breaker   *gobreaker.CircuitBreaker[verdict]
	alone     memory
	up        prometheus.Gauge
	fallbacks prometheus.Counter
	log       *slog.Logger
}

func newShared(r *Redis, alone memory, registry prometheus.Registerer, log *slog.Logger) *shared {
	f := promauto.With(registry)
	s := &shared{
		limiter:  redis_rate.NewLimiter(r.client),
		patience: r.patience,
		alone:    alone,
		up: f.NewGauge(prometheus.GaugeOpts{
			Name: "tramo_rate_limit_redis_up",
			Help: "1 while rate limits are shared through Redis, 0 while this server counts alone because Redis does not answer.",
		}),
		fallbacks: f.NewCounter(prometheus.CounterOpts{
			Name: "tramo_rate_limit_fallbacks_total",
			Help: "Requests that were counted in this server alone because Redis did not answer.",
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

// changed says once that Redis is gone, and once that it is back; not each time that it is tried.
func (s *shared) changed(_ string, from, to gobreaker.State) {
	switch {
	case from == gobreaker.StateClosed:
		s.up.Set(0)
		s.log.Warn("Redis does not answer: each server counts rate limits alone until it does")
	case to == gobreaker.StateClosed:
		s.up.Set(1)
		s.log.Info("Redis answers again: rate limits are shared")
	}
}

func (s *shared) take(ctx context.Context, p policy, key string, n int) (verdict, error) {
	v, err := s.breaker.Execute(func() (verdict, error) {
		// A client that goes away is not Redis' fault.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.patience)
		defer cancel()
		return s.ask(ctx, p, key, n)
	})
	if err == nil {
		return v, nil
	}
	s.fallbacks.Inc()
	return s.alone.take(ctx, p, key, n)
}

func (s *shared) ask(ctx context.Context, p policy, key string, n int) (verdict, error) {
	r, err := s.limiter.AllowN(ctx, "tramo:"+key, redis_rate.Limit{Rate: p.rate, Period: time.Minute, Burst: p.burst}, n)
	if err != nil {
		return verdict{}, fmt.Errorf("count in Redis: %w", err)
	}
	return verdict{allowed: r.Allowed > 0, remaining: r.Remaining, reset: r.ResetAfter, retry: r.RetryAfter}, nil
}
