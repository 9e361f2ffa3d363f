package storage

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// changesChannel is where all processes hear what has changed.
const changesChannel = "tramo_changes"

const (
	// tellEvery is for how long changes are gathered before they are told. A NOTIFY takes a lock on the whole
	// database until its transaction is committed: one for many changes, in a transaction of its own, costs the
	// transactions that made them nothing.
	tellEvery = 75 * time.Millisecond
	// tellProgressEvery is how often at most an upload's offset is told that nothing else is to be told of.
	tellProgressEvery = time.Second
	// tellTime bounds how long telling may take. What could not be told is found by who listens ([Tx.MovedSince]).
	tellTime = 5 * time.Second
	// changesAPayload keeps payloads below 8,000 bytes (PostgreSQL documentation, NOTIFY).
	changesAPayload = 300
)

// A ChangeKind says what sort of row has changed.
type ChangeKind byte

// What listeners are told of.
const (
	UploadChanged ChangeKind = 'u'
	BatchChanged  ChangeKind = 'b'
	announced     ChangeKind = 'a'
)

// A change names one row that has changed.
type change struct {
	tenant uuid.UUID
	kind   ChangeKind
	id     uuid.UUID
}

// changes are what a transaction has changed, to be told once it is committed.
type changes struct {
	now      []change
	progress []change
}

// Changed has listeners told, once the transaction is committed, that rows have changed. It costs no statement. What an
// upload's move or an announcement changes is noted without it.
func (tx Tx) Changed(kind ChangeKind, ids ...uuid.UUID) {
	for _, id := range ids {
		tx.changes.now = append(tx.changes.now, change{tx.Tenant, kind, id})
	}
}

// progressed notes an upload whose offset has moved.
func (tx Tx) progressed(id uuid.UUID) {
	tx.changes.progress = append(tx.changes.progress, change{tx.Tenant, UploadChanged, id})
}

// A teller tells all processes, this one too, what the transactions of this process have changed.
type teller struct {
	pool *pgxpool.Pool

	mu       sync.Mutex
	now      map[change]struct{} // to be told with the next telling
	progress map[change]struct{} // to be told with the next telling of progress
	armed    bool                // a telling is under way, or will be
	pacing   bool                // a telling of progress will be
	closed   bool

	sending sync.Mutex // held while a telling is under way
}

func newTeller(pool *pgxpool.Pool) *teller {
	return &teller{pool: pool, now: make(map[change]struct{}), progress: make(map[change]struct{})}
}

// note takes down what is to be told. It does not wait.
func (t *teller) note(c changes) {
	if len(c.now) == 0 && len(c.progress) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, ch := range c.now {
		t.now[ch] = struct{}{}
		delete(t.progress, ch)
	}
	for _, ch := range c.progress {
		if _, known := t.now[ch]; !known {
			t.progress[ch] = struct{}{}
		}
	}
	t.arm()
	if len(t.progress) > 0 && !t.pacing && !t.closed {
		t.pacing = true
		time.AfterFunc(tellProgressEvery, t.hurry)
	}
}

// arm, under the mutex, has a telling begin soon if there is something to tell.
func (t *teller) arm() {
	if len(t.now) > 0 && !t.armed && !t.closed {
		t.armed = true
		time.AfterFunc(tellEvery, t.tell)
	}
}

// hurry has progress told with the next telling.
func (t *teller) hurry() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pacing = false
	for ch := range t.progress {
		t.now[ch] = struct{}{}
	}
	clear(t.progress)
	t.arm()
}

// tell tells what is noted, one telling at a time: when Postgres is slow, more is told at once.
func (t *teller) tell() {
	t.sending.Lock()
	defer t.sending.Unlock()
	t.mu.Lock()
	all := t.now
	t.now = make(map[change]struct{})
	t.mu.Unlock()
	if len(all) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), tellTime) // the requests that changed this have their answers
		_ = t.send(ctx, all)                                               // nobody can do more about it than who listens does anyway
		cancel()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = false
	t.arm()
}

// close tells what is left. What is noted afterwards is not told.
func (t *teller) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.hurry()
	t.tell()
}

