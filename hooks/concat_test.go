package hooks_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/hooks"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// partial makes a partial upload of size bytes, which its store has received and finished.
func (s *site) partial(t *testing.T, ctx context.Context, size int64) string {
	t.Helper()
	a, err := s.admission.Admit(ctx, hooks.Request{Size: size, Partial: true})
	must(t, err)
	key, sum := s.store(t, ctx, a.ID, make([]byte, size))
	s.execWith(t, `update uploads set status = 'uploading' where id = $1`, a.ID)
	must(t, s.uploads.Record(ctx, a.ID, key, sum))
	return a.ID.String()
}

func (s *site) execWith(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := s.Admin(t).Exec(t.Context(), sql, args...)
	must(t, err)
}

// A partial upload that is whole has no job; the final one takes over its charge and gets exactly one, however
// often and by however many it is created and finished.
func TestFinalTakesPartialsOver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 500) // full with the partial uploads
	a, b := s.partial(t, ctx, 200), s.partial(t, ctx, 300)
	if n := s.count(t, `select count(*) from river_job`); n != 0 {
		t.Errorf("partial uploads have %d jobs", n)
	}
	ids := make(chan uuid.UUID, 8)
	g := new(errgroup.Group)
	for range cap(ids) {
		g.Go(func() error {
			got, err := s.admission.Admit(ctx, hooks.Request{Partials: []string{b, a}, Metadata: map[string]string{"client_id": "1"}})
			ids <- got.ID
			return err
		})
	}
	must(t, g.Wait())
	final := <-ids
	for range cap(ids) - 1 {
		if id := <-ids; id != final {
			t.Errorf("two final uploads, %s and %s", final, id)
		}
	}
	if u := s.upload(t, ctx, final); u.Size != 500 || u.Kind != storage.Final || u.Partials[0].String() != b || u.ChargedBytes != 0 {
		t.Errorf("got %+v", u)
	}
	key, sum := s.store(t, ctx, final, make([]byte, 500))
	for range 8 {
		g.Go(func() error { return s.uploads.Record(ctx, final, key, sum) })
	}
	must(t, g.Wait())
	if u := s.upload(t, ctx, final); u.Status != storage.Uploaded || u.ChargedBytes != 500 {
		t.Errorf("got %+v", u)
	}
	if room := s.room(t, ctx); room != 0 {
		t.Errorf("%d bytes are left", room)
	}
	if n := s.count(t, jobsOf, final.String()); n != 1 || s.count(t, `select count(*) from river_job`) != 1 {
		t.Errorf("there are %d jobs", n)
	}
	if n := s.count(t, `select count(*) from timeline where event in ('concatenated', 'assembled')`); n != 3 {
		t.Errorf("there are %d entries", n)
	}
	again, err := s.admission.Admit(ctx, hooks.Request{Partials: []string{b, a}})
	must(t, err)
	if again.ID != final {
		t.Error("a final upload that is complete was created again")
	}
}

// A final upload is refused unless each of its partial uploads is this user's, partial, complete and free; that
// leaves nothing behind.
func TestFinalRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1<<20)
	who, err := tenant.From(ctx)
	must(t, err)
	good, taken := s.partial(t, ctx, 10), s.partial(t, ctx, 10)
	_, err = s.admission.Admit(ctx, hooks.Request{Partials: []string{taken}})
	must(t, err)
	single, err := s.admission.Admit(ctx, hooks.Request{Size: 10})
	must(t, err)
	open, err := s.admission.Admit(ctx, hooks.Request{Size: 10, Partial: true})
	must(t, err)
	gone, err := s.admission.Admit(ctx, hooks.Request{Size: 10, Partial: true})
	must(t, err)
	must(t, s.uploads.CancelRows(ctx, gone.ID))
	many := make([]string, hooks.MaxPartials+1)
	for i := range many {
		many[i] = uuid.NewString()
	}
	for name, c := range map[string]struct {
		partials []string
		want     error
	}{
		"another user's":   {[]string{good, s.partial(t, as(ctx, who.Tenant, "bea", tenant.Empleado), 10)}, storage.ErrNotFound},
		"another tenant's": {[]string{good, s.partial(t, s.NewTenant(t, 1000), 10)}, storage.ErrNotFound},
		"nobody's":         {[]string{good, uuid.NewString()}, storage.ErrNotFound},
		"no id":            {[]string{good, "x"}, storage.ErrNotFound},
		"not partial":      {[]string{good, single.ID.String()}, hooks.ErrNotPartial},
		"cancelled":        {[]string{good, gone.ID.String()}, hooks.ErrNotPartial},
		"twice":            {[]string{good, good}, hooks.ErrNotPartial},
		"too many":         {many, hooks.ErrNotPartial},
		"not complete":     {[]string{good, open.ID.String()}, hooks.ErrPartialOpen},
		"taken":            {[]string{good, taken}, hooks.ErrPartialTaken},
		"too large":        {[]string{good, s.partial(t, ctx, maxSize)}, hooks.ErrTooLarge},
	} {
		_, err := s.admission.Admit(ctx, hooks.Request{Partials: c.partials})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if n := s.count(t, `select count(*) from uploads where kind = 'final'`); n != 1 {
		t.Errorf("there are %d final uploads", n)
	}
	_, err = s.admission.Admit(ctx, hooks.Request{Partials: []string{good}})
	must(t, err)
}

