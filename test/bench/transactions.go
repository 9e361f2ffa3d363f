package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// What a photo may cost in Postgres transactions, and a HEAD. The package's tests hold Tramo to these; lower them with the
// code.
const (
	mostForPost   = 2
	mostForPatch  = 3
	mostForHead   = 1
	mostForWorker = 4
)

const (
	photosCounted = 40 // an odd transaction, such as a heartbeat, changes no median
	idleCounted   = 50 // transactions of a worker, after which it is idle, and after which each kind of an idle one's was there

	serverRole = "tramo_api"
	workerRole = "tramo_worker"
)

// A spender is something that costs transactions.
type spender struct {
	name string
	role string
	most int
	do   func(context.Context, *payer) error
}

var spenders = []spender{
	{"the server, photo in one POST", serverRole, mostForPost, func(ctx context.Context, p *payer) error {
		_, err := p.server.create(ctx, photo, photo)
		return err
	}},
	{"the server, POST + PATCH", serverRole, mostForPatch, func(ctx context.Context, p *payer) error { return p.server.upload(ctx, photo) }},
	{"the server, HEAD", serverRole, mostForHead, func(ctx context.Context, p *payer) error {
		_, err := p.server.head(ctx, p.unfinished)
		return err
	}},
	{"the worker, photo", workerRole, mostForWorker, func(ctx context.Context, p *payer) error {
		address, err := p.server.sendWhole(ctx, p.picture)
		if err != nil {
			return err
		}
		return p.server.completed(ctx, address)
	}},
}

// A payer is what spenders need. Of the worker, it has none while the server's transactions are counted by pg_stat_database.
type payer struct {
	server     *server
	picture    []byte
	unfinished string // address of an upload that nobody holds
}

func (s *stand) newPayer(ctx context.Context) (*payer, error) {
	p := &payer{picture: stack.Photo(stack.PhotoConfig{Width: 400, Height: 300, Seed: 7})}
	var err error
	if p.server, err = s.serve(ctx, tramo, s.S3.Endpoint()); err != nil {
		return nil, err
	}
	if p.unfinished, err = p.server.create(ctx, photo, 0); err == nil {
		err = p.server.patch(ctx, p.unfinished, 0, 300*kib)
	}
	if err != nil {
		return nil, errors.Join(err, p.server.stop())
	}
	return p, nil
}

// A cost is how many transactions something took.
type cost struct {
	median float64
	kinds  map[string]int // in all repetitions
}

// ledgers counts what each spender costs, by the log of Postgres, with a server and a worker that run.
func (s *stand) ledgers(ctx context.Context) (costs map[string]cost, err error) {
	admin, err := pgx.Connect(ctx, s.Postgres.AdminURL())
	if err != nil {
		return nil, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	closeLedger, err := s.ledger.open(ctx, admin)
	defer func() { err = errors.Join(err, closeLedger()) }()
	if err != nil {
		return nil, err
	}
	w, err := s.startWorkers(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	p, err := s.newPayer(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.server.stop(), s.wipe()) }()
	// The first ones prepare statements and open connections, and what earlier tests sent is still to be worked.
	for range 3 {
		for _, sp := range spenders {
			if err := sp.do(ctx, p); err != nil {
				return nil, fmt.Errorf("%s: %w", sp.name, err)
			}
		}
	}
	const settling, idle = 1, 2
	err = s.drained(ctx)
	for window := settling; window <= idle; window++ {
		err = errors.Join(err, s.ledger.mark(ctx, admin))
		if err == nil {
			err = poll(ctx, func() (bool, error) { return s.ledger.begun(workerRole, window) >= idleCounted, nil })
		}
	}
	if err != nil {
		return nil, err
	}
	costs = map[string]cost{}
	window := idle
	for _, sp := range spenders {
		first := window + 1
		for range photosCounted {
			if err := s.ledger.mark(ctx, admin); err != nil {
				return nil, err
			}
			window++
			if err := sp.do(ctx, p); err != nil {
				return nil, fmt.Errorf("%s: %w", sp.name, err)
			}
		}
		if err := errors.Join(s.drained(ctx), s.ledger.mark(ctx, admin)); err != nil {
			return nil, err
		}
		window++
		each, kinds := s.ledger.count(sp.role, idle, first, window)
		costs[sp.name] = cost{median: quantile(each, 0.5), kinds: kinds}
	}
	return costs, nil
}

// drained waits until no job is left.
func (s *stand) drained(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		left, err := s.waiting(ctx)
		return left == 0, err
	})
}

// sendWhole sends a picture with its creation.
func (sv *server) sendWhole(ctx context.Context, picture []byte) (address string, err error) {
	h, _, err := sv.send(ctx, http.MethodPost, sv.url, bytes.NewReader(picture), int64(len(picture)), map[string]string{
		"Upload-Length":   strconv.Itoa(len(picture)),
		"Upload-Metadata": "filetype " + base64.StdEncoding.EncodeToString([]byte("image/jpeg")),
	}, http.StatusCreated)
	return h.Get("Location"), err
}

