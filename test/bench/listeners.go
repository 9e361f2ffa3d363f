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

// listenerCount is how many listeners there are.
const listenerCount = 1000

// A listener is a connection to live state. It speaks HTTP itself: a client of the standard library would cost this process
// more than the server.
type listener struct {
	conn net.Conn
	in   *bufio.Reader
}

// listeners measures what a thousand open streams of live state cost, and how long a change takes to all of them.
func listeners(ctx context.Context, b *bench) error {
	each, total, half, most := figures{}, figures{}, figures{}, figures{}
	err := b.rounds(ctx, []peer{tramo}, b.S3.Endpoint(), func(sv *server) error {
		if err := sv.upload(ctx, photo); err != nil { // so that the first request's cost is not counted
			return err
		}
		before, err := settledMemory(ctx, sv)
		if err != nil {
			return err
		}
		all, err := listen(ctx, sv)
		defer func() {
			for _, l := range all {
				l.conn.Close()
			}
		}()
		if err != nil {
			return err
		}
		after, err := settledMemory(ctx, sv)
		if err != nil {
			return err
		}
		took, err := deliveries(ctx, sv, all)
		if err != nil {
			return err
		}
		told, err := settledMemory(ctx, sv)
		if err != nil {
			return err
		}
		b.note("%.0f MiB before, %.0f MiB with %d listeners, %.0f MiB after the events", before/mib, after/mib, listenerCount, told/mib)
		each.add(sv.peer, (max(after, told)-before)/listenerCount/kib)
		total.add(sv.peer, (max(after, told)-before)/mib)
		half.add(sv.peer, quantile(took, 0.5))
		most.add(sv.peer, quantile(took, 0.99))
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

// listen opens streams, and returns once each has received the present state.
func listen(ctx context.Context, sv *server) ([]*listener, error) {
	var mu sync.Mutex
	var all []*listener
	address := strings.TrimSuffix(strings.TrimPrefix(sv.url, "http://"), "/api/uploads")
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(20)
	for range listenerCount {
		g.Go(func() error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err != nil {
				return err
			}
			l := &listener{conn: conn, in: bufio.NewReaderSize(conn, 512)}
			mu.Lock()
			all = append(all, l)
			mu.Unlock()
			if _, err := fmt.Fprintf(conn, "GET /api/events HTTP/1.1\r\nHost: tramo\r\nAuthorization: Bearer %s\r\n\r\n", sv.token); err != nil {
				return err
			}
			return l.await("event: ready", time.Now().Add(patience))
		})
	}
	return all, g.Wait()
}

// await reads until a line that has text in it.
func (l *listener) await(text string, deadline time.Time) error {
	if err := l.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	for {
		line, err := l.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) { // a longer line than the buffer is skipped
			return fmt.Errorf("listen for %q: %w", text, err)
		}
		if strings.Contains(string(line), text) {
			return nil
		}
	}
}

// deliveries creates uploads and returns how long after each was created each listener got its event, in ms.
func deliveries(ctx context.Context, sv *server, all []*listener) (took []float64, err error) {
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
		for _, l := range all {
			g.Go(func() error {
				err := l.await(`"id":"`+id, created.Add(patience))
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
