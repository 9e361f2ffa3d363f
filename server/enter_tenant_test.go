package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// like returns the user of u's tenant that change makes of its employee.
func (s *site) like(t testing.TB, u user, change func(*tenant.Identity)) user {
	t.Helper()
	who := u.who
	change(&who)
	return s.as(t, who)
}

func (s *site) operator(t testing.TB) user {
	t.Helper()
	return s.newTenant(t).as(s, "olga", tenant.Admin)
}

// An entry of the audit log, as a manager reads it.
type entry struct {
	Seq        int64
	Actor      string
	Role       string
	HomeTenant *string `json:"home_tenant"`
	Action     string
	Subject    *string
	Outcome    string
	Address    *string
	RequestID  *string `json:"request_id"`
	Detail     map[string]any
}

func (e entry) String() string {
	subject := "-"
	if e.Subject != nil {
		subject = *e.Subject
	}
	return fmt.Sprintf("%s %s %s %s %v %v", e.Actor, e.Action, subject, e.Outcome, e.Detail["method"], e.Detail["route"])
}

// audit is the tenant's whole log, the oldest entry first.
func (s *site) audit(t testing.TB, u user) (all []entry) {
	t.Helper()
	return s.auditBy(t, u.as(s, "marta", tenant.Constructora), "?limit=2")
}

func (s *site) auditBy(t testing.TB, manager user, query string) (all []entry) {
	t.Helper()
	for cursor := ""; ; {
		a := manager.do("GET", s.url+"/api/audit"+query+cursor, nil)
		a.wantHeader(t, "Cache-Control", "no-store")
		page := readAs[struct {
			Items []entry
			Next  *string
		}](t, a, 200)
		all = append(all, page.Items...)
		if page.Next == nil {
			slices.Reverse(all)
			return all
		}
		cursor = "&cursor=" + *page.Next
	}
}

func wantAudit(t testing.TB, got []entry, want ...string) {
	t.Helper()
	var text []string
	for _, e := range got {
		text = append(text, e.String())
	}
	if !slices.Equal(text, want) {
		t.Errorf("the audit log has\n%s\nwant\n%s", strings.Join(text, "\n"), strings.Join(want, "\n"))
	}
}

// An admin enters another tenant by naming it, on every kind of route. That tenant's audit log has each request; the
// admin's own has none.
func TestEnterTenant(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u, admin := s.user, s.operator(t)
	in := []string{"Tramo-Tenant", u.who.Tenant.String()}
	url := u.create(10)
	id := idOf(url).String()

	admin.do("GET", url, nil).want(t, 404, "not-found") // without the header the admin acts in its own tenant
	admin.do("GET", url, nil, append(in, "X-Request-Id", "the-request")...).want(t, 200, "").wantText(t, id)
	admin.do("HEAD", url, nil, in...).want(t, 200, "")
	admin.patch(url, 0, strings.NewReader("0123456789"), in...).want(t, 204, "")
	created := admin.do("POST", u.uploads, nil, append(in, "Upload-Length", "5")...).want(t, 201, "")
	mine := created.header.Get("Location")
	admin.do("DELETE", mine, nil, in...).want(t, 204, "")
	admin.do("GET", u.uploads, nil, in...).want(t, 200, "")
	admin.do("GET", url+"/receipt", nil, in...).want(t, 200, "")
	u.do("GET", mine, nil).want(t, 200, "") // it is the tenant's

	log := s.audit(t, u)
	enter := func(subject, rest string) string { return "olga tenant.enter " + subject + " done " + rest }
	wantAudit(t, log,
		enter(id, "GET /api/uploads/:id"), enter(id, "HEAD /api/uploads/:id"), enter(id, "PATCH /api/uploads/:id"),
		enter("-", "POST /api/uploads"), enter(idOf(mine).String(), "DELETE /api/uploads/:id"), enter("-", "GET /api/uploads"),
		enter(id, "GET /api/uploads/:id/receipt"))
	first := log[0]
	if first.HomeTenant == nil || *first.HomeTenant != admin.who.Tenant.String() || first.Role != "admin" ||
		first.Address == nil || *first.Address != "127.0.0.1" || first.RequestID == nil || *first.RequestID != "the-request" {
		t.Errorf("the entry is %+v", first)
	}
	wantAudit(t, s.audit(t, admin))

	own := admin.do("GET", admin.uploads, nil, "Tramo-Tenant", strings.ToUpper(admin.who.Tenant.String()))
	own.want(t, 200, "") // it does not enter another tenant
	wantAudit(t, s.audit(t, admin))
}

