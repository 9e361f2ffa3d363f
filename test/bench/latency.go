package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// latency measures how long one photo takes while nothing else happens, at several distances to S3. The peers take
// turns photo by photo.
func latency(ctx context.Context, b *bench) (err error) {
	const photos = 15 // a repetition
	var servers []*server
	defer func() {
		for _, sv := range servers {
			err = errors.Join(err, sv.stop())
		}
		b.proxy.SetLatency(0)
		err = errors.Join(err, b.wipe())
	}()
	for _, p := range []peer{tramo, stock, tuned, bare} {
		sv, err := b.serve(ctx, p, b.proxy.Endpoint())
		if err != nil {
			return err
		}
		servers = append(servers, sv)
	}
	for _, at := range []struct {
		delay time.Duration
		most  float64
	}{{0, 1.7}, {20 * time.Millisecond, 1.25}, {120 * time.Millisecond, 1.1}} {
		b.proxy.SetLatency(at.delay)
		took := figures{}
		for i := range 1 + b.repeat*photos {
			for _, sv := range servers {
				d, err := timed(ctx, sv)
				if err != nil {
					return fmt.Errorf("%s: %w", sv.peer, err)
				}
				if i > 0 { // the first one warms up
					took.add(sv.peer, d.Seconds()*1000)
				}
			}
		}
		name := fmt.Sprintf("ms for a 3 MB photo, S3 %s away", at.delay)
		b.row(name, took, "%.0f", "", true)
		ratio := figures{}
		for p := range took {
			ratio.add(p, took.of(p)/took.of(bare))
		}
		b.row("the same, against the bare PUT", ratio, "%.2fx", fmt.Sprintf("≤ %g", at.most), ratio.of(tramo) <= at.most)
	}
	return nil
}

// others measures how long the uploads take that are not a photo sent at once.
func others(ctx context.Context, b *bench) error {
	defer b.proxy.SetLatency(0)
	for _, sc := range scenarios {
		if !sc.time {
			continue
		}
		for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
			took := figures{}
			err := b.rounds(ctx, []peer{tramo, stock, tuned}, b.proxy.Endpoint(), func(sv *server) error {
				b.proxy.SetLatency(delay)
				start := time.Now()
				_, err := sc.send(ctx, sv, sc.size)
				took.add(sv.peer, time.Since(start).Seconds()*1000)
				b.proxy.SetLatency(0)
				return err
			})
			if err != nil {
				return err
			}
			b.row(fmt.Sprintf("ms for %s, S3 %s away", sc.name, delay), took, "%.0f", "", true)
		}
	}
	return nil
}

// timed uploads one photo.
func timed(ctx context.Context, sv *server) (time.Duration, error) {
	if err := sv.prepare(ctx, 1); err != nil {
		return 0, err
	}
	start := time.Now()
	err := sv.upload(ctx, photo)
	return time.Since(start), err
}

// bursts measures the end of a shift: many photos, many of them at once.
func bursts(ctx context.Context, b *bench) error {
	const photos = 200
	defer b.proxy.SetLatency(0)
	most := figures{}
	for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
		endpoint := b.S3.Endpoint()
		if delay > 0 {
			endpoint = b.proxy.Endpoint()
		}
		for _, atOnce := range []int{16, 64} {
			rate := figures{}
			err := b.rounds(ctx, []peer{tramo, stock, tuned, bare}, endpoint, func(sv *server) error {
				b.proxy.SetLatency(delay)
				if err := sv.prepare(ctx, photos); err != nil {
					return err
				}
				start := time.Now()
				if err := together(ctx, atOnce, photos, func(ctx context.Context) error { return sv.upload(ctx, photo) }); err != nil {
					return err
				}
				rate.add(sv.peer, photos*photo/mb/time.Since(start).Seconds())
				b.proxy.SetLatency(0)
				if sv.process == nil || atOnce != 64 {
					return nil
				}
				bytes, err := peak(sv.process.Pid())
				most.add(sv.peer, bytes/mib)
				return err
			})
			if err != nil {
				return err
			}
			name := fmt.Sprintf("MB/s, 200 photos, %d at once, S3 %s away", atOnce, delay)
			b.spread(name, rate)
			b.row(name, rate, "%.0f", "", true)
			ratio, goal := rate.over(bare), ""
			if atOnce == 64 && delay > 0 {
				goal = "≥ 0.7"
			}
			b.row("the same, against the bare client", ratio, "%.2fx", goal, ratio.of(tramo) >= 0.7)
		}
	}
	b.spread("MiB of memory", most)
	b.row("MiB of memory at most, 64 photos at once", most, "%.0f", "≤ 150", most.of(tramo) <= 150)
	return nil
}

// together calls f n times, atOnce at a time.
func together(ctx context.Context, atOnce, n int, f func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for range n {
		g.Go(func() error { return f(ctx) })
	}
	return g.Wait()
}
