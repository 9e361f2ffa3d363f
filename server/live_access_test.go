package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/server/live"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// Another tenant's listeners receive nothing about an upload, with any filter. They receive their own marker, which is
// created after everything that they must not receive.
func TestLiveIsolation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	stranger := s.newTenant(t)
	mine := s.user.listen(s.url, "")
	mine.ready()
	listening := []*listening{stranger.listen(s.url, ""), stranger.listen(s.url, "", "Last-Event-ID", "1"),
		stranger.listen(s.url, query("project", "general")), stranger.listen(s.url, "", "Last-Event-ID", mine.lastID)}
	for _, l := range listening {
		if es := l.ready(); mentions(es, `"status"`) {
			t.Errorf("a stranger was told %v", names(es))
		}
	}
	url := s.user.create(1000)
	s.user.patch(url, 0, reader(noise(500))).want(t, 204, "")
	s.in(t, s.user, func(ctx context.Context, tx storage.Tx) error {
		return tx.Announce(ctx, storage.Announcement{Type: "quota.warning", Detail: map[string]any{"percent": 80}})
	})
	mine.until("the warning", func(e event, j saying) bool { return j.Type == "quota.warning" })
	s.user.do("DELETE", url, nil).want(t, 204, "")
	mine.upload(idOf(url), "cancelled")
	marker := stranger.create(1000, "Upload-Metadata", metadata("project", "general"))
	for _, l := range listening {
		if es := l.upload(idOf(marker), "pending"); len(es) != 1 {
			t.Errorf("a stranger was told %v", names(es))
		}
	}
	missing := uuid.Must(uuid.NewV7())
	foreign := stranger.do("GET", s.url+live.Path+"?"+query("upload", idOf(url).String()), nil, "X-Request-Id", "same")
	absent := stranger.do("GET", s.url+live.Path+"?"+query("upload", missing.String()), nil, "X-Request-Id", "same")
	foreign.want(t, 404, "not-found")
	if string(foreign.body) != string(absent.body) || foreign.status != absent.status {
		t.Errorf("%d %s for another's upload, %d %s for none", foreign.status, foreign.body, absent.status, absent.body)
	}
}

// ends completes uploads as a worker does.
func (s *site) ends(t testing.TB, u user, urls ...string) {
	t.Helper()
	ctx := tenant.With(t.Context(), u.who)
	for _, url := range urls {
		stack.Must(t, s.Worker.InTenant(ctx, func(tx storage.Tx) error {
			if _, err := tx.MarkUploaded(ctx, idOf(url), "key", make([]byte, 32)); err != nil {
				return err
			}
			if err := tx.MarkProcessing(ctx, idOf(url), 1); err != nil {
				return err
			}
			return tx.Complete(ctx, idOf(url), storage.Results{DetectedType: "text/plain"})
		}))
	}
}

