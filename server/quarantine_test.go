package server_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

type quarantinePage struct {
	Items []struct {
		ID       uuid.UUID
		User     string
		Filename *string
		Failure  struct{ Reason string }
		Scan     scanAnswer
	}
	Next *string
}

type scanAnswer struct {
	Verdict    string
	Signature  *string
	Signatures *int64
	ScannedAt  *string `json:"scanned_at"`
	ReleasedAt *string `json:"released_at"`
}

// An admin lists the quarantine of a company page by page, releases one upload for a reason and erases another. Everybody else
// gets 403, and no answer links to the content, whatever the rows say.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	send := func(name string) string {
		url := u.create(10, "Upload-Metadata", metadata("filename", name))
		u.patch(url, 0, strings.NewReader("completo!!")).want(t, 204, "")
		return url
	}
	clean := send("a.txt")
	bad, worse := send("b.txt"), send("c.txt")
	for _, url := range []string{bad, worse} {
		s.infect(t, u, url, object.DefaultProject)
	}
	s.exec(t, `update scans set signatures = 27500 where upload_id = $1`, idOf(bad))
	at := u.base() + "/api/admin/quarantine"
	release := func(who user, url, body string, headers ...string) answer {
		t.Helper()
		return who.do("POST", at+"/"+idOf(url).String()+"/release", strings.NewReader(body), append([]string{"Content-Type", "application/json"}, headers...)...)
	}
	const reason = `{"reason":"a false alarm"}`
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Inversionista} {
		who := u.as(s, "x", role)
		who.do("GET", at, nil).want(t, 403, "forbidden")
		release(who, bad, reason).want(t, 403, "forbidden")
		who.do("DELETE", at+"/"+idOf(bad).String(), nil).want(t, 403, "forbidden")
	}

	olga := s.newTenant(t).as(s, "olga", tenant.Admin) // an operator, whose own tenant is another
	list := func(query string, headers ...string) (p quarantinePage) {
		t.Helper()
		return readAs[quarantinePage](t, olga.do("GET", at+query, nil, headers...), 200)
	}
	if p := list(""); len(p.Items) != 0 {
		t.Errorf("at home are %+v", p.Items)
	}
	release(olga, bad, reason).want(t, 404, "not-found")
	olga.do("DELETE", at+"/"+idOf(bad).String(), nil).want(t, 404, "not-found")
	there := []string{"Tramo-Tenant", u.who.Tenant.String()}
	first := list("?limit=1", there...)
	if first.Next == nil || len(first.Items) != 1 || first.Items[0].ID != idOf(worse) {
		t.Fatalf("the first page is %+v", first)
	}
	if p := list("?limit=1&cursor="+*first.Next, there...); len(p.Items) != 1 || p.Items[0].ID != idOf(bad) || *p.Items[0].Filename != "b.txt" ||
		p.Items[0].Failure.Reason != "infected" || *p.Items[0].Scan.Signature != "secreto" || *p.Items[0].Scan.Signatures != 27500 {
		t.Errorf("the second page is %+v", p)
	}
	olga.do("GET", at+"?cursor=x", nil, there...).want(t, 400, "bad-request")

	scan := func(url string) (x struct {
		Status string
		Scan   *scanAnswer
	}) {
		t.Helper()
		stack.Must(t, json.Unmarshal(u.do("GET", url, nil).body, &x))
		return x
	}
	if got := scan(bad); got.Status != "failed" || got.Scan == nil || got.Scan.Verdict != "infected" || got.Scan.ReleasedAt != nil || got.Scan.ScannedAt == nil {
		t.Errorf("the upload is %+v", got)
	}
	if got := scan(clean); got.Scan != nil {
		t.Errorf("what was not scanned has %+v", got.Scan)
	}
	u.do("GET", bad+"/content", nil).want(t, 409, "no-content")
	// A wrong row, whose key is in quarantine, still gives no link.
	s.exec(t, `update uploads set status = 'completed', failure_reason = null where id = $1`, idOf(bad))
	if a := u.do("GET", bad+"/content", nil); a.status < 400 {
		t.Errorf("content of what is in quarantine: %d %s", a.status, a.header.Get("Location"))
	}
	s.exec(t, `update uploads set status = 'failed', failure_reason = 'infected' where id = $1`, idOf(bad))

	for _, body := range []string{"", "{}", `{"reason":""}`, `{"reason":"x"} x`, `{"reason":"x","force":true}`, `{"reason":"` + strings.Repeat("x", 1001) + `"}`} {
		release(olga, bad, body, there...).want(t, 400, "bad-request")
	}
	release(olga, clean, reason, there...).want(t, 409, "not-quarantined")
	release(olga, bad, reason, there...).want(t, 202, "")
	release(olga, bad, reason, there...).want(t, 409, "not-quarantined")
	if got := scan(bad); got.Status != "uploaded" || got.Scan.ReleasedAt == nil {
		t.Errorf("the released upload is %+v", got)
	}
	a := olga.do("DELETE", at+"/"+idOf(worse).String(), nil, there...).want(t, 202, "")
	if e := a.erasure(t); e.State != "running" || *e.Subject != idOf(worse).String() || a.header.Get("Location") != "/api/erasures/"+e.ID.String() {
		t.Errorf("the erasure is %s", a.body)
	}
	for action, want := range map[string]int{"upload.quarantine.release": 1, "upload.quarantine.erase": 1, "erasure.request": 1} {
		s.wantCount(t, want, `select count(*) from audit where tenant_id = $1 and actor = 'olga' and home_tenant = $2 and action = $3`,
			u.who.Tenant, olga.who.Tenant, action)
	}
}