// Two final uploads want the same partial ones, and one of these is cancelled, all at once: at most one gets
// them, and nobody waits for another for ever.
func TestPartialsAreTakenOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1<<20)
	for range 20 {
		a, b := s.partial(t, ctx, 10), s.partial(t, ctx, 10)
		var won [2]error
		g := new(errgroup.Group)
		for i, list := range [][]string{{a, b}, {b, a}} {
			g.Go(func() error {
				_, won[i] = s.admission.Admit(ctx, hooks.Request{Partials: list})
				return nil
			})
		}
		var cancelled error
		g.Go(func() error {
			cancelled = s.uploads.CancelRows(ctx, uuid.MustParse(a))
			return nil
		})
		must(t, g.Wait())
		wins := 0
		for _, err := range append(won[:], cancelled) {
			switch {
			case err == nil:
				wins++
			case !errors.Is(err, hooks.ErrPartialTaken) && !errors.Is(err, hooks.ErrNotPartial) && !errors.Is(err, storage.ErrWrongStatus):
				t.Errorf("got %v", err)
			}
		}
		if wins != 1 {
			t.Errorf("%d of three won: %v, %v", wins, won, cancelled)
		}
	}
}

// A final upload is not what its client announced: it and its partial uploads fail, their objects go and the
// quota comes back.
func TestFinalChecksumMismatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	p := s.partial(t, ctx, 10)
	announced := sha256.Sum256([]byte("0123456789"))
	a, err := s.admission.Admit(ctx, hooks.Request{Partials: []string{p}, Metadata: map[string]string{"sha256": hex.EncodeToString(announced[:])}})
	must(t, err)
	key, sum := s.store(t, ctx, a.ID, make([]byte, 10))
	wantErr(t, s.uploads.Record(ctx, a.ID, key, sum), hooks.ErrChecksumMismatch)
	partial := s.upload(t, ctx, uuid.MustParse(p))
	if u := s.upload(t, ctx, a.ID); u.Status != storage.Failed || partial.Status != storage.Failed {
		t.Errorf("%s, and its partial upload %s", u.Status, partial.Status)
	}
	for _, key := range []string{key, *partial.ObjectKey} {
		_, err := s.bucket.Size(ctx, key)
		wantErr(t, err, object.ErrNoObject)
	}
	if room := s.room(t, ctx); room != 1000 {
		t.Errorf("%d bytes are left", room)
	}
}

// Under one client_id a size that either side does not know is no difference; the upload gets the size that is
// known.
func TestDeferredUnderAClientID(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 2*maxSize)
	meta := map[string]string{"client_id": "IMG_1"}
	first, err := s.admission.Admit(ctx, hooks.Request{SizeDeferred: true, Metadata: meta})
	must(t, err)
	if room := s.room(t, ctx); room != maxSize {
		t.Errorf("%d bytes are left", room)
	}
	for _, r := range []hooks.Request{{SizeDeferred: true, Metadata: meta}, {Size: 10, Metadata: meta}, {SizeDeferred: true, Metadata: meta}} {
		got, err := s.admission.Admit(ctx, r)
		if err != nil || got.ID != first.ID {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if u := s.upload(t, ctx, first.ID); u.SizeDeferred || u.Size != 10 || s.room(t, ctx) != 2*maxSize-10 {
		t.Errorf("got %+v", u)
	}
	_, err = s.admission.Admit(ctx, hooks.Request{Size: 11, Metadata: meta})
	wantErr(t, err, hooks.ErrClientIDTaken)
	full := s.NewTenant(t, maxSize-1)
	_, err = s.admission.Admit(full, hooks.Request{SizeDeferred: true})
	wantErr(t, err, hooks.ErrNoRoom)
}
