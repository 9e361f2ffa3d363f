package storage_test

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/telemetry"
	"github.com/tramo/tramo/test/stack"
)

// follow returns what a process hears, from the moment on that it returns.
func (d *database) follow(t *testing.T, db *storage.DB) <-chan storage.Changes {
	t.Helper()
	heard, began := make(chan storage.Changes, 1000), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = db.Follow(ctx, func() { began <- struct{}{} }, func(c storage.Changes) { heard <- c })
	}()
	t.Cleanup(func() { cancel(); stack.Receive(t, "end of following", ended) })
	stack.Receive(t, "following", began)
	return heard
}

// What a committed transaction changed is told to every process, once for many; what a transaction that was rolled back
// changed is not.
func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	heard := d.follow(t, d.Worker)
	ctx := d.NewTenant(t, 1<<40)
	var want []uuid.UUID
	_ = d.API.InTenant(ctx, func(tx storage.Tx) error {
		stack.Must(t, tx.CreateUpload(ctx, storagetest.NewUpload(1)))
		return context.Canceled
	})
	const many = 700 // more than one payload holds
	d.Must(t, ctx, func(tx storage.Tx) error {
		for range many {
			n := storagetest.NewUpload(1)
			want = append(want, n.ID)
			if err := tx.CreateUpload(ctx, n); err != nil {
				return err
			}
		}
		return tx.Announce(ctx, storage.Announcement{Type: "quota.warning"})
	})
	var got []uuid.UUID
	announcements := 0
	for len(got) < many || announcements == 0 {
		c := stack.Receive(t, "change", heard)
		stack.Want(t, c.Tenant, storagetest.TenantOf(t, ctx), "tenant")
		got, announcements = append(got, c.Uploads...), announcements+len(c.Announcements)
	}
	byID := func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }
	slices.SortFunc(got, byID)
	slices.SortFunc(want, byID)
	if !slices.Equal(got, want) || announcements != 1 {
		t.Errorf("%d uploads and %d announcements were told of, not exactly those that there are", len(got), announcements)
	}
}

// An offset that moves a hundred times is told of at most once a second, and is told of in the end. A status is told of at
// once: TestNotificationsOfProgress has the times of both.
func TestProgressIsToldAtMostOnceASecond(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<40)
	heard := d.follow(t, d.Worker)
	id, fence := d.leased(t, ctx, 1000)
	advance := func(i int64) {
		d.Must(t, ctx, func(tx storage.Tx) error {
			err := tx.Advance(ctx, id, fence, storage.Progress{From: i, To: i + 1, TailSize: i + 1})
			if now, progress := storage.Noted(tx); i > 0 && (now != 0 || progress != 1) {
				t.Errorf("an offset that moved is noted as %d changes to be told of at once and %d of progress, want 0 and 1", now, progress)
			}
			return err
		})
	}
	advance(0)
	stack.Receive(t, "uploading", heard)
	began, told := time.Now(), 0
	for i := range int64(100) {
		advance(i + 1)
	}
	for last := time.Since(began); told == 0 || time.Since(began) < last+time.Second; told++ {
		stack.Receive(t, "progress", heard)
		advance(int64(101 + told))
	}
	if most := 1 + int(time.Since(began)/(900*time.Millisecond)); told > most {
		t.Errorf("progress was told %d times in %s", told, time.Since(began))
	}
	d.Must(t, ctx, func(tx storage.Tx) error {
		err := tx.Move(ctx, id, storage.Transition{Move: storage.MoveCancel})
		if now, progress := storage.Noted(tx); now != 1 || progress != 0 {
			t.Errorf("a status is noted as %d changes to be told of at once and %d of progress, want 1 and 0", now, progress)
		}
		return err
	})
	stack.Receive(t, "cancelled", heard)
}

// A process that ends tells first what it still has to tell.
func TestClosingTells(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	heard := d.follow(t, d.Worker)
	ctx := d.NewTenant(t, 1<<40)
	db, err := storage.Open(t.Context(), storage.Config{URL: telemetry.Secret(d.URL("tramo_api"))})
	stack.Must(t, err)
	n := storagetest.NewUpload(1)
	stack.Must(t, db.InTenant(ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, n) }))
	db.Close()
	if c := stack.Receive(t, "change", heard); !slices.Contains(c.Uploads, n.ID) {
		t.Errorf("told of %v", c.Uploads)
	}
}

// No transaction that changes anything of an upload notifies: NOTIFY's lock on the whole database is taken by
// transactions that do nothing else. Postgres' own log of every statement says so.
func TestHotTransactionsDoNotNotify(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	alone, _ := storagetest.Alone(t, stack.PostgresConfig{Log: &log})
	d := &database{alone}
	admin := d.Admin(t)
	for _, sql := range []string{
		`alter system set log_statement = 'all'`, `alter system set log_line_prefix = 'xact=%v '`, `select pg_reload_conf()`,
	} {
		_, err := admin.Exec(t.Context(), sql)
		stack.Must(t, err)
	}
	stack.Until(t, "statements in the log", func() bool {
		conn, err := pgx.Connect(t.Context(), d.URL("tramo_api"))
		stack.Must(t, err)
		defer conn.Close(t.Context())
		_, err = conn.Exec(t.Context(), "select 'logged'")
		stack.Must(t, err)
		return strings.Contains(log.String(), "select 'logged'")
	})
	d.Worker.Pool().Reset()
	d.API.Pool().Reset()

	heard := d.follow(t, d.Worker)
	ctx := d.NewTenant(t, 1<<40)
	id, fence := d.leased(t, ctx, 100)
	d.Must(t, ctx, func(tx storage.Tx) error {
		return tx.Advance(ctx, id, fence, storage.Progress{To: 100, Object: "key"})
	})
	d.Must(t, ctx, func(tx storage.Tx) error {
		_, err := tx.MarkUploaded(ctx, id, "key", make([]byte, 32))
		return err
	})
	stack.Must(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error { return tx.MarkProcessing(ctx, id, 1) }))
	d.MustWork(t, ctx, func(tx storage.Tx) error {
		if err := tx.Complete(ctx, id, storage.Results{}); err != nil {
			return err
		}
		return tx.Announce(ctx, storage.Announcement{Type: "batch.completed"})
	})
	for announced := false; !announced; {
		announced = len(stack.Receive(t, "change", heard).Announcements) > 0
	}

	notify := regexp.MustCompile(`(?i)\bnotify\b|pg_notify`)
	changes := regexp.MustCompile(`(?i)\b(insert into|update|delete from)\s+(uploads|contents|parts|tails|timeline|announcements|tenants|thumbnails)\b`)
	byXact := make(map[string]string)
	var last string
	for line := range strings.Lines(log.String()) {
		if m := regexp.MustCompile(`xact=(\S+) `).FindStringSubmatch(line); m != nil {
			last = m[1]
		}
		byXact[last] += line // a statement has several lines
	}
	notifying, changing := 0, 0
	for xact, statements := range byXact {
		n, c := notify.MatchString(statements), changes.MatchString(statements)
		if n {
			notifying++
		}
		if c {
			changing++
		}
		if n && c {
			t.Errorf("transaction %s changes and notifies:\n%s", xact, statements)
		}
	}
	if notifying == 0 || changing < 5 {
		t.Errorf("%d transactions notified, %d changed something: the log does not tell\n%s", notifying, changing, log.String())
	}
}

// A syncBuffer is a buffer that a process writes to while a test reads.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
