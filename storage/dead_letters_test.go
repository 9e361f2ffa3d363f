package storage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
)

// bury makes an upload that is safe and dies, in a tenant, and returns it with its letter.
func (d *database) bury(t *testing.T, ctx context.Context, n storage.NewUpload, death storage.Death) (uuid.UUID, storage.DeadLetter) {
	t.Helper()
	d.must(t, ctx, func(tx storage.Tx) error {
		if err := tx.CreateUpload(ctx, n); err != nil {
			return err
		}
		_, err := tx.MarkUploaded(ctx, n.ID, "key", make([]byte, 32))
		return err
	})
	d.die(t, ctx, n.ID, death)
	all := d.letters(t, ctx, storage.LetterPage{})
	if len(all) == 0 || all[0].Upload != n.ID {
		t.Fatalf("there is no letter: %+v", all)
	}
	return n.ID, all[0]
}

func (d *database) die(t *testing.T, ctx context.Context, id uuid.UUID, death storage.Death) {
	t.Helper()
	must(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Bury(ctx, id, death, storage.Failure{Reason: storage.ReasonDeadLettered, Detail: "for the tenant"})
	}))
}

func (d *database) letters(t *testing.T, ctx context.Context, p storage.LetterPage) (found []storage.DeadLetter) {
	t.Helper()
	if p.Limit == 0 {
		p.Limit = 100
	}
	d.must(t, ctx, func(tx storage.Tx) (err error) {
		found, err = tx.DeadLetters(ctx, p)
		return err
	})
	return found
}

func aDeath(step string) storage.Death {
	return storage.Death{Job: 7, Kind: "process_upload", Step: step, Error: "inside", Attempts: 3}
}

// Burying fails the upload and writes its letter in one transaction, or does neither.
func TestBury(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id, letter := d.bury(t, ctx, anUpload(10), aDeath("scan"))
	if letter.State != storage.LetterOpen || letter.Step != "scan" || letter.Error != "inside" || letter.Attempts != 3 || *letter.Job != 7 {
		t.Errorf("got %+v", letter)
	}
	if u := d.upload(t, ctx, id); u.Status != storage.Failed || *u.FailureReason != storage.ReasonDeadLettered || *u.FailureDetail != "for the tenant" {
		t.Errorf("got %+v", u)
	}
	for _, e := range d.timeline(t, ctx, id, 0, 100) {
		for _, v := range e.Detail {
			if v == "inside" {
				t.Errorf("the tenant reads %+v", e)
			}
		}
	}
	ended := d.create(t, ctx, 10)
	d.must(t, ctx, func(tx storage.Tx) error { return tx.Cancel(ctx, ended) })
	wantErr(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error {
		return tx.Bury(ctx, ended, aDeath("scan"), storage.Failure{Reason: storage.ReasonDeadLettered})
	}), storage.ErrWrongStatus)
	if n := len(d.letters(t, ctx, storage.LetterPage{})); n != 1 {
		t.Errorf("there are %d letters", n)
	}
}

// An error of any length, with any bytes, is kept as text of a length that the table takes.
func TestLettersErrorIsCut(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	for name, text := range map[string]string{
		"long":         strings.Repeat("x", 100_000),
		"long letters": strings.Repeat("ñ", 5000) + "x",
		"odd letters":  "x" + strings.Repeat("ñ", 5000),
		"NUL":          "a\x00b",
		"no UTF-8":     "a\xff\xfeb" + strings.Repeat("\xff", 10_000),
		"just fits":    strings.Repeat("x", 8000),
	} {
		death := aDeath("scan")
		death.Error = text
		_, letter := d.bury(t, ctx, anUpload(10), death)
		if len(letter.Error) > 8000 || !utf8.ValidString(letter.Error) || letter.Error == "" || name == "just fits" && letter.Error != text {
			t.Errorf("%s: kept are %d bytes, %.20q", name, len(letter.Error), letter.Error)
		}
	}
}

