package server_test

import (
	"io"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server/auth"
	"github.com/tramo/tramo/server/live"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// operate does in the user's tenant what an operator's command does.
func (s *site) operate(t testing.TB, u user, do func(storage.Tx) error) {
	t.Helper()
	stack.Must(t, s.Worker.InTenant(tenant.With(t.Context(), u.who), do))
}

func (s *site) suspend(t testing.TB, u user, is bool) {
	t.Helper()
	s.operate(t, u, func(tx storage.Tx) error { return storage.SuspendTenant(t.Context(), tx, is) })
}

func (s *site) revoke(t testing.TB, u user, who string, before time.Time) {
	t.Helper()
	s.operate(t, u, func(tx storage.Tx) error { return storage.RevokeTokens(t.Context(), tx, who, before) })
}

// everyDoor are requests of a manager's, one for each way in which a tenant's data is read or made.
func everyDoor(s *site, u user) map[string]func() answer {
	at := func(method, path, body string, headers ...string) func() answer {
		return func() answer {
			u.t.Helper()
			return u.do(method, s.url+path, reader([]byte(body)), append(headers, "Content-Type", "application/json")...)
		}
	}
	return map[string]func() answer{
		"upload":    func() answer { u.t.Helper(); return u.do("POST", u.uploads, nil, "Upload-Length", "5") },
		"list":      at("GET", "/api/uploads", ""),
		"webhook":   at("POST", "/api/webhooks", `{"url":"https://example.com/hook"}`),
		"stream":    at("GET", live.Path, ""),
		"ticket":    at("POST", live.Path+"/tickets", ""),
		"audit log": at("GET", "/api/audit", ""),
		"export":    at("GET", "/api/tenants/"+u.who.Tenant.String()+"/export", ""),
		"erasure":   at("POST", "/api/erasures", `{"user_id":"ana"}`),
		"batch":     at("POST", "/api/batches", `{"name":"x","uploads":[]}`),
		"no route":  at("GET", "/api/nothing", ""),
	}
}

// A token of a tenant that never existed, was erased or is suspended opens no door, and leaves nothing behind.
func TestTokensOfTenantsThatAreGone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	never := s.as(t, tenant.Identity{Tenant: uuid.New(), User: "jefa", Role: tenant.Constructora})
	erased, suspended := s.newTenant(t).as(s, "jefa", tenant.Constructora), s.newTenant(t).as(s, "jefa", tenant.Constructora)
	s.exec(t, `update tenants set erasing_at = now(), erased_at = now() where id = $1`, erased.who.Tenant)
	s.suspend(t, suspended, true)
	for problem, u := range map[string]user{"no-tenant": never, "suspended": suspended} {
		for door, open := range everyDoor(s, u) {
			t.Log(problem, door)
			open().want(t, 403, problem)
		}
	}
	for door, open := range everyDoor(s, erased) {
		t.Log("erased", door)
		open().want(t, 403, "no-tenant")
	}
	for _, table := range []string{"uploads", "webhook_endpoints", "event_tickets", "batches", "erasures"} {
		s.wantCount(t, 0, `select count(*) from `+table)
	}
	// The operator resumes it.
	s.suspend(t, suspended, false)
	stack.Until(t, "the tenant's tokens are valid again", func() bool { return suspended.do("GET", s.url+"/api/uploads", nil).status == 200 })
}

// Within seconds, a suspension ends the streams and the bodies that are under way, and a ticket that was got before opens no
// stream. What had arrived is there when the tenant is resumed.
func TestSuspensionEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	s.cutBy(t, func() { s.suspend(t, s.user, true) }, 403, "suspended", "token_refused")
	s.suspend(t, s.user, false)
	stack.Until(t, "the tenant's tokens are valid again", func() bool { return s.user.do("GET", s.url+"/api/uploads", nil).status == 200 })
}

// The same with a token that is revoked: one user's, or all of a tenant's.
func TestRevocationEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	for name, who := range map[string]string{"of a user": "ana", "of a tenant": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.live(t, nil)
			s.cutBy(t, func() { s.revoke(t, s.user, who, time.Now().Add(time.Second)) }, 401, "unauthorized", "token_refused")
		})
	}
}

// The same with a token that runs out.
func TestExpiryEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	token, err := auth.Config{Secrets: secret}.Sign(s.user.who, -25*time.Second, time.Now()) // it is taken for half a minute longer
	stack.Must(t, err)
	s.user.token = token
	s.cutBy(t, func() {}, 401, "unauthorized", "token_expired")
}

