package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// A victim has the ids, names and cursors, by kind, that others must not learn. Attacks take them from here, so that the
// same attack can be made on things that never existed.
type victim map[string]string

// phantom has, for each kind, something similar that never existed.
func (v victim) phantom() victim {
	p := victim{}
	for kind, s := range v {
		if elsewhere, ok := map[string]string{"near": "48.8584,2.2945,100", "taken": "1999-01-01T00:00:00Z..1999-01-02T00:00:00Z"}[kind]; ok {
			p[kind] = elsewhere
			continue
		}
		if id, err := uuid.Parse(s); err == nil {
			p[kind] = uuid.NewString()
			if id.Version() == 7 {
				p[kind] = uuid.Must(uuid.NewV7()).String()
			}
			continue
		}
		if _, err := strconv.Atoi(s); err == nil {
			p[kind] = "9" + s
			continue
		}
		sum := sha256.Sum256([]byte(uuid.NewString()))
		p[kind] = ("a" + hex.EncodeToString(sum[:]))[:len(s)]
	}
	return p
}

// An attack is a request that names something of a victim.
type attack struct {
	route string // that it takes, as the router has it
	name  string
	send  func(u user, v victim) *http.Request
	// allowed reports for whom this is none; nil for nobody.
	allowed func(who tenant.Identity, v victim) bool
}

func (v victim) fill(s string) string {
	for kind, value := range v {
		s = strings.ReplaceAll(s, "{"+kind+"}", value)
	}
	return s
}

// base is the server's address.
func (u user) base() string { return strings.TrimSuffix(u.uploads, server.UploadsPath) }

// project is one that the user has.
func (u user) project() string {
	if u.who.Projects != nil {
		return u.who.Projects[0]
	}
	return "default"
}

var (
	anyID   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	anyTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)
	anyDate = regexp.MustCompile(`\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT`)
	anySeq  = regexp.MustCompile(`"(seq)":\d+`)
	ticket  = regexp.MustCompile(`"ticket":"[^"]*"`)
)

// normal is an answer to u as text, without what differs between any two requests, and with the victim's things replaced by
// their kind. So an answer that contains one differs from an answer that contains an unknown id.
func (v victim) normal(u user, a answer) string {
	var b strings.Builder
	fmt.Fprintln(&b, a.status)
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		if !slices.Contains([]string{"Date", "X-Request-Id", "Traceresponse"}, name) && !strings.HasPrefix(name, "Ratelimit") {
			fmt.Fprintln(&b, name, a.header[name])
		}
	}
	b.Write(a.body)
	// Strangers have the name of the victim's user, and everybody knows its own tenant.
	text := strings.NewReplacer(u.who.User, "<user>", u.who.Tenant.String(), "<id>").Replace(b.String())
	for kind, s := range v {
		if len(s) > 7 { // shorter ones are in everything
			text = strings.ReplaceAll(text, s, "<"+kind+">")
		}
	}
	text = anyTime.ReplaceAllString(anyID.ReplaceAllString(text, "<id>"), "<time>")
	text = ticket.ReplaceAllString(text, `"ticket":"<ticket>"`)
	// Fractions of seconds have no fixed length.
	text = regexp.MustCompile(`Content-Length \[\d+\]`).ReplaceAllString(text, "Content-Length")
	return anySeq.ReplaceAllString(anyDate.ReplaceAllString(text, "<date>"), `"$1":0`)
}

// attackers are the users for whom nothing of the victim exists: each role of another tenant and, in the victim's own
// tenant, users of another project. inside leaves out the latter.
func (s *site) attackers(t *testing.T, u user, inside bool) map[string]func() user {
	t.Helper()
	all := map[string]func() user{}
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Inversionista, tenant.Admin} {
		as := func(id *tenant.Identity) { id.User, id.Role = u.who.User, role } // even the user's name is the victim's
		all["another tenant's "+string(role)] = func() user { return s.like(t, s.newTenant(t), as) }
		if inside {
			all["narrowed "+string(role)] = func() user {
				return s.like(t, u, func(id *tenant.Identity) {
					id.User, id.Role, id.Projects = uuid.NewString(), role, []string{uuid.NewString()}
				})
			}
		}
	}
	return all
}

// Every attack on every route is answered, byte for byte, like one on something that never existed, and reveals nothing of
// the victim. The victim's running PATCH succeeds, and no row of the victim has changed.
func TestAttacks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.attack(t, true)
}

// The same without row-level security: the tenant in every statement suffices. ([TestForgottenTenant] in package storage
// shows that row-level security suffices alone.)
func TestAttacksWithoutRowLevelSecurity(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run(t, `do $$ declare t text; begin
		for t in select relname from pg_class where relnamespace = 'public'::regnamespace and relrowsecurity loop
			execute format('alter table %I disable row level security', t);
		end loop; end $$`)
	s.attack(t, false)
}

func (s *site) attack(t *testing.T, inside bool) {
	t.Helper()
	u, v, slow := s.newVictim(t)
	before := s.rowsOf(t, u)
	for name, newAttacker := range s.attackers(t, u, inside) {
		for _, a := range attacks {
			slow.send(t, 1) // so that it is never silent for long
			// Each tries from scratch: what it has made itself must not tell its answers apart.
			before, attacker := newAttacker(), newAttacker()
			if a.allowed != nil && a.allowed(attacker.who, v) {
				continue
			}
			never := v.phantom()
			want := never.normal(before, before.try(a, never))
			got := v.normal(attacker, attacker.try(a, v))
			stack.Want(t, got, want, "%s, %s %s: answer, which must be that for what never was", name, a.route, a.name)
			for _, secret := range []string{"secreto.txt", "usuario-secreto", "completo!!", "trozo"} {
				if strings.Contains(got, secret) {
					t.Errorf("%s, %s %s: tells of %s: %s", name, a.route, a.name, secret, got)
				}
			}
		}
	}
	stack.Want(t, s.rowsOf(t, u), before, "the victim's rows")
	slow.finish(t, u)
}

func (u user) try(a attack, v victim) answer {
	u.t.Helper()
	return u.send(a.send(u, v))
}

// A row with an object key of another upload links nothing.
func TestWrongRowLinksNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, v, slow := s.newVictim(t)
	other := s.newTenant(t)
	url := other.create(10)
	other.patch(url, 0, strings.NewReader("0123456789")).want(t, 204, "")
	s.completeAt(t, other, url, "default")
	other.do("GET", url, nil).want(t, 200, "").wantText(t, "thumbnails/160?link=")
	s.exec(t, `update thumbnails set object_key = (select object_key from thumbnails where upload_id = $2) where upload_id = $1`, idOf(url), v["whole"])
	for _, path := range []string{url, other.uploads} {
		other.do("GET", path, nil).want(t, 200, "").wantNoText(t, v["whole"], "/thumbnails/")
	}
	other.do("GET", url+"/thumbnails/160", nil).want(t, 500, "internal").wantHeader(t, "Location", "")
	slow.finish(t, s.like(t, s.user, func(id *tenant.Identity) { id.User = v["user"] }))
}
