package deadletter_test

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/deadletter"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// Write fails the upload and writes its letter in one transaction, or does neither.
func TestWrite(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id, letter := d.fail(t, ctx, storagetest.NewUpload(10), aCause("scan"))
	if letter.State != deadletter.Open || letter.Step != "scan" || letter.Error != "inside" || letter.Attempts != 3 || letter.Job != 7 {
		t.Errorf("got %+v", letter)
	}
	d.Must(t, ctx, func(tx storage.Tx) error {
		u, err := tx.Upload(ctx, id)
		if err == nil && (u.Status != storage.Failed || *u.FailureReason != storage.ReasonDeadLettered || *u.FailureDetail != deadletter.Failure().Detail) {
			t.Errorf("got %+v", u)
		}
		return err
	})
	d.Must(t, ctx, func(tx storage.Tx) error {
		entries, err := tx.Timeline(ctx, id, 0, 100)
		for _, e := range entries {
			for _, v := range e.Detail {
				if v == "inside" {
					t.Errorf("the tenant reads %+v", e)
				}
			}
		}
		return err
	})
	ended := storagetest.NewUpload(10)
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, ended) })
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.Move(ctx, ended.ID, storage.Transition{Move: storage.MoveCancel}) })
	stack.WantErr(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error { return deadletter.Write(ctx, tx, ended.ID, aCause("scan")) }), storage.ErrWrongStatus)
	stack.Want(t, len(d.letters(t, ctx, deadletter.Page{})), 1, "number of letters")
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
		cause := aCause("scan")
		cause.Error = text
		_, letter := d.fail(t, ctx, storagetest.NewUpload(10), cause)
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
	id1, first := d.fail(t, ctx, storagetest.NewUpload(10), aCause("scan"))
	_, second := d.fail(t, ctx, storagetest.NewUpload(10), aCause("thumbnails"))
	_, third := d.fail(t, ctx, storagetest.NewUpload(10), aCause("scan"))
	other := d.NewTenant(t, 1000)
	_, foreign := d.fail(t, other, storagetest.NewUpload(10), aCause("scan"))

	want := func(what string, p deadletter.Page, letters ...deadletter.Letter) {
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
	want("all", deadletter.Page{}, third, second, first)
	want("a page", deadletter.Page{Limit: 2}, third, second)
	want("the next", deadletter.Page{Limit: 2, Before: second.ID}, first)
	want("a step's", deadletter.Page{Step: "scan"}, third, first)
	want("a kind's", deadletter.Page{Kind: "erase"})
	want("since", deadletter.Page{Since: second.FailedAt}, third, second)
	want("in a state", deadletter.Page{State: deadletter.Discarded})

	all, err := deadletter.ListAll(t.Context(), d.Worker, uuid.Nil, deadletter.Page{Limit: 100})
	stack.Must(t, err)
	if len(all) != 4 || all[0].ID != foreign.ID || all[0].Tenant != storagetest.TenantOf(t, other) {
		t.Errorf("an operator sees %+v", all)
	}
	one, err := deadletter.ListAll(t.Context(), d.Worker, storagetest.TenantOf(t, other), deadletter.Page{Limit: 100})
	stack.Must(t, err)
	if len(one) != 1 || one[0].ID != foreign.ID {
		t.Errorf("of one tenant an operator sees %+v", one)
	}

	d.Must(t, ctx, func(tx storage.Tx) error { _, err := deadletter.Discard(ctx, tx, third.ID); return err })
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := deadletter.Discard(ctx, tx, third.ID); return err }), storage.ErrWrongStatus)
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := deadletter.Discard(ctx, tx, foreign.ID); return err }), storage.ErrNotFound)
	want("open", deadletter.Page{State: deadletter.Open}, second, first)
	want("discarded", deadletter.Page{State: deadletter.Discarded}, third)
	if n, err := deadletter.CountOpen(t.Context(), d.Worker); err != nil || n["scan"] != 2 || n["thumbnails"] != 1 {
		t.Errorf("counted are %v, %v", n, err)
	}

	d.Exec(t, `update uploads set deleted_at = now(), purge_at = now() where id = $1`, id1)
	want("without the deleted", deadletter.Page{State: deadletter.Open}, second)
	stack.WantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error { _, err := deadletter.Find(ctx, tx, first.ID); return err }), storage.ErrNotFound)
	stack.WantErr(t, d.Worker.InTenant(ctx, func(tx storage.Tx) error { _, err := deadletter.Find(ctx, tx, first.ID); return err }), storage.ErrNotFound)
	if n, err := deadletter.CountOpen(t.Context(), d.Worker); err != nil || n["scan"] != 1 {
		t.Errorf("counted are %v, %v", n, err)
	}
}