// Other roles cannot enter a tenant, and do not learn which tenants exist.
func TestEnterTenantIsForAdmins(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u, other := s.user, s.newTenant(t)
	url := other.create(10)
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Inversionista} {
		as := s.like(t, u, func(id *tenant.Identity) { id.Role = role })
		var before answer
		for i, there := range []string{other.who.Tenant.String(), uuid.NewString(), "nobody", "", u.who.Tenant.String() + ","} {
			for _, request := range [][2]string{{"GET", url}, {"GET", other.uploads}, {"PATCH", url}, {"HEAD", url}, {"POST", u.uploads}} {
				r := as.request(request[0], request[1], nil)
				r.Header["Tramo-Tenant"] = []string{there}
				a := as.send(r).want(t, 403, "")
				if request[0] == "HEAD" {
					continue
				}
				if i > 0 && anyID.ReplaceAllString(string(a.body), "") != anyID.ReplaceAllString(string(before.body), "") {
					t.Errorf("%s: %s and %s", role, a.body, before.body)
				}
				before = a
			}
		}
		r := as.request("GET", as.uploads, nil)
		r.Header["Tramo-Tenant"] = []string{as.who.Tenant.String(), other.who.Tenant.String()}
		as.send(r).want(t, 403, "forbidden")
		as.do("GET", as.uploads, nil, "Tramo-Tenant", as.who.Tenant.String()).want(t, 200, "") // its own
	}
	wantAudit(t, s.audit(t, other)) // others write nothing into its log
}

// An admin cannot enter a tenant that does not exist, two tenants, or what is not an id.
func TestEnterInvalidTenant(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	admin := s.operator(t)
	nowhere := uuid.NewString()
	admin.do("GET", admin.uploads, nil, "Tramo-Tenant", nowhere).want(t, 404, "not-found")
	admin.do("POST", admin.uploads, nil, "Tramo-Tenant", nowhere, "Upload-Length", "5").want(t, 404, "not-found")
	for _, bad := range []string{"", "nobody", "{" + nowhere + "}", strings.ReplaceAll(nowhere, "-", "")} {
		r := admin.request("GET", admin.uploads, nil)
		r.Header["Tramo-Tenant"] = []string{bad}
		admin.send(r).want(t, 400, "bad-request")
	}
	r := admin.request("GET", admin.uploads, nil)
	r.Header["Tramo-Tenant"] = []string{s.user.who.Tenant.String(), s.user.who.Tenant.String()}
	admin.send(r).want(t, 400, "bad-request")
	wantAudit(t, s.audit(t, admin),
		"olga tenant.enter "+nowhere+" not-found GET /api/uploads", "olga tenant.enter "+nowhere+" not-found POST /api/uploads")
}

// A request that cannot be written into the tenant's audit log fails.
func TestEnterTenantNeedsAudit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	admin := s.operator(t)
	in := []string{"Tramo-Tenant", s.user.who.Tenant.String()}
	url := s.user.create(10)
	s.run(t, "revoke insert on audit from tramo_api")
	admin.do("GET", url, nil, in...).want(t, 500, "internal").wantNoText(t, idOf(url).String())
	admin.patch(url, 0, strings.NewReader("0123456789"), in...).want(t, 500, "internal")
	admin.do("DELETE", url, nil, in...).want(t, 500, "internal")
	s.user.wantOffset(url, 0)
	s.user.do("GET", s.url+"/api/audit", nil).want(t, 403, "forbidden") // this needs no entry in the audit log
	s.run(t, "grant insert on audit to tramo_api")
	admin.do("GET", url, nil, in...).want(t, 200, "")
	wantAudit(t, s.audit(t, s.user), "olga tenant.enter "+idOf(url).String()+" done GET /api/uploads/:id")
}

// run is exec for statements that change no row.
func (s *site) run(t testing.TB, sql string) {
	t.Helper()
	_, err := s.admin.Exec(t.Context(), sql)
	stack.Must(t, err)
}

