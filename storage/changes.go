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
	"github.com/sourcegraph/conc/panics"
)

// changesChannel is the NOTIFY channel of live changes.
const changesChannel = "tramo_changes"

const (
	// notifyEvery is how long changes are collected before one NOTIFY. A NOTIFY locks the whole database until its
	// transaction commits, so it is sent in a transaction of its own and delays no transaction that changes something.
	notifyEvery = 75 * time.Millisecond
	// notifyProgressEvery is the shortest time between two notifications of an offset that moves.
	notifyProgressEvery = time.Second
	// notifyTimeout bounds one notification. Listeners poll for changes whose notification was lost.
	notifyTimeout = 5 * time.Second
	// changesAPayload keeps payloads below 8,000 bytes (PostgreSQL documentation, NOTIFY).
	changesAPayload = 300
)

// A ChangeKind says which kind of row has changed.
type ChangeKind byte

// The kinds of changes that listeners are notified of.
const (
	UploadChanged ChangeKind = 'u'
	BatchChanged  ChangeKind = 'b'
	announced     ChangeKind = 'a'
)

// standingMark stands in a payload for the tenant's [Standing].
const standingMark = "s"

// A change names one changed row.
type change struct {
	tenant uuid.UUID
	kind   ChangeKind
	id     uuid.UUID
}

// changes are those of a transaction, to be notified once it is committed.
type changes struct {
	now      []change
	progress []change
}

// Changed notifies listeners, once the transaction is committed, that rows have changed. It costs no statement. [Tx.Move] and
// [Tx.Announce] call it for the rows that they change.
func (tx Tx) Changed(kind ChangeKind, ids ...uuid.UUID) {
	for _, id := range ids {
		tx.changes.now = append(tx.changes.now, change{tx.Tenant, kind, id})
	}
}

// progressed notifies listeners, at most once a second, that an upload's offset has moved.
func (tx Tx) progressed(id uuid.UUID) {
	tx.changes.progress = append(tx.changes.progress, change{tx.Tenant, UploadChanged, id})
}

// A notifier notifies all processes, this one too, of the changes that this process has committed.
type notifier struct {
	send func(context.Context, map[change]struct{}) error

	mu       sync.Mutex
	now      map[change]struct{} // for the next notification
	progress map[change]struct{} // for the next notification of progress
	armed    bool                // a notification is being sent or is scheduled
	pacing   bool                // a notification of progress is scheduled
	closed   bool

	sending sync.Mutex // held while a notification is being sent
}

func newNotifier(send func(context.Context, map[change]struct{}) error) *notifier {
	return &notifier{send: send, now: make(map[change]struct{}), progress: make(map[change]struct{})}
}

// note collects changes. It does not wait.
func (t *notifier) note(c changes) {
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
		time.AfterFunc(notifyProgressEvery, t.hurry)
	}
}

// arm, under the mutex, schedules a notification if there are changes.
func (t *notifier) arm() {
	if len(t.now) > 0 && !t.armed && !t.closed {
		t.armed = true
		time.AfterFunc(notifyEvery, t.notify)
	}
}

// hurry moves progress into the next notification.
func (t *notifier) hurry() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pacing = false
	for ch := range t.progress {
		t.now[ch] = struct{}{}
	}
	clear(t.progress)
	t.arm()
}

// notify sends the collected changes. One notification is sent at a time, so a slow Postgres gets fewer and larger ones.
func (t *notifier) notify() {
	t.sending.Lock()
	defer t.sending.Unlock()
	t.mu.Lock()
	all := t.now
	t.now = make(map[change]struct{})
	t.mu.Unlock()
	if len(all) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), notifyTimeout) // the requests that made the changes are answered
		_ = panics.Try(func() { _ = t.send(ctx, all) })                         // listeners poll for lost notifications
		cancel()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = false
	t.arm()
}

// close sends what is left. Changes that are noted afterwards are dropped.
func (t *notifier) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.hurry()
	t.notify()
}

// notify notifies in a transaction of its own, which need not be durable: a crash of Postgres loses notifications anyway.
func (db *DB) notify(ctx context.Context, all map[change]struct{}) error {
	return pgx.BeginTxFunc(ctx, beginner{db.pool, []Setting{Lazily}}, pgx.TxOptions{}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `select pg_notify('`+changesChannel+`', p) from unnest($1::text[]) p`, payloads(all))
		return err
	})
}

// payloads encodes changes: a tenant, then its rows, each a kind and an id in Base64.
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

// Changes name changed rows of one tenant, without their content.
type Changes struct {
	Tenant        uuid.UUID
	Uploads       []uuid.UUID
	Batches       []uuid.UUID
	Announcements []uuid.UUID
	Standing      bool // of the tenant itself
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
		if w == standingMark {
			c.Standing = true
			continue
		}
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

// followBeat is how often an idle connection is pinged.
const followBeat = 5 * time.Second

// Follow receives the changes of all processes over a connection of its own, until ctx is done or the connection is lost,
// which is the error. It calls began once it is subscribed; earlier changes are not received. Neither began nor heard may
// block.
func (db *DB) Follow(ctx context.Context, began func(), heard func(Changes)) error {
	conn, err := db.connectFollower(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), followBeat)
		defer cancel()
		conn.Close(ctx) // it has nothing to flush
	}()
	began()
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, followBeat)
		n, err := conn.WaitForNotification(wait)
		quiet := wait.Err() != nil && ctx.Err() == nil && !conn.IsClosed()
		cancel()
		switch {
		case err == nil:
			if c, err := parseChanges(n.Payload); err == nil { // a later release may send other payloads
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

// beat detects a connection that was lost silently.
func beat(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, followBeat)
	defer cancel()
	return conn.Ping(ctx)
}