// A letter outside of a token's projects is not seen, and its upload's manager marks it all the same when it is retried.
func TestLettersAreNarrowed(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	_, letter := d.fail(t, ctx, storagetest.NewUpload(10), aCause("scan"))
	narrow := func(project string) context.Context { return as(ctx, tenant.Empleado, project) }
	stack.Want(t, len(d.letters(t, narrow("puente"), deadletter.Page{})), 0, "number of another project's letters in the list")
	puente, all := narrow("puente"), 0 // also by a statement that forgets the upload
	d.Must(t, puente, func(tx storage.Tx) error { return tx.QueryRow(puente, `select count(*) from dead_letters`).Scan(&all) })
	stack.Want(t, all, 0, "number of another project's letters in the table")
	stack.Want(t, len(d.letters(t, narrow("torre"), deadletter.Page{})), 1, "number of the project's letters in the list")
	in := narrow("torre")
	d.Must(t, in, func(tx storage.Tx) error { return retry(in, tx, letter.Upload) })
	if got := d.letters(t, ctx, deadletter.Page{})[0]; got.State != deadletter.Retried || *got.RetriedBy != "ana" {
		t.Errorf("got %+v", got)
	}
}

// Each time that an upload fails for good leaves a letter; only the last can be open.
func TestLettersOfOneUpload(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	id, first := d.fail(t, ctx, storagetest.NewUpload(10), aCause("scan"))
	d.Must(t, ctx, func(tx storage.Tx) error { return retry(ctx, tx, id) })
	d.write(t, ctx, id, aCause("thumbnails"))
	all := d.letters(t, ctx, deadletter.Page{})
	if len(all) != 2 || all[0].State != deadletter.Open || all[0].Step != "thumbnails" || all[1].ID != first.ID || all[1].State != deadletter.Retried {
		t.Fatalf("got %+v", all)
	}
	d.Must(t, ctx, func(tx storage.Tx) error { _, err := deadletter.Discard(ctx, tx, all[0].ID); return err })
	d.Must(t, ctx, func(tx storage.Tx) error { return retry(ctx, tx, id) })
	if got := d.letters(t, ctx, deadletter.Page{State: deadletter.Open}); len(got) != 0 {
		t.Errorf("open is %+v", got)
	}
	d.write(t, ctx, id, aCause("facts"))
	all = d.letters(t, ctx, deadletter.Page{})
	if len(all) != 3 || all[0].Step != "facts" || all[0].State != deadletter.Open || all[1].State != deadletter.Retried {
		t.Errorf("got %+v", all)
	}
}

// A letter about which nothing can be done any more is settled: its file was sent again under its client id.
func TestLetterIsSettled(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx := d.NewTenant(t, 1000)
	n := storagetest.NewUpload(10)
	n.ClientID = "photo"
	id, _ := d.fail(t, ctx, n, aCause("scan"))
	again := n
	again.ID = uuid.Must(uuid.NewV7())
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.CreateUpload(ctx, again) })
	stack.Want(t, d.letters(t, ctx, deadletter.Page{})[0].State, deadletter.Settled, "state of the letter")
	if err := d.API.InTenant(ctx, func(tx storage.Tx) error { return retry(ctx, tx, id) }); err == nil {
		t.Error("it is retried all the same")
	}
	d.Must(t, ctx, func(tx storage.Tx) error { return tx.Move(ctx, again.ID, storage.Transition{Move: storage.MoveCancel}) })
	stack.Want(t, d.letters(t, ctx, deadletter.Page{})[0].State, deadletter.Open, "state of the letter")
}

// A letter goes with its upload.
func TestLettersGoWithTheUpload(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.fail(t, d.NewTenant(t, 1000), storagetest.NewUpload(10), aCause("scan"))
	d.Exec(t, `delete from uploads`)
	d.WantCount(t, 0, `select count(*) from dead_letters`)
}
