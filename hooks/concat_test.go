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
	"github.com/tramo/tramo/hooks/hookstest"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// partial makes a partial upload of size bytes, which its store has received and finished.
func (s *site) partial(t *testing.T, ctx context.Context, size int64) string {
	t.Helper()
	id := s.admit(t, ctx, hooks.Request{Size: size, Partial: true})
	key, sum := s.Store(t, ctx, id, make([]byte, size))
	s.Exec(t, `update uploads set status = 'uploading' where id = $1`, id)
	s.Exec(t, `update contents set received = $3, stored = true, object_key = $2 where upload_id = $1`, id, key, size)
	stack.Must(t, s.Uploads.Record(ctx, s.Upload(t, ctx, id), key, sum))
	return id.String()
}

// A partial upload that is whole has no job; the final one is charged in its place once its object is gone, and gets exactly one, however
// often and by however many it is created and finished.
func TestFinalTakesPartialsOver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 500) // full with the partial uploads
	a, b := s.partial(t, ctx, 200), s.partial(t, ctx, 300)
	s.WantCount(t, 0, `select count(*) from river_job`)
	ids := make(chan uuid.UUID, 8)
	g := new(errgroup.Group)
	for range cap(ids) {
		g.Go(func() error {
			got, err := s.Admission.Admit(ctx, hooks.Request{Partials: []string{b, a}, Metadata: map[string]string{"client_id": "1"}})
			ids <- got.ID
			return err
		})
	}
	stack.Must(t, stack.Ended(t, "eight creations", g.Wait))
	close(ids)
	final := <-ids
	for id := range ids {
		stack.Want(t, id, final, "the other request's final upload")
	}
	if u := s.Upload(t, ctx, final); u.Size != 500 || u.Kind != storage.Final || u.Partials[0].String() != b || u.ChargedBytes != 0 {
		t.Errorf("got %+v", u)
	}
	key, sum := s.Store(t, ctx, final, make([]byte, 500))
	for range 8 {
		u := s.Upload(t, ctx, final)
		g.Go(func() error { return s.Uploads.Record(ctx, u, key, sum) })
	}
	stack.Must(t, stack.Ended(t, "eight finishes", g.Wait))
	if u := s.Upload(t, ctx, final); u.Status != storage.Uploaded || u.ChargedBytes != 500 {
		t.Errorf("got %+v", u)
	}
	s.WantRoom(t, ctx, -500) // S3 has these bytes twice
	for range 2 {
		stack.Must(t, s.Uploads.Release(ctx, uuid.MustParse(a), uuid.MustParse(b)))
		s.WantRoom(t, ctx, 0)
	}
	if n := s.Count(t, jobsOf, final.String()); n != 1 || s.Count(t, `select count(*) from river_job`) != 1 {
		t.Errorf("there are %d jobs", n)
	}
	s.WantCount(t, 3, `select count(*) from timeline where event in ('concatenated', 'assembled')`)
	again := s.admit(t, ctx, hooks.Request{Partials: []string{b, a}})
	stack.Want(t, again, final, "a complete final upload, created again")
}

