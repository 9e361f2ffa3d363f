package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/test/stack"
)

const (
	burst       = 200 // photos of one company
	burstAtOnce = 16
	singles     = 3 // photos of the other one, one after the other, while the burst is sent and worked
)

// fairness measures how long one company's photo takes, from its creation until it is completed, while nothing else
// happens, and in the middle of another company's burst: as things are, and with all jobs in the order of arrival.
func fairness(ctx context.Context, b *bench) error {
	workers, err := b.startWorkers(ctx)
	if err != nil {
		return err
	}
	defer workers.stop() //nolint:errcheck // Nothing is measured any more.
	sent, done := named{}, named{}
	for i := range b.repeat {
		for _, order := range []string{"fair", "fifo"} {
			if err := b.setOrder(ctx, order == "fifo"); err != nil {
				return err
			}
			err := b.burstBeside(ctx, fmt.Sprintf("%s-%d-%d", order, i, time.Now().UnixNano()), burst, func(when string, up, all time.Duration) {
				if when == "burst" {
					when = order
				}
				sent.add(when, tramo, up.Seconds()*1000)
				done.add(when, tramo, all.Seconds()*1000)
			})
			if err != nil {
				return err
			}
		}
	}
	for _, r := range []struct{ when, name string }{
		{"alone", "a photo, nothing else"},
		{"fair", fmt.Sprintf("a photo, in another company's burst of %d", burst)},
		{"fifo", "the same, jobs in the order of arrival"},
	} {
		b.spread(r.name, done[r.when])
		b.row("ms to send "+r.name, sent[r.when], "%.0f", "", true)
		goal := ""
		if r.when == "fair" {
			goal = "≤ 2000 more"
		}
		b.row("ms to complete "+r.name, done[r.when], "%.0f", goal, done[r.when].of(tramo) <= done["alone"].of(tramo)+2000)
	}
	return nil
}

// burstBeside lets one company send a burst of so many photos and, once half of it is there, another one single photos. It returns
// when the burst is worked.
func (b *bench) burstBeside(ctx context.Context, name string, burst int64, tell func(when string, sent, done time.Duration)) error {
	sv, err := b.serve(ctx, tramo, b.S3.Endpoint())
	if err != nil {
		return err
	}
	defer func() { _ = sv.stop() }() // It has answered all that was asked.
	ours, theirs := *sv, *sv
	if ours.token, err = b.tenant(ctx, "one photo "+name, "1TiB"); err != nil {
		return err
	}
	if theirs.token, err = b.tenant(ctx, "burst "+name, "1TiB"); err != nil {
		return err
	}
	picture := stack.Photo(stack.PhotoConfig{Width: 800, Height: 600, Seed: uint64(time.Now().UnixNano())})
	single := func(when string) error {
		start := time.Now()
		address, err := ours.sendPicture(ctx, picture)
		if err != nil {
			return err
		}
		up := time.Since(start)
		if err := ours.completed(ctx, address); err != nil {
			return err
		}
		tell(when, up, time.Since(start))
		return nil
	}
	for range 2 { // the first one warms up
		if err := single("alone"); err != nil {
			return err
		}
	}
	var arrived atomic.Int64
	half := make(chan struct{})
	g, sending := errgroup.WithContext(ctx)
	g.Go(func() error {
		return together(sending, burstAtOnce, int(burst), func(ctx context.Context) error {
			_, err := theirs.sendPicture(ctx, picture)
			if arrived.Add(1) == burst/2 {
				close(half)
			}
			return err
		})
	})
	g.Go(func() error {
		select {
		case <-half:
		case <-sending.Done():
			return sending.Err()
		}
		for range singles {
			if err := single("burst"); err != nil {
				return err
			}
		}
		return nil
	})
	start := time.Now()
	if err := g.Wait(); err != nil {
		return err
	}
	left, err := b.waiting(ctx)
	b.note("%s: %d jobs of the burst waited when the single photos were done, %s after it began", name, left, time.Since(start).Round(time.Millisecond))
	if err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		left, err := b.waiting(ctx)
		return left == 0, err
	})
}

// waiting counts jobs that are not done.
func (s *stand) waiting(ctx context.Context) (n int, err error) {
	err = s.sql(ctx, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, jobsLeft).Scan(&n)
	})
	return n, err
}

const jobsLeft = `select count(*) from river_job where kind = 'process_upload' and finalized_at is null`

// setOrder makes all jobs equal, so that they are worked in the order of arrival, or leaves them as they are made.
func (s *stand) setOrder(ctx context.Context, fifo bool) error {
	return s.sql(ctx, func(c *pgx.Conn) error {
		_, err := c.Exec(ctx, `
			create or replace function bench_fifo() returns trigger language plpgsql as $$
			begin new.priority := 1; return new; end $$;
			drop trigger if exists bench_fifo on river_job`)
		if err == nil && fifo {
			_, err = c.Exec(ctx, `create trigger bench_fifo before insert or update on river_job for each row execute function bench_fifo()`)
		}
		return err
	})
}

func (s *stand) sql(ctx context.Context, f func(*pgx.Conn) error) error {
	c, err := pgx.Connect(ctx, s.Postgres.URL("postgres", s.Database))
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close(ctx))
}

// sendPicture creates an upload and sends it in one PATCH.
func (sv *server) sendPicture(ctx context.Context, picture []byte) (address string, err error) {
	h, err := sv.do(ctx, http.MethodPost, sv.url, 0, map[string]string{
		"Upload-Length":   strconv.Itoa(len(picture)),
		"Upload-Metadata": "filetype " + base64.StdEncoding.EncodeToString([]byte("image/jpeg")),
	}, http.StatusCreated)
	if err != nil {
		return "", err
	}
	_, _, err = sv.send(ctx, http.MethodPatch, h.Get("Location"), bytes.NewReader(picture), int64(len(picture)),
		map[string]string{"Upload-Offset": "0"}, http.StatusNoContent)
	return h.Get("Location"), err
}

// completed waits until the upload at address is.
func (sv *server) completed(ctx context.Context, address string) error {
	return poll(ctx, func() (bool, error) {
		var upload struct{ Status string }
		_, body, err := sv.send(ctx, http.MethodGet, address, nil, 0, nil, http.StatusOK)
		if err == nil {
			err = json.Unmarshal(body, &upload)
		}
		if err == nil && upload.Status == "failed" {
			err = fmt.Errorf("an upload failed: %s", body)
		}
		return upload.Status == "completed", err
	})
}

// workers are what completes uploads.
type workers struct {
	clamd    *stack.Clamd
	process  *stack.Replica
	profiled func() // ends its profiles
}

func (s *stand) startWorkers(ctx context.Context) (w *workers, err error) {
	w = &workers{profiled: func() {}}
	if w.clamd, err = stack.StartClamd(ctx, stack.ClamdConfig{}); err != nil {
		return w, err
	}
	if w.process, err = s.Work(ctx, append(s.profiles.env(), "TRAMO_CLAMD="+w.clamd.Address())...); err != nil {
		return w, errors.Join(err, w.clamd.Stop())
	}
	w.profiled = s.profiles.watch("worker", w.process.Ops)
	return w, nil
}

func (w *workers) stop() error {
	w.profiled()
	return errors.Join(w.process.Stop(), w.clamd.Stop())
}