// transactions counts what a photo costs in Postgres transactions: by the log, as the tests do, and by pg_stat_database.
func transactions(ctx context.Context, b *bench) (err error) {
	costs, err := b.ledgers(ctx)
	if err != nil {
		return err
	}
	admin, err := pgx.Connect(ctx, b.Postgres.AdminURL())
	if err != nil {
		return err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	reset, err := alter(ctx, admin, map[string]string{"autovacuum": "off"}) // its transactions count too
	defer func() { err = errors.Join(err, reset()) }()
	if err != nil {
		return err
	}
	for _, sp := range spenders {
		c := costs[sp.name]
		for _, kind := range slices.Sorted(maps.Keys(c.kinds)) {
			b.note("%s: %.1fx %s", sp.name, float64(c.kinds[kind])/photosCounted, kind)
		}
		b.row("transactions of "+sp.name, figures{tramo: {c.median}}, "%.0f", fmt.Sprintf("≤ %d", sp.most), c.median <= float64(sp.most))
		if sp.role == serverRole {
			err = b.countServer(ctx, sp)
		} else {
			err = b.countWorker(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", sp.name, err)
		}
	}
	return nil
}

// countServer counts the commits of a server's whole life in which something happens 40 times, less those of one in which
// nothing happens. No worker runs.
func (b *bench) countServer(ctx context.Context, sp spender) error {
	all := figures{}
	for range b.repeat {
		var lives [2]float64
		for i, n := range []int{0, photosCounted} {
			before, err := b.committed(ctx)
			if err != nil {
				return err
			}
			p, err := b.newPayer(ctx)
			if err != nil {
				return err
			}
			for range n {
				err = errors.Join(err, sp.do(ctx, p))
			}
			clients.CloseIdleConnections()
			if err := errors.Join(err, p.server.stop()); err != nil {
				return err
			}
			after, err := b.committed(ctx)
			if err != nil {
				return err
			}
			lives[i] = after - before
		}
		all.add(tramo, (lives[1]-lives[0])/photosCounted)
	}
	b.row("the same, by pg_stat_database, with notifications", all, "%.1f", "", true)
	return nil
}

// countWorker counts the commits of a worker's whole life in which it works 40 photos that wait for it, less those of one
// that is as long and in which nothing waits.
func (b *bench) countWorker(ctx context.Context) error {
	if _, _, err := b.lifeOfWorker(ctx, 0); err != nil { // what the server's counts have left
		return err
	}
	all := figures{}
	for range b.repeat {
		p, err := b.newPayer(ctx)
		if err != nil {
			return err
		}
		for range photosCounted {
			_, failed := p.server.sendWhole(ctx, p.picture)
			err = errors.Join(err, failed)
		}
		clients.CloseIdleConnections()
		if err := errors.Join(err, p.server.stop()); err != nil {
			return err
		}
		busy, took, err := b.lifeOfWorker(ctx, 0)
		if err != nil {
			return err
		}
		idle, _, err := b.lifeOfWorker(ctx, took)
		if err != nil {
			return err
		}
		all.add(tramo, (busy-idle)/photosCounted)
	}
	b.row("the same, by pg_stat_database, 40 that wait", all, "%.1f", "", true)
	return nil
}

// lifeOfWorker returns the commits of a worker that runs until no job is left, and at least so long, and how long it took.
func (b *bench) lifeOfWorker(ctx context.Context, least time.Duration) (commits float64, took time.Duration, err error) {
	before, err := b.committed(ctx)
	if err != nil {
		return 0, 0, err
	}
	w, err := b.startWorkers(ctx)
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	err = b.sql(ctx, func(c *pgx.Conn) error { // one transaction, however often it looks
		tx, err := c.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx) //nolint:errcheck // it has only read
		return poll(ctx, func() (bool, error) {
			var left int
			err := tx.QueryRow(ctx, jobsLeft).Scan(&left)
			return left == 0 && time.Since(begun) >= least, err
		})
	})
	took = time.Since(begun)
	if err := errors.Join(err, w.stop()); err != nil {
		return 0, 0, err
	}
	after, err := b.committed(ctx)
	return after - before, took, err
}

// committed returns the transactions that were committed in Tramo's database so far. A process of Postgres may tell its
// own late, but at the latest when it ends: nothing may be running that does not end.
func (s *stand) committed(ctx context.Context) (n float64, err error) {
	admin, err := pgx.Connect(ctx, s.Postgres.AdminURL())
	if err != nil {
		return 0, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	err = poll(ctx, func() (bool, error) {
		var running bool
		err := admin.QueryRow(ctx, `select exists (select from pg_stat_activity where datname = $1 and backend_type = 'client backend')`, s.Database).Scan(&running)
		return !running, err
	})
	if err == nil {
		err = admin.QueryRow(ctx, `select xact_commit from pg_stat_database where datname = $1`, s.Database).Scan(&n)
	}
	return n, err
}
