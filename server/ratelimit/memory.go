package ratelimit

import (
	"context"
	"fmt"
	"time"

	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
)

// memoryKeys is how many clients a policy keeps, in about 10 MiB. Beyond that, the least recently active clients are
// dropped and start from zero.
const memoryKeys = 1 << 16

// A memory counts in this process.
type memory map[string]*throttled.GCRARateLimiterCtx // by policy

func newMemory(policies ...Limit) (memory, error) {
	m := memory{}
	for _, p := range policies {
		if p.PerMinute == 0 {
			continue
		}
		store, err := memstore.NewCtx(memoryKeys)
		if err != nil {
			return nil, fmt.Errorf("allocate rate limit %s: %w", p.Name, err)
		}
		limiter, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{
			MaxRate: throttled.PerDuration(p.PerMinute, time.Minute), MaxBurst: p.Burst - 1, // in addition to one
		})
		if err != nil {
			return nil, fmt.Errorf("set rate limit %s: %w", p.Name, err)
		}
		limiter.SetMaxCASAttemptsLimit(1000) // of concurrent requests, one succeeds in each attempt
		m[p.Name] = limiter
	}
	return m, nil
}

func (m memory) take(ctx context.Context, p Limit, key string, n int) (verdict, error) {
	limited, r, err := m[p.Name].RateLimitCtx(ctx, key, n)
	return verdict{allowed: !limited, remaining: r.Remaining, reset: r.ResetAfter, retry: r.RetryAfter}, err
}