// A 403 to an authenticated user is audited, at a limited rate. A request without a token, or one that is not valid, is not.
func TestDenialsAreAudited(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	url := u.create(10)
	id := idOf(url).String()
	pedro := s.like(t, u, func(id *tenant.Identity) { id.User = "pedro" })
	eva := u.as(s, "eva", tenant.Inversionista)
	narrow := s.like(t, u, func(id *tenant.Identity) { id.User, id.Projects = "nora", []string{"torre"} })

	pedro.do("HEAD", url, nil).want(t, 403, "")
	pedro.patch(url, 0, strings.NewReader("x")).want(t, 403, "not-yours")
	pedro.do("DELETE", url, nil).want(t, 403, "not-yours")
	eva.do("POST", u.uploads, nil, "Upload-Length", "5").want(t, 403, "forbidden")
	narrow.do("POST", u.uploads, nil, "Upload-Length", "5", "Upload-Metadata", metadata("project", "puente")).want(t, 403, "not-your-project")
	pedro.do("GET", s.url+"/api/audit", nil).want(t, 403, "forbidden")

	u.do("GET", u.uploads+"/"+uuid.NewString(), nil).want(t, 404, "")
	u.patch(url, 5, strings.NewReader("x")).want(t, 409, "")
	u.do("GET", u.uploads+"?limit=0", nil).want(t, 400, "")
	nobody := u
	nobody.token = "none"
	nobody.do("GET", url, nil).want(t, 401, "")
	partial := u.create(5, "Upload-Concat", "partial")
	u.patch(partial, 0, strings.NewReader("hello")).want(t, 204, "")
	final := u.do("POST", u.uploads, nil, "Upload-Concat", "final;"+partial).want(t, 201, "")
	u.patch(final.header.Get("Location"), 0, strings.NewReader("x")).want(t, 403, "final")

	wantAudit(t, s.audit(t, u),
		"pedro request.deny "+id+" not-yours HEAD /api/uploads/:id", "pedro request.deny "+id+" not-yours PATCH /api/uploads/:id",
		"pedro request.deny "+id+" not-yours DELETE /api/uploads/:id", "eva request.deny - forbidden POST /api/uploads",
		"nora request.deny - not-your-project POST /api/uploads", "pedro request.deny - forbidden GET /api/audit")

	rita := s.like(t, u, func(id *tenant.Identity) { id.User = "rita" })
	const tries = 100
	for range tries {
		rita.do("GET", s.url+"/api/audit", nil).want(t, 403, "forbidden")
	}
	if n := len(s.auditBy(t, u.as(s, "marta", tenant.Constructora), "?limit=500&actor=rita")); n < 30 || n > 60 { // the most of two minutes
		t.Errorf("%d of %d denials are in the log", n, tries)
	}
}

// Managers of the whole company read its audit log by page and filter, and no other tenant's.
func TestAuditLog(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u, other := s.user, s.newTenant(t)
	for i := range 7 {
		s.exec(t, `insert into audit (tenant_id, actor, role, action, subject, outcome) values ($1, $2, 'empleado', $3, $4, 'done')`,
			u.who.Tenant, []string{"ana", "pedro"}[i%2], []string{"x.do", "y.do", "z.do"}[i%3], strconv.Itoa(i))
		s.exec(t, `insert into audit (tenant_id, actor, role, action, subject, outcome) values ($1, 'ana', 'empleado', 'x.do', '0', 'done')`,
			other.who.Tenant)
	}
	marta := u.as(s, "marta", tenant.Constructora)
	for query, want := range map[string]string{
		"?limit=3": "0123456", "?limit=7": "0123456", "?limit=500": "0123456", "?limit=2&actor=ana": "0246", "?limit=2&action=y.do": "14",
		"?limit=1&subject=3": "3", "?limit=2&actor=pedro&action=x.do": "3", "?limit=2&actor=nobody": "",
	} {
		var got strings.Builder
		for _, e := range s.auditBy(t, marta, query) {
			got.WriteString(*e.Subject)
		}
		stack.Want(t, got.String(), want, "%s", query)
	}
	for _, query := range []string{"?limit=0", "?limit=x", "?limit=501", "?cursor=x", "?cursor=-1", "?cursor=0", "?actor=%00", "?action=%ff"} {
		marta.do("GET", s.url+"/api/audit"+query, nil).want(t, 400, "bad-request")
	}
	for name, as := range map[string]user{
		"empleado": u, "inversionista": s.like(t, u, func(id *tenant.Identity) { id.Role = tenant.Inversionista }),
		"manager of a project": s.like(t, marta, func(id *tenant.Identity) { id.Projects = []string{"torre"} }),
	} {
		if a := as.do("GET", s.url+"/api/audit", nil); a.status != http.StatusForbidden {
			t.Errorf("%s reads %d %s", name, a.status, a.body)
		}
	}
	admin := u.as(s, "root", tenant.Admin)
	if got := s.auditBy(t, admin, "?limit=500&action=x.do&actor=ana"); len(got) != 2 {
		t.Errorf("an admin of the tenant reads %v", got)
	}
}
