package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	silent      = 1000 // clients
	uploadsEach = 20   // creations under way while they are set up
)

// stalled measures what clients cost that sent something and then fell silent. Memory hardly differs from run to run: it
// is measured once.
func stalled(ctx context.Context, b *bench) error {
	for _, sent := range []struct {
		bytes int64
		name  string
	}{{300 * kib, "300 KiB"}, {mb, "1 MB"}} {
		each, total, files := figures{}, figures{}, figures{}
		safe := false
		err := b.turns(ctx, 1, []peer{tramo, stock, tuned}, b.S3.Endpoint(), func(sv *server) error {
			before, err := resident(sv.process.Pid())
			if err != nil {
				return err
			}
			lines, saved, err := silence(ctx, sv, sent.bytes)
			defer closeAll(lines)
			if err != nil {
				return err
			}
			after, err := settledMemory(ctx, sv)
			if err != nil {
				return err
			}
			kept, bytes, err := filesIn(sv.temp)
			if err != nil {
				return err
			}
			b.note("%s: %d of %d uploads saved, %.0f MiB before, %.0f MiB after, %d files of %d bytes",
				sv.peer, saved, silent, before/mib, after/mib, kept, bytes)
			safe = safe || saved == silent
			each.add(sv.peer, (after-before)/silent/kib)
			total.add(sv.peer, after/mib)
			files.add(sv.peer, float64(kept))
			// Its clients would keep it waiting.
			sv.kill()
			return nil
		})
		if err != nil {
			return err
		}
		name := "1,000 clients that sent " + sent.name + " and fell silent"
		b.row("KiB of memory each, "+name, each, "%.0f", "≤ 150, all saved", safe && each.of(tramo) <= 150)
		b.row("MiB of memory in all, "+name, total, "%.0f", "≤ 250, all saved", safe && total.of(tramo) <= 250)
		b.row("temporary files, "+name, files, "%.0f", "0, all saved", safe && files.of(tramo) == 0)
	}
	return nil
}

// silence lets clients send so many bytes each of a photo and no more. It returns once all are received and, of Tramo,
// saved, and returns how many are.
func silence(ctx context.Context, sv *server, sent int64) (lines []line, saved int, err error) {
	var mu sync.Mutex
	var addresses []string
	g, opening := errgroup.WithContext(ctx)
	g.SetLimit(uploadsEach)
	for range silent {
		g.Go(func() error {
			address, err := sv.create(opening, photo, 0)
			if err != nil {
				return err
			}
			l, err := sv.open(opening, address, 0, photo)
			if err != nil {
				return err
			}
			mu.Lock()
			lines, addresses = append(lines, l), append(addresses, address)
			mu.Unlock()
			return errors.Join(l.send(sent), l.delivered(opening))
		})
	}
	if err := g.Wait(); err != nil || sv.peer != tramo {
		return lines, 0, err
	}
	clients.CloseIdleConnections()
	limit, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	for _, address := range addresses {
		err := poll(limit, func() (bool, error) {
			got, err := sv.recorded(limit, address)
			return got >= sent, err
		})
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			return lines, saved, err
		}
		saved++
	}
	return lines, saved, nil
}

func closeAll(lines []line) {
	for _, l := range lines {
		_ = l.cut() // the server may be gone
	}
}

