package storage_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

// A relay passes on what a pool and Postgres say, and counts Postgres' answers: one for each round trip (PostgreSQL
// documentation, "Message Flow": ReadyForQuery).
type relay struct {
	ready   atomic.Int64
	swallow atomic.Bool // the next one, and then cut the connection
}

// relayed opens the database through a relay, over one connection.
func (d *database) relayed(t *testing.T) (*storage.DB, *relay) {
	t.Helper()
	u, err := url.Parse(d.URL("tramo_worker")) // which may COPY
	stack.Must(t, err)
	q := u.Query()
	upstream := filepath.Join(q.Get("host"), ".s.PGSQL.5432")
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	stack.Must(t, err)
	r := &relay{}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", upstream)
			if err != nil {
				client.Close()
				return
			}
			running.Go(func() {
				_, _ = io.Copy(server, client)
				server.Close()
			})
			running.Go(func() {
				r.count(client, server)
				client.Close()
			})
		}
	})
	q.Set("host", dir)
	q.Set("pool_max_conns", "1")
	q.Set("pool_max_conn_idle_time", "1h") // nor is an idle connection pinged
	u.RawQuery = q.Encode()
	db, err := storage.Open(t.Context(), storage.Config{URL: telemetry.Secret(u.String())})
	stack.Must(t, err)
	t.Cleanup(func() {
		db.Close()
		l.Close()
		running.Wait()
	})
	return db, r
}

// count passes Postgres' messages on: a type, a length, which includes itself, and the rest.
func (r *relay) count(client io.Writer, server io.Reader) {
	var head [5]byte
	for {
		if _, err := io.ReadFull(server, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if head[0] == 'Z' {
			r.ready.Add(1)
		}
		if r.swallow.Load() {
			if head[0] == 'Z' {
				r.swallow.Store(false)
				return
			}
			continue
		}
		if _, err := client.Write(append(head[:], body...)); err != nil {
			return
		}
	}
}

// BEGIN travels with the first statement, and what nobody waits for with the next one or with COMMIT.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	db, r := d.relayed(t)
	ctx := d.NewTenant(t, 1000)
	id := d.Create(t, ctx, 100)
	one := func(tx storage.Tx) (err error) {
		_, err = tx.Upload(ctx, id)
		return err
	}
	later := func(tx storage.Tx) { tx.Append(ctx, id, storage.Entry{Event: "waiting"}) }
	for name, c := range map[string]struct {
		fn   func(storage.Tx) error
		want int64
	}{
		"nothing":   {func(storage.Tx) error { return nil }, 0},
		"one":       {one, 2},
		"two":       {func(tx storage.Tx) error { return errors.Join(one(tx), one(tx)) }, 3},
		"later":     {func(tx storage.Tx) error { later(tx); return nil }, 2},
		"then one":  {func(tx storage.Tx) error { later(tx); later(tx); return one(tx) }, 2},
		"one first": {func(tx storage.Tx) error { err := one(tx); later(tx); later(tx); return err }, 2},
		"flushed":   {func(tx storage.Tx) error { later(tx); return storage.Flush(ctx, tx) }, 2},
		"read later": {func(tx storage.Tx) error {
			storage.ReadContent(tx, id, new(storage.Upload), new(storage.Content))
			return nil
		}, 1},
		"one row copied": {func(tx storage.Tx) error { return copyTails(ctx, tx, id, 1) }, 2},
		"rows copied":    {func(tx storage.Tx) error { return copyTails(ctx, tx, id, 2) }, 3},
		"decided": {func(tx storage.Tx) error {
			storage.Later(tx, "decide", "select 1").Decide(storage.Into(new(int)))
			return nil
		}, 2},
		"undone":                          {func(tx storage.Tx) error { return errors.Join(one(tx), errUndo) }, 2},
		"undone before anything was sent": {func(tx storage.Tx) error { later(tx); return errUndo }, 0},
	} {
		var took int64
		for range 2 { // the first one prepares statements
			before := r.ready.Load()
			err := db.InTenant(ctx, c.fn)
			if err != nil && !errors.Is(err, errUndo) {
				t.Fatalf("%s: %v", name, err)
			}
			took = r.ready.Load() - before
			d.Exec(t, `delete from tails`)
		}
		stack.Want(t, took, c.want, "%s: round trips", name)
	}
	d.WantCount(t, 7*2-2, `select count(*) from timeline where event = 'waiting'`)
}