// A final upload is refused unless each of its partial uploads is this user's, partial, complete and free; that
// leaves nothing behind.
func TestFinalRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1<<20)
	who, err := tenant.From(ctx)
	stack.Must(t, err)
	good, taken := s.partial(t, ctx, 10), s.partial(t, ctx, 10)
	_, err = s.Admission.Admit(ctx, hooks.Request{Partials: []string{taken}})
	stack.Must(t, err)
	single := s.admit(t, ctx, hooks.Request{Size: 10})
	open := s.admit(t, ctx, hooks.Request{Size: 10, Partial: true})
	gone := s.admit(t, ctx, hooks.Request{Size: 10, Partial: true})
	stack.Must(t, s.Uploads.CancelRows(ctx, gone))
	many := make([]string, hooks.MaxPartials+1)
	for i := range many {
		many[i] = uuid.NewString()
	}
	for name, c := range map[string]struct {
		partials []string
		want     error
	}{
		"another user's":   {[]string{good, s.partial(t, hookstest.As(ctx, who.Tenant, "bea", tenant.Empleado), 10)}, storage.ErrNotFound},
		"another tenant's": {[]string{good, s.partial(t, s.NewTenant(t, 1000), 10)}, storage.ErrNotFound},
		"nobody's":         {[]string{good, uuid.NewString()}, storage.ErrNotFound},
		"no id":            {[]string{good, "x"}, storage.ErrNotFound},
		"not partial":      {[]string{good, single.String()}, hooks.ErrNotPartial},
		"cancelled":        {[]string{good, gone.String()}, hooks.ErrNotPartial},
		"twice":            {[]string{good, good}, hooks.ErrNotPartial},
		"too many":         {many, hooks.ErrNotPartial},
		"not complete":     {[]string{good, open.String()}, hooks.ErrPartialOpen},
		"taken":            {[]string{good, taken}, hooks.ErrPartialTaken},
		"too large":        {[]string{good, s.partial(t, ctx, hookstest.MaxSize)}, hooks.ErrTooLarge},
	} {
		_, err := s.Admission.Admit(ctx, hooks.Request{Partials: c.partials})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	s.WantCount(t, 1, `select count(*) from uploads where kind = 'final'`)
	_, err = s.Admission.Admit(ctx, hooks.Request{Partials: []string{good}})
	stack.Must(t, err)
}

// Two final uploads want the same partial ones, and one of these is cancelled, all at once: at most one gets
// them, without a deadlock.
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
				_, won[i] = s.Admission.Admit(ctx, hooks.Request{Partials: list})
				return nil
			})
		}
		var cancelled error
		g.Go(func() error {
			cancelled = s.Uploads.CancelRows(ctx, uuid.MustParse(a))
			return nil
		})
		stack.Must(t, stack.Ended(t, "creations and a cancellation", g.Wait))
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

// A final upload has another checksum than its client declared: it and its partial uploads fail, their objects are deleted and
// the quota is refunded.
func TestFinalChecksumMismatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 1000)
	p := s.partial(t, ctx, 10)
	announced := sha256.Sum256([]byte("0123456789"))
	id, key, sum := s.receive(t, ctx, hooks.Request{Partials: []string{p}, Metadata: map[string]string{"sha256": hex.EncodeToString(announced[:])}})
	stack.WantErr(t, s.Uploads.Record(ctx, s.Upload(t, ctx, id), key, sum), hooks.ErrChecksumMismatch)
	partial := s.Upload(t, ctx, uuid.MustParse(p))
	if u := s.Upload(t, ctx, id); u.Status != storage.Failed || partial.Status != storage.Failed {
		t.Errorf("%s, and its partial upload %s", u.Status, partial.Status)
	}
	for _, key := range []string{key, *partial.ObjectKey} {
		_, err := s.Bucket.Size(ctx, key)
		stack.WantErr(t, err, object.ErrNoObject)
	}
	s.WantRoom(t, ctx, 1000)
}

// Under one client_id a size that either side does not know is no difference; the upload gets the size that is
// known.
func TestDeferredUnderAClientID(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := s.NewTenant(t, 2*hookstest.MaxSize)
	meta := map[string]string{"client_id": "IMG_1"}
	first := s.admit(t, ctx, hooks.Request{SizeDeferred: true, Metadata: meta})
	s.WantRoom(t, ctx, hookstest.MaxSize)
	for _, r := range []hooks.Request{{SizeDeferred: true, Metadata: meta}, {Size: 10, Metadata: meta}, {SizeDeferred: true, Metadata: meta}} {
		got, err := s.Admission.Admit(ctx, r)
		if err != nil || got.ID != first {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if u := s.Upload(t, ctx, first); u.SizeDeferred || u.Size != 10 || s.Room(t, ctx) != 2*hookstest.MaxSize-10 {
		t.Errorf("got %+v", u)
	}
	_, err := s.Admission.Admit(ctx, hooks.Request{Size: 11, Metadata: meta})
	stack.WantErr(t, err, hooks.ErrClientIDTaken)
	full := s.NewTenant(t, hookstest.MaxSize-1)
	_, err = s.Admission.Admit(full, hooks.Request{SizeDeferred: true})
	stack.WantErr(t, err, hooks.ErrNoRoom)
}