// settledMemory watches a server until its memory has stopped falling, and returns what it holds then.
func settledMemory(ctx context.Context, sv *server) (float64, error) {
	const (
		still = 3 * time.Second // without a new minimum
		most  = 20 * time.Second
	)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	least, since := 0.0, start
	for {
		now, err := resident(sv.process.Pid())
		if err != nil {
			return 0, err
		}
		if least == 0 || now < least*0.99 {
			least, since = now, time.Now()
		}
		if time.Since(since) > still || time.Since(start) > most {
			return least, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// beside measures a fast photo's worst case while slow phones send, and without them.
func beside(ctx context.Context, b *bench) error {
	alone, crowded := figures{}, figures{}
	err := b.rounds(ctx, []peer{tramo, stock, tuned}, b.S3.Endpoint(), func(sv *server) error {
		worst, err := b.worstPhoto(ctx, sv)
		if err != nil {
			return err
		}
		alone.add(sv.peer, worst)
		stop, err := slowPhones(ctx, sv)
		if err == nil {
			worst, err = b.worstPhoto(ctx, sv)
			crowded.add(sv.peer, worst)
		}
		stop()
		sv.kill() // stock tusd would wait for those who wait for a slot
		return err
	})
	if err != nil {
		return err
	}
	b.spread("ms alone", alone)
	b.spread("ms beside", crowded)
	b.row("ms for a fast photo at worst, alone", alone, "%.0f", "", true)
	b.row("ms for a fast photo at worst, beside 60 slow phones", crowded, "%.0f", "", true)
	ratio := crowded.by(alone)
	b.row("the same, against alone", ratio, "%.1fx", "≤ 1.5", ratio.of(tramo) <= 1.5)
	return nil
}

// worstPhoto sends photos one after the other, for a while, and returns the longest time in ms. A photo that fails
// took as long as it took to fail.
func (b *bench) worstPhoto(ctx context.Context, sv *server) (worst float64, err error) {
	const photos, enough = 100, 30 * time.Second
	start := time.Now()
	for i := 0; i < photos && time.Since(start) < enough; i++ {
		begun := time.Now()
		if err := sv.upload(ctx, photo); err != nil {
			b.note("%s: photo %d failed after %s: %v", sv.peer, i, time.Since(begun), err)
		}
		if i > 0 || time.Since(begun) > enough { // the first one warms up
			worst = max(worst, time.Since(begun).Seconds()*1000)
		}
	}
	return worst, ctx.Err()
}

// slowPhones starts 60 phones that send photos at 128 KiB/s, one after the other, and returns once all have begun.
func slowPhones(ctx context.Context, sv *server) (stop func(), err error) {
	const phones = 60
	ctx, cancel := context.WithCancel(ctx)
	var sending sync.WaitGroup
	stop = func() { cancel(); sending.Wait() }
	begun := make(chan error, 2*phones)
	for i := range phones {
		sending.Go(func() {
			// They do not end all at the same time.
			first := slowly(ctx, sv, photo*int64(i+1)/phones, func() { begun <- nil })
			if first != nil {
				begun <- first
				return
			}
			for ctx.Err() == nil {
				if slowly(ctx, sv, photo, func() {}) != nil {
					return // refused, as the fast photo may be
				}
			}
		})
	}
	for range phones {
		if err := <-begun; err != nil {
			return stop, err
		}
	}
	return stop, nil
}

// slowly sends one upload at 128 KiB/s, and calls begun when the server has its first bytes.
func slowly(ctx context.Context, sv *server, size int64, begun func()) error {
	const (
		step  = 16 * kib
		every = 125 * time.Millisecond
	)
	address, err := sv.create(ctx, size, 0)
	if err != nil {
		return err
	}
	l, err := sv.open(ctx, address, 0, size)
	if err != nil {
		return err
	}
	defer l.cut() //nolint:errcheck // Its answer is not needed.
	defer context.AfterFunc(ctx, func() { _ = l.cut() })()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for sent := int64(0); sent < size; sent += step {
		if err := l.send(min(step, size-sent)); err != nil {
			return err
		}
		if sent == 0 {
			if err := l.delivered(ctx); err != nil {
				return err
			}
			begun()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_, err = l.answer()
	return err
}

// heads measures how long HEAD takes while 16 uploads run, and an OPTIONS, for which the server does nothing: the time that two
// processes wait for a core.
func heads(ctx context.Context, b *bench) error {
	const (
		uploading = 16
		enoughOf  = 100 // HEADs, and more as long as there is time
		enough    = 15 * time.Second
		idle      = 8
	)
	half, most, least := figures{}, figures{}, figures{}
	err := b.rounds(ctx, []peer{tramo, stock, tuned}, b.S3.Endpoint(), func(sv *server) error {
		var addresses []string
		for range idle {
			address, err := sv.create(ctx, photo, 0)
			if err != nil {
				return err
			}
			if err := sv.patch(ctx, address, 0, 300*kib); err != nil {
				return err
			}
			addresses = append(addresses, address)
		}
		loading, stop := context.WithCancel(ctx)
		g, loading := errgroup.WithContext(loading)
		for range uploading {
			g.Go(func() error {
				for loading.Err() == nil {
					if err := sv.upload(loading, photo); err != nil && loading.Err() == nil {
						return err
					}
				}
				return nil
			})
		}
		var took, nothing []float64
		var err error
		begun := time.Now()
		for i := 0; err == nil && loading.Err() == nil && (i < enoughOf || time.Since(begun) < enough); i++ {
			start := time.Now()
			_, err = sv.head(ctx, addresses[i%idle])
			took = append(took, time.Since(start).Seconds()*1000)
			start = time.Now()
			err = errors.Join(err, sv.options(ctx))
			nothing = append(nothing, time.Since(start).Seconds()*1000)
		}
		stop()
		half.add(sv.peer, quantile(took, 0.5))
		most.add(sv.peer, quantile(took, 0.99))
		least.add(sv.peer, quantile(nothing, 0.99))
		return errors.Join(err, g.Wait())
	})
	b.spread("ms p99", most)
	b.row("ms for a HEAD under 16 uploads, p50", half, "%.0f", "", true)
	b.row("ms for a HEAD under 16 uploads, p99", most, "%.0f", "< 30", most.of(tramo) < 30)
	b.row("ms for an OPTIONS there, which does nothing, p99", least, "%.0f", "", true)
	return err
}

// options asks what the server can do, which needs neither Postgres nor S3.
func (sv *server) options(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodOptions, sv.url, http.NoBody)
	if err != nil {
		return err
	}
	res, err := clients.Do(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close())
}