// The answer to a transaction's first round trip is lost: it is made again, and what it does is done once.
func TestFirstAnswerLost(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	db, r := d.relayed(t)
	ctx := d.NewTenant(t, 1000)
	id := d.Create(t, ctx, 100)
	later := func(tx storage.Tx) { tx.Append(ctx, id, storage.Entry{Event: "waiting"}) }
	for name, fn := range map[string]func(storage.Tx) error{
		"only later": func(tx storage.Tx) error { later(tx); return nil },
		"then read":  func(tx storage.Tx) error { later(tx); return storage.Flush(ctx, tx) },
		"read too": func(tx storage.Tx) error {
			storage.ReadContent(tx, id, new(storage.Upload), new(storage.Content))
			later(tx)
			return nil
		},
	} {
		stack.Must(t, db.InTenant(ctx, fn))
		r.swallow.Store(true)
		stack.Must(t, db.InTenant(ctx, fn))
		stack.Want(t, r.swallow.Load(), false, "%s: an answer is still to be lost", name)
		d.WantCount(t, 2, `select count(*) from timeline where event = 'waiting'`)
		d.Exec(t, `delete from timeline where event = 'waiting'`)
	}
	u := new(storage.Upload)
	r.swallow.Store(true)
	stack.Must(t, db.InTenant(ctx, func(tx storage.Tx) error {
		storage.ReadContent(tx, id, u, new(storage.Content))
		return nil
	}))
	stack.Want(t, u.ID, id, "upload that was read again")
}

var errUndo = errors.New("undo")

func copyTails(ctx context.Context, tx storage.Tx, id uuid.UUID, n int) error {
	rows := make([][]any, n)
	for i := range rows {
		rows[i] = []any{tx.Tenant, id, int64(i), []byte("x")}
	}
	copied, err := tx.CopyFrom(ctx, pgx.Identifier{"tails"}, []string{"tenant_id", "upload_id", "start", "data"}, pgx.CopyFromRows(rows))
	if err == nil && copied != int64(n) {
		err = errors.New("copied another number")
	}
	return err
}

// If a statement that nobody waits for fails, nothing of its transaction is there: neither what came before it, nor what it
// travels with. The error names it, whatever it is that tells of it.
func TestLaterStatementFails(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id := d.Create(t, ctx, 100)
	wrong := func(tx storage.Tx) { storage.Later(tx, "do what cannot be done", "select 1/0") }
	refuse := func(tx storage.Tx) {
		storage.Later(tx, "do what cannot be done", "select 1").Decide(func(pgx.Rows) error { return errUndo })
	}
	right := func(tx storage.Tx) error {
		_, err := tx.Exec(ctx, `update contents set touched_at = '2001-01-01' where tenant_id = $1 and upload_id = $2`, tx.Tenant, id)
		return err
	}
	for name, fn := range map[string]func(storage.Tx) error{
		"with COMMIT, alone": func(tx storage.Tx) error { wrong(tx); return nil },
		"with COMMIT":        func(tx storage.Tx) error { err := right(tx); wrong(tx); return err },
		"with the first":     func(tx storage.Tx) error { wrong(tx); return right(tx) },
		"between others":     func(tx storage.Tx) error { err := right(tx); wrong(tx); return errors.Join(err, right(tx)) },
		"with others that wait": func(tx storage.Tx) error {
			err := right(tx)
			wrong(tx)
			tx.Append(ctx, id, storage.Entry{Event: "waiting"})
			return err
		},
		"decides with COMMIT":      func(tx storage.Tx) error { err := right(tx); refuse(tx); return err },
		"decides before the first": func(tx storage.Tx) error { refuse(tx); return right(tx) },
		"decides, and nobody listens": func(tx storage.Tx) error {
			refuse(tx)
			_ = right(tx)
			_ = right(tx)
			return nil
		},
		"fails, and nobody listens": func(tx storage.Tx) error {
			wrong(tx)
			_ = right(tx)
			_ = right(tx)
			return nil
		},
		"decides after others that wait": func(tx storage.Tx) error {
			err := right(tx)
			tx.Append(ctx, id, storage.Entry{Event: "waiting"})
			refuse(tx)
			tx.Append(ctx, id, storage.Entry{Event: "waiting"})
			return err
		},
	} {
		err := d.API.InTenant(ctx, fn)
		if err == nil || !strings.Contains(err.Error(), "do what cannot be done: ") {
			t.Errorf("%s: %v", name, err)
		}
		d.WantCount(t, 0, `select count(*) from contents where touched_at < '2002-01-01'`)
		d.WantCount(t, 0, `select count(*) from timeline where event = 'waiting'`)
		d.WantCount(t, 0, `select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'`)
	}
	stack.Must(t, d.API.InTenant(ctx, right)) // its connections are as good as before
}