// Inside a tenant a listener receives what its token lets it read (an investor: completed uploads; a user with projects:
// theirs) and its filter selects. Changes by a worker are sent like those by a server.
func TestLiveAccess(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	begin := func(u user, project string) string {
		return u.create(10, "Upload-Metadata", metadata("project", project, "batch", "of "+project))
	}
	north, south := begin(s.user, "north"), begin(s.user, "south")
	theirs := begin(s.user.as(s, "jefa", tenant.Constructora), "north")
	investor := func(projects ...string) user { return s.user.as(s, "inv", tenant.Inversionista, projects...) }
	crew := func(projects ...string) user { return s.user.as(s, "bea", tenant.Empleado, projects...) }
	all := []string{north, south, theirs}
	cases := []struct {
		who    user
		query  string
		first  []string // the uploads of its snapshot
		later  []string // the uploads that it receives once all are completed
		marker string   // the project whose upload it receives last
	}{
		{s.user, "", all, all, "west"},
		{investor(), "", nil, all, "west"},
		{investor("west"), "", nil, nil, "west"},
		{investor("south"), query("project", "south", "project", "north"), nil, []string{south}, "south"},
		{crew("south"), "", []string{south}, []string{south}, "south"},
		{crew("south", "west"), query("project", "north", "project", "west"), nil, nil, "west"},
		{s.user, query("project", "north"), []string{north, theirs}, []string{north, theirs}, "north"},
		{s.user, query("project", "north", "project", "south"), all, all, "south"},
		{s.user, query("upload", idOf(south).String(), "project", "south"), []string{south}, []string{south}, ""},
		{s.user, query("mine", "true"), []string{north, south}, []string{north, south}, "west"},
		{s.user, query("batch", "of west"), nil, nil, "west"},
		{s.user, query("batch", "of north", "mine", "true"), []string{north}, []string{north}, "north"},
	}
	streams := make([]*listening, len(cases))
	for i, c := range cases {
		streams[i] = c.who.listen(s.url, c.query+"&"+query("ticket", s.ticket(t, c.who)))
		first := map[uuid.UUID]bool{}
		for _, e := range streams[i].ready() {
			if e.Event == "upload" {
				first[e.told(t).ID] = true
			}
		}
		stack.Want(t, first, ids(c.first), "%s %v %q: snapshot", c.who.who.Role, c.who.who.Projects, c.query)
	}
	unfinished := begin(s.user, "east") // an investor must not receive it
	streams[0].upload(idOf(unfinished), "pending")
	s.ends(t, s.user, north, theirs, south)
	// Changes of one moment may arrive in any order. Those that come with the first markers arrive before the second markers,
	// which are created once every listener has received a first one.
	var markers []string
	told := make([][]event, len(cases))
	for range 2 {
		last := map[string]string{"": south}
		for _, project := range []string{"north", "south", "west"} {
			last[project] = begin(s.user, project)
			s.ends(t, s.user, last[project])
			markers = append(markers, last[project])
		}
		for i, c := range cases {
			if c.marker != "" || told[i] == nil {
				told[i] = append(told[i], streams[i].upload(idOf(last[c.marker]), "completed")...)
			}
		}
	}
	for i, c := range cases {
		later := map[uuid.UUID]bool{}
		for _, e := range told[i] {
			if e.Event != "upload" {
				continue
			}
			if later[e.told(t).ID] = true; e.told(t).ID == idOf(unfinished) && c.who.who.Role != tenant.Inversionista {
				delete(later, idOf(unfinished))
			}
			if status := e.told(t).Status; c.who.who.Role == tenant.Inversionista && status != "completed" {
				t.Errorf("an investor is told that an upload is %s", status)
			}
		}
		for _, url := range markers {
			delete(later, idOf(url))
		}
		stack.Want(t, later, ids(c.later), "%s %v %q: what it was told of", c.who.who.Role, c.who.who.Projects, c.query)
	}
}

func ids(urls []string) map[uuid.UUID]bool {
	set := make(map[uuid.UUID]bool)
	for _, url := range urls {
		set[idOf(url)] = true
	}
	return set
}

// ticket issues a ticket for the user.
func (s *site) ticket(t testing.TB, u user) (ticket string) {
	t.Helper()
	u.who.Expires = time.Now().Add(time.Hour)
	s.in(t, u, func(ctx context.Context, tx storage.Tx) (err error) {
		ticket, _, err = live.IssueTicket(ctx, tx, time.Minute)
		return err
	})
	return ticket
}

