package storage_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

var states = []storage.Status{
	storage.Pending, storage.Uploading, storage.Uploaded, storage.Processing, storage.Completed, storage.Failed,
	storage.Expired, storage.Cancelled, storage.Concatenated,
}

// docs/reference/states.md shows readers the table of moves, row by row.
func TestMovesAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/reference/states.md")
	stack.Must(t, err)
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\| [^|]+ (\\|.+\\|)$").FindAllStringSubmatch(string(page), -1) {
		documented[row[1]] = row[2]
	}
	cell := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + s + "`"
	}
	for m, r := range storage.Moves() {
		var from []string
		for _, s := range r.From {
			from = append(from, cell(string(s)))
		}
		var cells strings.Builder
		for _, c := range []string{strings.Join(from, ", "), cell(string(r.To)), cell(string(r.Event)), cell(r.Announce), r.Batch, r.Quota} {
			cells.WriteString("| " + c + strings.Repeat(" ", min(len(c), 1)))
		}
		if want := cells.String() + "|"; documented[string(m)] != want {
			t.Errorf("states.md says of %s\n%s, and storage/states.go\n%s", m, documented[string(m)], want)
		}
		delete(documented, string(m))
	}
	if len(documented) > 0 {
		t.Errorf("states.md has moves that nobody can make: %v", documented)
	}
	for _, s := range states {
		if !strings.Contains(string(page), "\n| `"+string(s)+"` |") {
			t.Errorf("states.md does not explain the state %s", s)
		}
	}
}

// Postgres knows the same states, and has an upload begin in the one that the table says.
func TestStatesAreThoseOfPostgres(t *testing.T) {
	t.Parallel()
	conn := newDatabase(t).Admin(t)
	var check, first string
	stack.Must(t, conn.QueryRow(t.Context(), `select pg_get_constraintdef(oid) from pg_constraint where conname = 'uploads_status_check'`).Scan(&check))
	stack.Must(t, conn.QueryRow(t.Context(), `
		select column_default from information_schema.columns where table_name = 'uploads' and column_name = 'status'`).Scan(&first))
	var known []storage.Status
	for _, m := range regexp.MustCompile(`'([a-z]+)'`).FindAllStringSubmatch(check, -1) {
		known = append(known, storage.Status(m[1]))
	}
	stack.Want(t, known, states, "states in Postgres")
	stack.Want(t, first, "'"+string(storage.Moves()[storage.MoveCreate].To)+"'::text", "first state of an upload")
}

// Every move can be made from the states that the table names and from no other, and what follows is what it says.
func TestMovesDoWhatTheTableSays(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1<<40)
	owner, admin := storagetest.TenantOf(t, ctx), d.Admin(t)
	_, err := admin.Exec(t.Context(), `
		insert into webhook_endpoints (tenant_id, id, url, user_id) values ($1, gen_random_uuid(), 'https://a.example/', 'ana')`, owner)
	stack.Must(t, err)
	for m, r := range storage.Moves() {
		for _, from := range states {
			if m == storage.MoveCreate {
				continue
			}
			t.Run(fmt.Sprintf("%s from %s", m, from), func(t *testing.T) {
				id, charged := d.put(t, ctx, from, m), d.Room(t, ctx)
				wait := d.changedBy(t, id)
				err := d.Worker.InTenant(ctx, func(tx storage.Tx) error { return makeMove(ctx, tx, m, r, id) })
				var status storage.Status
				var events, announcements []string
				stack.Must(t, admin.QueryRow(t.Context(), `
					select status, array(select event from timeline where upload_id = u.id order by seq),
						array(select type from announcements where upload_id = u.id) from uploads u where id = $1`, id).
					Scan(&status, &events, &announcements))
				freed := d.Room(t, ctx) - charged
				if !slices.Contains(r.From, from) {
					if m != storage.MoveBegin { // more bytes make no move, and no error
						stack.WantErr(t, err, storage.ErrWrongStatus)
					}
					if status != from || len(events) != 1 || len(announcements) > 0 || freed != 0 {
						t.Errorf("now it is %s, with %q, %q, and %d bytes are free", status, events, announcements, freed)
					}
					return
				}
				stack.Must(t, err)
				wantFreed := map[string]int64{"refunded": 100, "refunded once S3 has nothing of it": 100}[r.Quota] // it has nothing
				var want []string
				if r.Announce != "" {
					want = []string{r.Announce}
				}
				if status != r.To || events[len(events)-1] != string(r.Event) || !slices.Equal(announcements, want) || freed != wantFreed {
					t.Errorf("now it is %s, with %q, %q, and %d bytes are free", status, events, announcements, freed)
				}
				wait()
			})
		}
	}
}

// put makes an upload of 100 bytes and puts it into a state from which the move is to be tried.
func (d *database) put(t *testing.T, ctx context.Context, s storage.Status, m storage.Move) uuid.UUID {
	t.Helper()
	id := d.Create(t, ctx, 100)
	kind := storage.Single
	var final *uuid.UUID
	if s == storage.Concatenated || m == storage.MoveConcatenate {
		kind, final = storage.Partial, new(uuid.New())
	}
	d.Exec(t, `
		update uploads set status = $2, kind = $3, final_id = $4, failure_reason = case $2 when 'failed' then 'unreadable' end
		where id = $1`, id, s, kind, final)
	return id
}

// makeMove makes a move with an upload. Two of them have statements of their own, for they are on the way of every upload.
func makeMove(ctx context.Context, tx storage.Tx, m storage.Move, r storage.MoveRow, id uuid.UUID) error {
	switch {
	case m == storage.MoveBegin:
		_, err := tx.Exec(ctx, `
			with me as (insert into lease_holders values (gen_random_uuid(), 'r', now() + interval '1 hour') returning id)
			insert into upload_leases select $1, $2, id, 1 from me`, tx.Tenant, id)
		if err != nil {
			return err
		}
		return tx.Advance(ctx, id, 1, storage.Progress{To: 1, HashState: []byte("x"), TailSize: 1})
	case m == storage.MoveFinish:
		_, err := tx.MarkUploaded(ctx, id, "key", make([]byte, 32))
		return err
	case r.To == storage.Failed:
		return tx.Move(ctx, id, m.Because(storage.Failure{Reason: storage.ReasonUnreadable}))
	case m == storage.MoveRetry:
		return tx.Move(ctx, id, storage.Transition{Move: m, Set: "failure_reason = null"})
	}
	return tx.Move(ctx, id, storage.Transition{Move: m})
}

// changedBy returns a function that waits until listeners are told that the upload has changed, from now on.
func (d *database) changedBy(t *testing.T, id uuid.UUID) (wait func()) {
	heard := d.follow(t, d.API)
	return func() {
		t.Helper()
		for !slices.Contains(stack.Receive(t, "live change", heard).Uploads, id) {
		}
	}
}

// No statement but those that states.go makes moves an upload to another state.
func TestStatesAreSetInOnePlace(t *testing.T) {
	t.Parallel()
	update := regexp.MustCompile("(?is)update uploads\\b(?: [a-z])? set (.*?)(?:\\bwhere\\b|\\bfrom\\b|`)")
	n := 0
	stack.Must(t, filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && slices.Contains([]string{"node_modules", ".git", "test", "hookstest"}, e.Name()):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		for _, m := range update.FindAllSubmatch(source, -1) {
			n++
			if strings.Contains(string(m[1]), "status =") {
				t.Errorf("%s sets a status: %s", path, m[0])
			}
		}
		return err
	}))
	if n < 8 {
		t.Errorf("found only %d statements that change uploads", n)
	}
}
