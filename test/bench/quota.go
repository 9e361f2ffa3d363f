package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// quota measures creations at the edge of a quota: many more than fit, over many connections, to two servers. None may be
// too many, and none that fits may be refused.
func quota(ctx context.Context, b *bench) error {
	const (
		size   = 1000
		fits   = 1000
		tries  = 2000
		atOnce = 128
	)
	var servers [2]*server
	for i := range servers {
		sv, err := b.serve(ctx, tramo, b.S3.Endpoint())
		if err != nil {
			return err
		}
		servers[i] = sv
		defer func() { _ = sv.stop() }() // It stores nothing.
	}
	rate := figures{}
	for i := range b.repeat {
		token, err := b.tenant(ctx, fmt.Sprintf("edge-%d-%d", time.Now().UnixNano(), i), fmt.Sprint(size*fits+size-1))
		if err != nil {
			return err
		}
		for _, s := range servers {
			s.token = token
		}
		var next, admitted, refused atomic.Int64
		start := time.Now()
		err = together(ctx, atOnce, tries, func(ctx context.Context) error {
			_, err := servers[next.Add(1)%2].create(ctx, size, 0)
			var r *refusal
			switch {
			case err == nil:
				admitted.Add(1)
			case errors.As(err, &r) && r.status == http.StatusRequestEntityTooLarge:
				refused.Add(1)
			default:
				return err
			}
			return nil
		})
		if err != nil {
			return err
		}
		took := time.Since(start)
		b.note("%d accepted and %d refused of %d, where %d fit, in %s", admitted.Load(), refused.Load(), tries, fits, took)
		if admitted.Load() != fits || refused.Load() != tries-fits {
			return fmt.Errorf("%d of %d creations were accepted where %d fit", admitted.Load(), tries, fits)
		}
		rate.add(tramo, tries/took.Seconds())
	}
	b.row(fmt.Sprintf("creations/s at the edge of a quota, two servers, %d at once", atOnce), rate, "%.0f", "", true)
	return nil
}

// tenant makes a tenant and returns a token of one of its crew.
func (s *stand) tenant(ctx context.Context, name, quota string) (token string, err error) {
	for _, args := range [][]string{
		{"tenant", "add", name, "--quota", quota},
		{"token", "--tenant", name, "--user", "crew", "--role", "empleado", "--ttl", "24h"},
	} {
		if token, err = s.Tramo(ctx, args...); err != nil {
			return "", err
		}
	}
	return token, nil
}