// A ticket replaces its token once, at any server, with the same access. A used, expired, invented or renamed ticket is
// refused, with the same answer.
func TestLiveTickets(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	second, _ := s.another(t, nil)
	stranger := s.newTenant(t)
	bea := s.user.as(s, "bea", tenant.Empleado, "south")
	ticket := func(u user) string {
		if u.who.Projects != nil {
			return s.ticket(t, u)
		}
		a := u.do("POST", s.url+live.Path+"/tickets", nil)
		a.wantHeader(t, "Cache-Control", "no-store")
		j := readAs[struct {
			Ticket    string
			ExpiresAt time.Time `json:"expires_at"`
		}](t, a, 201)
		if left := time.Until(j.ExpiresAt); left > time.Minute || left < 0 {
			t.Errorf("it expires in %s", left)
		}
		return j.Ticket
	}
	nobody := s.user
	nobody.token = ""
	refused := func(name, ticket string) {
		t.Helper()
		a := nobody.do("GET", second+live.Path+"?"+query("ticket", ticket), nil, "Authorization", "")
		if a.status != 401 || !strings.Contains(string(a.body), "/problems/bad-ticket") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	mine := ticket(bea)
	l := nobody.listen(second, query("ticket", mine), "Authorization", "")
	l.ready()
	refused("used", mine)
	overWS, _, err := nobody.webSocket(s.url, query("ticket", ticket(bea)))
	stack.Must(t, err)
	overWS.ready()
	s.user.create(10, "Upload-Metadata", metadata("project", "north"))
	marker := s.user.create(10, "Upload-Metadata", metadata("project", "south"))
	for _, l := range []*listening{l, overWS} {
		// Only the marker: the other uploads are of the project north.
		if es := l.upload(idOf(marker), "pending"); len(es) != 1 {
			t.Errorf("with a ticket for south: %v", names(es))
		}
	}
	old := ticket(bea)
	s.exec(t, `update event_tickets set expires_at = now()`)
	refused("expired", old)
	ticket(bea)
	s.wantCount(t, 1, `select count(*) from event_tickets`)
	// The first 16 bytes are the tenant: 21 characters of Base64 and part of the next.
	theirs, ours := ticket(stranger), ticket(bea)
	refused("another tenant's name before our secret", theirs[:21]+ours[21:])
	refused("our name before another tenant's secret", ours[:21]+theirs[21:])
	refused("no ticket", "x")
	refused("empty", "")
	for _, name := range []string{"token", "access_token"} {
		a := nobody.do("GET", s.url+live.Path+"?"+query(name, s.user.token), nil, "Authorization", "").want(t, 400, "bad-request")
		a.wantText(t, "must not be in a URL")
		a.wantNoText(t, s.user.token)
	}
}

// A stream ends with a reason when its token expires, also if a ticket opened it.
func TestLiveTokenExpiry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	// Tokens are accepted for half a minute after they expire (clock skew).
	token, err := auth.Config{Secrets: secret}.Sign(s.user.who, -27*time.Second, time.Now())
	stack.Must(t, err)
	soon := s.user
	soon.token = token
	j := readAs[struct{ Ticket string }](t, soon.do("POST", s.url+live.Path+"/tickets", nil), 201)
	overWS, _, err := soon.webSocket(s.url, "", "Authorization", "Bearer "+token)
	stack.Must(t, err)
	for name, l := range map[string]*listening{
		"sse": soon.listen(s.url, ""), "websocket": overWS,
		"ticket": soon.listen(s.url, query("ticket", j.Ticket), "Authorization", ""),
	} {
		es := l.until("its end", func(e event, _ saying) bool { return e.Event == "end" })
		stack.Want(t, es[len(es)-1].told(t).Reason, "token_expired", "%s: reason of its end", name)
		if e, more := l.next(); more {
			t.Errorf("%s: after its end it tells %v", name, names([]event{e}))
		}
	}
}

// The number of streams of a user and of a tenant is limited; a closed stream makes room for another.
func TestLiveListenersAreLimited(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, func(c *server.Config) { c.Live.PerUser, c.Live.PerTenant = 2, 3 })
	first := s.user.listen(s.url, "")
	s.user.listen(s.url, "")
	s.user.do("GET", s.url+live.Path, nil).want(t, 429, "too-many-listeners")
	s.user.as(s, "bea", tenant.Empleado).listen(s.url, "")
	s.user.as(s, "cai", tenant.Empleado).do("GET", s.url+live.Path, nil).want(t, 429, "too-many-listeners")
	s.newTenant(t).listen(s.url, "")
	first.close()
	stack.Until(t, "a place is free", func() bool { return s.counter(t, "tramo_listeners") == 3 })
	s.user.listen(s.url, "")
}

// Browsers open WebSockets for any page, so pages of origins that are not allowed are refused.
func TestLiveWebSocketOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, func(c *server.Config) { c.CORSOrigins = []string{"https://obra.example"} })
	for origin, ok := range map[string]bool{
		"": true, s.url: true, "https://obra.example": true,
		"https://evil.example": false, "https://obra.example.evil": false, "null": false, "http://obra.example": false,
	} {
		l, res, err := s.user.webSocket(s.url, "", "Authorization", "Bearer "+s.user.token, "Origin", origin)
		if ok != (err == nil) {
			t.Errorf("origin %q: %v", origin, err)
		}
		if err == nil {
			l.ready()
		} else if res.status != http.StatusForbidden || res.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("origin %q: %d %s", origin, res.status, res.header)
		}
	}
}

// An invalid filter is refused before the stream begins.
func TestLiveInvalidFilters(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	for _, q := range []string{"upload=x", "upload=", "batch=%00", "project=%ff", "mine=maybe", strings.Repeat("project=a&", 101)} {
		s.user.do("GET", s.url+live.Path+"?"+q, nil).want(t, 400, "bad-request")
	}
	s.user.do("GET", s.url+live.Path, nil, "Authorization", "").want(t, 401, "unauthorized")
	s.user.do("GET", s.url+live.Path+"/tickets", nil).want(t, 405, "method-not-allowed")
	s.user.do("POST", s.url+live.Path+"/tickets", nil, "Authorization", "").want(t, 401, "unauthorized")
}
