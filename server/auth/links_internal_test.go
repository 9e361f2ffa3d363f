package auth

import (
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server/problem"
	"github.com/tramo/tramo/tenant"
)

const linkSecret = "0123456789abcdef0123456789abcdef"

func linksOf(t *testing.T, secrets ...string) *Links {
	t.Helper()
	l, err := NewLinks(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A link stands for the user who got it, in the upload's project alone if the token was narrowed to projects.
func TestLinkIdentity(t *testing.T) {
	t.Parallel()
	l, now, upload := linksOf(t, linkSecret), time.Unix(1_800_000_000, 0), uuid.New()
	wide := tenant.Identity{Tenant: uuid.New(), User: "ana@example.com", Role: tenant.Empleado, Expires: now.Add(10 * time.Minute)}
	narrow, abroad, longest, issued := wide, wide, wide, wide
	narrow.Projects = []string{"puente", "torre"}
	abroad.Role, abroad.Home = tenant.Admin, uuid.New()
	issued.Issued = now.Add(-time.Minute)
	longest.User = strings.Repeat("ñ", maxSubject/2)
	for name, who := range map[string]tenant.Identity{"wide": wide, "narrow": narrow, "abroad": abroad, "longest": longest, "issued": issued} {
		got, err := l.verify(l.signAt(who, "torre", upload, 160, now), upload, 160, now)
		if who.Projects != nil {
			who.Projects = []string{"torre"}
		}
		if err != nil || !reflect.DeepEqual(got, who) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, who)
		}
	}
}

// A link ends with the token that it was got with, and after an hour; for half of that, a user gets the same one.
func TestLinkEnds(t *testing.T) {
	t.Parallel()
	l, upload, start := linksOf(t, linkSecret), uuid.New(), time.Unix(1_800_000_000, 0).Truncate(time.Hour)
	who := tenant.Identity{Tenant: uuid.New(), User: "ana", Role: tenant.Empleado, Expires: start.Add(time.Minute)}
	works := func(link string, at time.Duration) bool {
		_, err := l.verify(link, upload, 160, start.Add(at))
		return err == nil
	}
	brief := l.signAt(who, "torre", upload, 160, start)
	who.Expires = start.Add(24 * time.Hour)
	long := l.signAt(who, "torre", upload, 160, start)
	for _, c := range []struct {
		link string
		at   time.Duration
		want bool
	}{
		{brief, 0, true}, {brief, time.Minute - 1, true}, {brief, time.Minute, false}, {brief, time.Hour, false},
		{long, time.Hour - 1, true}, {long, time.Hour, false}, {long, 25 * time.Hour, false},
	} {
		if got := works(c.link, c.at); got != c.want {
			t.Errorf("after %s a link works: %t, want %t", c.at, got, c.want)
		}
	}
	if again := l.signAt(who, "torre", upload, 160, start.Add(30*time.Minute-1)); again != long {
		t.Error("another link within half an hour: no browser finds the picture in its cache")
	}
	if again := l.signAt(who, "torre", upload, 160, start.Add(30*time.Minute)); again == long {
		t.Error("the same link after half an hour")
	}
}

// A link that leads elsewhere, that was changed in one bit, or that another key signed is refused. A key that no longer signs
// still verifies.
func TestLinkRefused(t *testing.T) {
	t.Parallel()
	l, now, upload := linksOf(t, linkSecret), time.Now(), uuid.New()
	who := tenant.Identity{Tenant: uuid.New(), User: "ana", Role: tenant.Empleado, Expires: now.Add(time.Hour)}
	link := l.signAt(who, "torre", upload, 160, now)
	refused := func(name string, l *Links, link string, upload uuid.UUID, size int) {
		t.Helper()
		if got, err := l.verify(link, upload, size, now); !errors.Is(err, problem.ErrBadLink) || !reflect.DeepEqual(got, tenant.Identity{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	refused("another upload", l, link, uuid.New(), 160)
	refused("another size", l, link, upload, 480)
	refused("a negative size", l, link, upload, -160)
	refused("another secret", linksOf(t, strings.Repeat("x", 32)), link, upload, 160)
	for _, s := range []string{"", "x", link + "A", link[1:], link[:len(link)-2], link + "=", strings.Repeat("A", len(link)), " " + link} {
		refused("malformed "+s, l, s, upload, 160)
	}
	raw, err := base64.RawURLEncoding.DecodeString(link)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(raw) {
		raw[bit/8] ^= 1 << (bit % 8)
		refused("a changed bit", l, base64.RawURLEncoding.EncodeToString(raw), upload, 160)
		raw[bit/8] ^= 1 << (bit % 8)
	}
	rotated := linksOf(t, strings.Repeat("n", 32), linkSecret)
	if _, err := rotated.verify(link, upload, 160, now); err != nil {
		t.Errorf("after a rotation: %v", err)
	}
	refused("a link of the new key at a server without it", l, rotated.signAt(who, "torre", upload, 160, now), upload, 160)
}
