package hooks

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
)

// An entry covers one user, one upload and an hour. What is forgotten for lack of memory is audited again, never left out.
func TestShown(t *testing.T) {
	t.Parallel()
	var s shown
	now, photo := time.Now(), uuid.New()
	ana := tenant.Identity{Tenant: uuid.New(), User: "ana"}
	abroad, bea, elsewhere := ana, ana, ana
	abroad.Home, bea.User, elsewhere.Tenant = uuid.New(), "bea", uuid.New()
	covered := func(who tenant.Identity, upload uuid.UUID, at time.Duration) bool {
		_, is := s.until(viewerOf(who, upload), now.Add(at))
		return is
	}
	until, is := s.until(viewerOf(ana, photo), now)
	if is || !until.Equal(now.Add(time.Hour)) {
		t.Fatalf("at first an entry covers it until %s: %t", until, is)
	}
	if covered(ana, photo, 0) {
		t.Error("it is covered before its entry is committed")
	}
	s.cover(viewerOf(ana, photo), until, now)
	for _, c := range []struct {
		who    tenant.Identity
		upload uuid.UUID
		at     time.Duration
		want   bool
	}{
		{ana, photo, 0, true}, {ana, photo, time.Hour - 1, true}, {ana, photo, time.Hour, false},
		{ana, uuid.New(), 0, false}, {bea, photo, 0, false}, {abroad, photo, 0, false}, {elsewhere, photo, 0, false},
	} {
		if got := covered(c.who, c.upload, c.at); got != c.want {
			t.Errorf("after %s of %+v: covered %t", c.at, c.who, got)
		}
	}
	for range 2 * maxShown {
		s.cover(viewerOf(ana, uuid.New()), until, now)
	}
	if len(s.all) > maxShown {
		t.Errorf("it remembers %d", len(s.all))
	}
	s.cover(viewerOf(bea, photo), until.Add(time.Hour), now.Add(time.Hour))
	if n := len(s.all); n > maxShown || !covered(bea, photo, time.Hour) {
		t.Errorf("what is over stays: %d", n)
	}
}