// A page has what its filters say, newest first, and the next begins behind it. Of what is deleted there is no letter,
// until it is restored.
func TestDeadLettersList(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id1, first := d.bury(t, ctx, anUpload(10), aDeath("scan"))
	_, second := d.bury(t, ctx, anUpload(10), aDeath("pictures"))
	_, third := d.bury(t, ctx, anUpload(10), aDeath("scan"))
	other := d.NewTenant(t, 1000)
	_, foreign := d.bury(t, other, anUpload(10), aDeath("scan"))

	want := func(what string, p storage.LetterPage, letters ...storage.DeadLetter) {
		t.Helper()
		found := d.letters(t, ctx, p)
		same := len(found) == len(letters)
		for i := range min(len(found), len(letters)) {
			same = same && found[i].ID == letters[i].ID
		}
		if !same {
			t.Errorf("%s: got %+v", what, found)
		}
	}
	want("all", storage.LetterPage{}, third, second, first)
	want("a page", storage.LetterPage{Limit: 2}, third, second)
	want("the next", storage.LetterPage{Limit: 2, Before: second.ID}, first)
	want("a step's", storage.LetterPage{Step: "scan"}, third, first)
	want("a kind's", storage.LetterPage{Kind: "erase"})
	want("since", storage.LetterPage{Since: second.DiedAt}, third, second)
	want("in a state", storage.LetterPage{State: storage.LetterDiscarded})

	all, err := d.Worker.DeadLetters(t.Context(), uuid.Nil, storage.LetterPage{Limit: 100})
	must(t, err)
	if len(all) != 4 || all[0].ID != foreign.ID || all[0].Tenant != tenantOf(t, other) {
		t.Errorf("an operator sees %+v", all)
	}
	one, err := d.Worker.DeadLetters(t.Context(), tenantOf(t, other), storage.LetterPage{Limit: 100})
	must(t, err)
	if len(one) != 1 || one[0].ID != foreign.ID {
		t.Errorf("of one tenant an operator sees %+v", one)
	}

	d.must(t, ctx, func(tx storage.Tx) error { _, err := tx.DiscardLetter(ctx, third.ID); return err })
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.DiscardLetter(ctx, third.ID); return err }), storage.ErrWrongStatus)
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.DiscardLetter(ctx, foreign.ID); return err }), storage.ErrNotFound)
	want("open", storage.LetterPage{State: storage.LetterOpen}, second, first)
	want("discarded", storage.LetterPage{State: storage.LetterDiscarded}, third)
	if b, err := d.Worker.Backlog(t.Context()); err != nil || b.Letters["scan"] != 2 || b.Letters["pictures"] != 1 {
		t.Errorf("counted are %v, %v", b.Letters, err)
	}

	boss := d.as(ctx, tenant.Constructora)
	must(t, d.API.InTenant(boss, func(tx storage.Tx) error { _, err := tx.Delete(boss, id1, 0); return err }))
	want("without the deleted", storage.LetterPage{State: storage.LetterOpen}, second)
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.DeadLetter(ctx, first.ID); return err }), storage.ErrNotFound)
	wantErr(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error { _, err := tx.DeadLetter(ctx, first.ID); return err }), storage.ErrNotFound)
	if b, err := d.Worker.Backlog(t.Context()); err != nil || b.Letters["scan"] != 1 {
		t.Errorf("counted are %v, %v", b.Letters, err)
	}
}

func (d *database) as(ctx context.Context, role tenant.Role) context.Context {
	who, _ := tenant.From(ctx)
	who.Role = role
	return tenant.With(ctx, who)
}

// A letter outside of a token's projects is not seen, and its upload's manager marks it all the same when it is retried.
func TestLettersAreNarrowed(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	_, letter := d.bury(t, ctx, anUpload(10), aDeath("scan"))
	who, err := tenant.From(ctx)
	must(t, err)
	narrow := func(project string) context.Context {
		who := who
		who.Projects = []string{project}
		return tenant.With(ctx, who)
	}
	if n := len(d.letters(t, narrow("puente"), storage.LetterPage{})); n != 0 {
		t.Errorf("%d letters of another project are seen", n)
	}
	puente, all := narrow("puente"), 0 // also by a statement that forgets the upload
	d.must(t, puente, func(tx storage.Tx) error { return tx.QueryRow(puente, `select count(*) from dead_letters`).Scan(&all) })
	if all != 0 {
		t.Errorf("the table shows %d letters of another project", all)
	}
	if n := len(d.letters(t, narrow("torre"), storage.LetterPage{})); n != 1 {
		t.Errorf("%d letters of the project are seen", n)
	}
	in := narrow("torre")
	d.must(t, in, func(tx storage.Tx) error { return retryOne(in, tx, letter.Upload) })
	if got := d.letters(t, ctx, storage.LetterPage{})[0]; got.State != storage.LetterRetried || *got.RetriedBy != "ana" {
		t.Errorf("got %+v", got)
	}
}

