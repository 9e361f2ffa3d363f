package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// ears is how many listeners there are.
const ears = 1000

// An ear is a listener's connection. It speaks HTTP itself: a client of the standard library would cost this process
// more than the server.
type ear struct {
	conn net.Conn
	in   *bufio.Reader
}

// listeners measures what a thousand open streams of live state cost, and how long a change takes to all of them.
func listeners(ctx context.Context, b *bench) error {
	each, total, half, most := figures{}, figures{}, figures{}, figures{}
	err := b.rounds(ctx, []peer{tramo}, b.S3.Endpoint(), func(t target) error {
		if err := t.upload(ctx, photo); err != nil { // what the first request costs is not theirs
			return err
		}
		before, err := settledMemory(ctx, t.server)
		if err != nil {
			return err
		}
		all, err := listen(ctx, t.server)
		defer func() {
			for _, e := range all {
				e.conn.Close()
			}
		}()
		if err != nil {
			return err
		}
		after, err := settledMemory(ctx, t.server)
		if err != nil {
			return err
		}
		took, err := deliveries(ctx, t.server, all)
		if err != nil {
			return err
		}
		told, err := settledMemory(ctx, t.server)
		if err != nil {
			return err
		}
		b.note("%.0f MiB before, %.0f MiB with %d listeners, %.0f MiB once they were told", before/mib, after/mib, ears, told/mib)
		each.add(t.peer, (max(after, told)-before)/ears/kib)
		total.add(t.peer, (max(after, told)-before)/mib)
		half.add(t.peer, quantile(took, 0.5))
		most.add(t.peer, quantile(took, 0.99))
		return nil
	})
	if err != nil {
		return err
	}
	b.row("KiB of memory each, 1,000 listeners", each, "%.0f", "", true)
	b.row("MiB of memory in all, 1,000 listeners", total, "%.0f", "< 100", total.of(tramo) < 100)
	b.row("ms from a change to each of 1,000 listeners, p50", half, "%.0f", "", true)
	b.row("ms from a change to each of 1,000 listeners, p99", most, "%.0f", "", true)
	return nil
}

// listen opens streams, and returns once each has been told what there is.
func listen(ctx context.Context, sv *server) ([]*ear, error) {
	var mu sync.Mutex
	var all []*ear
	address := strings.TrimSuffix(strings.TrimPrefix(sv.url, "http://"), "/api/uploads")
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(20)
	for range ears {
		g.Go(func() error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			e := &ear{conn: conn, in: bufio.NewReaderSize(conn, 512)}
			mu.Lock()
			all = append(all, e)
			mu.Unlock()
			if _, err := fmt.Fprintf(conn, "GET /api/events HTTP/1.1\r\nHost: tramo\r\nAuthorization: Bearer %s\r\n\r\n", sv.token); err != nil {
				return err
			}
			return e.hear("event: ready", time.Now().Add(patience))
		})
	}
	return all, g.Wait()
}

// hear reads until a line that has text in it.
func (e *ear) hear(text string, deadline time.Time) error {
	if err := e.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	for {
		line, err := e.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) { // a longer line than this is of no interest
			return fmt.Errorf("listen for %q: %w", text, err)
		}
		if strings.Contains(string(line), text) {
			return nil
		}
	}
}

// deliveries creates uploads and returns how long after each was created each listener was told, in ms.
func deliveries(ctx context.Context, sv *server, all []*ear) (took []float64, err error) {
	const changes = 20
	for range changes {
		address, err := sv.create(ctx, photo, 0)
		if err != nil {
			return nil, err
		}
		created := time.Now()
		id := address[strings.LastIndexByte(address, '/')+1:]
		var mu sync.Mutex
		var g errgroup.Group
		for _, e := range all {
			g.Go(func() error {
				err := e.hear(`"id":"`+id, created.Add(patience))
				mu.Lock()
				defer mu.Unlock()
				took = append(took, time.Since(created).Seconds()*1000)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
	}
	return took, nil
}