// cutBy begins a stream, a body and a form, and wants what refuse does to end them.
func (s *site) cutBy(t *testing.T, refuse func(), status int, problem, reason string) {
	t.Helper()
	u := s.user
	ticket := func() string {
		return readAs[struct{ Ticket string }](t, u.do("POST", s.url+live.Path+"/tickets", nil), 201).Ticket
	}
	unused := ticket()
	stream, byTicket := u.listen(s.url, ""), u.listen(s.url, query("ticket", ticket()), "Authorization", "")
	data := noise(1000)
	url := u.create(len(data))
	body := u.sendSlowly(t, url, data)
	form, sending := io.Pipe()
	formed := make(chan answer, 1)
	go func() {
		formed <- u.do("POST", u.uploads, form, "Tus-Resumable", "", "Content-Type", formOf)
	}()
	_, err := io.WriteString(sending, field("client_id", "form")+`--`+boundary+"\r\n"+`Content-Disposition: form-data; name="file"; filename="a.txt"`+"\r\n\r\nhello")
	stack.Must(t, err)
	refuse()
	for name, l := range map[string]*listening{"stream": stream, "stream by ticket": byTicket} {
		es := l.until("its end", func(e event, _ saying) bool { return e.Event == "end" })
		if got := es[len(es)-1].told(t).Reason; got != reason {
			t.Errorf("%s: it ended for %s, want %s", name, got, reason)
		}
	}
	stack.Receive(t, "the answer to the body", body.over).want(t, status, problem)
	stack.Receive(t, "the answer to the form", formed).want(t, status, problem)
	u.do("GET", url, nil).want(t, status, problem)
	u.do("GET", s.url+live.Path+"?"+query("ticket", unused), nil, "Authorization", "").want(t, status, problem)
	if got := s.count(t, `select received from contents where upload_id = $1`, idOf(url)); got != len(body.sent) {
		t.Errorf("%d bytes are kept of %d", got, len(body.sent))
	}
}

// A revocation refuses what was issued before it, and a token that does not say when; and nothing else.
func TestRevocation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	sign := func(who tenant.Identity, issued time.Time) user {
		t.Helper()
		u := s.as(t, who)
		token, err := auth.Config{Secrets: secret}.Sign(who, 48*time.Hour, issued)
		stack.Must(t, err)
		u.token = token
		return u
	}
	ben := s.user.who
	ben.User = "ben"
	moment := time.Now().Add(-time.Hour)
	old, young, other := sign(s.user.who, moment.Add(-time.Minute)), sign(s.user.who, moment.Add(time.Minute)), sign(ben, moment.Add(-time.Minute))
	foreign := sign(s.newTenant(t).who, moment.Add(-time.Minute))
	status := func(u user) int { return u.do("GET", u.uploads, nil).status }
	s.revoke(t, s.user, "ana", moment)
	stack.Until(t, "the token is refused", func() bool { return status(old) == 401 })
	old.do("GET", old.uploads, nil).want(t, 401, "unauthorized").wantText(t, "revoked")
	s.revoke(t, s.user, "ana", moment.Add(-time.Hour)) // which takes nothing back
	for name, u := range map[string]user{"younger": young, "another user's": other, "another tenant's": foreign} {
		if got := status(u); got != 200 {
			t.Errorf("a token that is %s: %d", name, got)
		}
	}
	s.revoke(t, s.user, "", moment)
	stack.Until(t, "the other user's is refused", func() bool { return status(other) == 401 })
	for name, u := range map[string]user{"younger": young, "another tenant's": foreign} {
		if got := status(u); got != 200 {
			t.Errorf("a token that is %s: %d", name, got)
		}
	}
	// An admin's token is revoked at home, and enters nowhere.
	olga := s.operator(t)
	s.revoke(t, olga, "olga", time.Now().Add(time.Second))
	stack.Until(t, "the admin's is refused", func() bool {
		return olga.do("GET", s.user.uploads, nil, "Tramo-Tenant", s.user.who.Tenant.String()).status == 401
	})
}

// An admin who enters a tenant that was erased reads what stays, and changes nothing.
func TestErasedTenantIsReadOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	olga := s.operator(t)
	in := []string{"Tramo-Tenant", s.user.who.Tenant.String()}
	s.exec(t, `update tenants set erasing_at = now(), erased_at = now() where id = $1`, s.user.who.Tenant)
	olga.do("GET", s.url+"/api/audit", nil, in...).want(t, 200, "")
	olga.do("GET", s.url+"/api/erasures", nil, in...).want(t, 200, "")
	olga.do("POST", s.url+"/api/webhooks", reader([]byte(`{"url":"https://example.com"}`)), append(in, "Content-Type", "application/json")...).want(t, 403, "no-tenant")
	olga.do("POST", s.user.uploads, nil, append(in, "Upload-Length", "5")...).want(t, 403, "no-tenant")
}

// While a tenant's standing cannot be read, what was known of it counts; of an unknown tenant nothing does.
func TestStandingThatCannotBeRead(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	stranger := s.newTenant(t)
	s.user.do("GET", s.url+"/api/nothing", nil).want(t, 404, "not-found")
	_, err := s.admin.Exec(t.Context(), `alter table revocations rename to elsewhere`)
	stack.Must(t, err)
	s.user.do("GET", s.url+"/api/nothing", nil).want(t, 404, "not-found")
	stranger.do("GET", s.url+"/api/nothing", nil).want(t, 500, "internal")
}