// send notifies in a transaction of its own. It need not be durable: a crash of Postgres forgets notifications anyway.
func (t *teller) send(ctx context.Context, all map[change]struct{}) error {
	return pgx.BeginTxFunc(ctx, t.pool, pgx.TxOptions{BeginQuery: "begin; " + lazily + unlessIdle}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `select pg_notify('`+changesChannel+`', p) from unnest($1::text[]) p`, payloads(all))
		return err
	})
}

// payloads writes changes down: a tenant, and rows of its, each a kind and an id in Base64.
func payloads(all map[change]struct{}) []string {
	byTenant := make(map[uuid.UUID][]change)
	for ch := range all {
		byTenant[ch.tenant] = append(byTenant[ch.tenant], ch)
	}
	var ps []string
	for owner, rest := range byTenant {
		for len(rest) > 0 {
			n := min(len(rest), changesAPayload)
			var b strings.Builder
			b.WriteString(owner.String())
			for _, ch := range rest[:n] {
				b.WriteByte(' ')
				b.WriteByte(byte(ch.kind))
				b.WriteString(base64.RawStdEncoding.EncodeToString(ch.id[:]))
			}
			ps, rest = append(ps, b.String()), rest[n:]
		}
	}
	return ps
}

// Changes name rows of one tenant that have changed. What they are now is to be read.
type Changes struct {
	Tenant        uuid.UUID
	Uploads       []uuid.UUID
	Batches       []uuid.UUID
	Announcements []uuid.UUID
}

// parseChanges is the inverse of payloads.
func parseChanges(payload string) (c Changes, err error) {
	words := strings.Fields(payload)
	if len(words) == 0 {
		return c, fmt.Errorf("changes without a tenant")
	}
	if c.Tenant, err = uuid.Parse(words[0]); err != nil {
		return c, fmt.Errorf("tenant of changes: %w", err)
	}
	for _, w := range words[1:] {
		raw, err := base64.RawStdEncoding.DecodeString(w[1:])
		if err != nil {
			return c, fmt.Errorf("changed row %q: %w", w, err)
		}
		id, err := uuid.FromBytes(raw)
		if err != nil {
			return c, fmt.Errorf("changed row %q: %w", w, err)
		}
		switch ChangeKind(w[0]) {
		case UploadChanged:
			c.Uploads = append(c.Uploads, id)
		case BatchChanged:
			c.Batches = append(c.Batches, id)
		case announced:
			c.Announcements = append(c.Announcements, id)
		}
	}
	return c, nil
}

// followBeat is how often a connection that hears nothing is asked whether it is still there.
const followBeat = 5 * time.Second

// Follow hears what all processes change, over one connection that is nobody else's, until ctx is done or the
// connection is lost, which is the error. began is called once it hears: what was told before is not heard. Neither
// began nor heard may block.
func (db *DB) Follow(ctx context.Context, began func(), heard func(Changes)) error {
	conn, err := db.connectFollower(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), followBeat)
		defer cancel()
		conn.Close(ctx) // nothing is lost with it
	}()
	began()
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, followBeat)
		n, err := conn.WaitForNotification(wait)
		quiet := wait.Err() != nil && ctx.Err() == nil && !conn.IsClosed()
		cancel()
		switch {
		case err == nil:
			if c, err := parseChanges(n.Payload); err == nil { // a later release may say more
				heard(c)
			}
		case quiet:
			if err := beat(ctx, conn); err != nil {
				return fmt.Errorf("follow changes: %w", err)
			}
		case ctx.Err() == nil:
			return fmt.Errorf("follow changes: %w", err)
		}
	}
	return ctx.Err()
}

func (db *DB) connectFollower(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, followBeat)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, db.pool.Config().ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("connect to follow changes: %w", err)
	}
	if _, err := conn.Exec(ctx, "listen "+changesChannel); err != nil {
		conn.Close(ctx)
		return nil, fmt.Errorf("listen to changes: %w", err)
	}
	return conn, nil
}

// beat finds out whether a connection that died without a word is dead.
func beat(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, followBeat)
	defer cancel()
	return conn.Ping(ctx)
}