func retryOne(ctx context.Context, tx storage.Tx, id uuid.UUID) error {
	if _, err := tx.EndedBadlyOne(ctx, id); err != nil {
		return err
	}
	done, err := tx.Retry(ctx, []uuid.UUID{id})
	if err == nil && len(done) != 1 {
		err = errors.New("was not retried")
	}
	return err
}

// Each death leaves a letter. One whose retry a server of the previous release did not mark is written over, and no death
// is lost for it.
func TestLettersOfOneUpload(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id, first := d.bury(t, ctx, anUpload(10), aDeath("scan"))
	d.must(t, ctx, func(tx storage.Tx) error { return retryOne(ctx, tx, id) })
	d.die(t, ctx, id, aDeath("pictures"))
	all := d.letters(t, ctx, storage.LetterPage{})
	if len(all) != 2 || all[0].State != storage.LetterOpen || all[0].Step != "pictures" || all[1].ID != first.ID || all[1].State != storage.LetterRetried {
		t.Fatalf("got %+v", all)
	}
	d.must(t, ctx, func(tx storage.Tx) error { _, err := tx.DiscardLetter(ctx, all[0].ID); return err })
	_, err := d.Admin(t).Exec(t.Context(), `update uploads set status = 'uploaded', failure_reason = null, failure_detail = null`)
	must(t, err)
	if got := d.letters(t, ctx, storage.LetterPage{State: storage.LetterOpen}); len(got) != 0 {
		t.Errorf("open is %+v", got)
	}
	d.die(t, ctx, id, aDeath("facts"))
	all = d.letters(t, ctx, storage.LetterPage{})
	if len(all) != 2 || all[0].Step != "facts" || all[0].State != storage.LetterOpen {
		t.Errorf("got %+v", all)
	}
}

// A letter about which nothing can be done any more is settled: its file was sent again under its client id.
func TestLetterIsSettled(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	n := anUpload(10)
	n.ClientID = "photo"
	id, _ := d.bury(t, ctx, n, aDeath("scan"))
	again := n
	again.ID = uuid.Must(uuid.NewV7())
	d.must(t, ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, again) })
	if got := d.letters(t, ctx, storage.LetterPage{})[0]; got.State != storage.LetterSettled {
		t.Errorf("got %+v", got)
	}
	if err := d.API.InTenant(ctx, func(tx storage.Tx) error { return retryOne(ctx, tx, id) }); err == nil {
		t.Error("it is retried all the same")
	}
	d.must(t, ctx, func(tx storage.Tx) error { return tx.Cancel(ctx, again.ID) })
	if got := d.letters(t, ctx, storage.LetterPage{})[0]; got.State != storage.LetterOpen {
		t.Errorf("got %+v", got)
	}
}

// A letter goes with its upload.
func TestPurgeTakesLetters(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id, _ := d.bury(t, ctx, anUpload(10), aDeath("scan"))
	boss := d.as(ctx, tenant.Constructora)
	must(t, d.API.InTenant(boss, func(tx storage.Tx) error { _, err := tx.Delete(boss, id, 0); return err }))
	tables, err := d.Worker.TenantTables(t.Context())
	must(t, err)
	must(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error {
		if _, err := tx.Seal(ctx, id); err != nil {
			return err
		}
		return tx.Purge(ctx, id, tables)
	}))
	if n := column[int](t, d.Admin(t), `select count(*)::int from dead_letters`)[0]; n != 0 {
		t.Errorf("%d letters are left", n)
	}
}
