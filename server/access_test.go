package server_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// listed are the ids that the user's list has, in order.
func (u user) listed(query string) (ids []string) {
	u.t.Helper()
	page := readAs[struct{ Items []struct{ ID string } }](u.t, u.do("GET", u.uploads+query, nil), 200)
	for _, i := range page.Items {
		ids = append(ids, i.ID)
	}
	slices.Sort(ids)
	return ids
}

func idsOf(urls ...string) (ids []string) {
	for _, url := range urls {
		ids = append(ids, idOf(url).String())
	}
	slices.Sort(ids)
	return ids
}

func (u user) createIn(project string, size int, headers ...string) string {
	u.t.Helper()
	return u.create(size, append(headers, "Upload-Metadata", metadata("project", project, "client_id", uuid.NewString()))...)
}

// wantGone wants the upload not to exist for the user, on any route.
func (u user) wantGone(url string) {
	u.t.Helper()
	for _, path := range []string{"", "/timeline", "/tags", "/receipt"} {
		u.do("GET", url+path, nil).want(u.t, 404, "not-found")
	}
	if !u.who.Role.CanUpload() {
		return
	}
	u.do("HEAD", url, nil).want(u.t, 404, "")
	u.patch(url, 0, strings.NewReader("x")).want(u.t, 404, "not-found")
	u.do("DELETE", url, nil).want(u.t, 404, "not-found")
}

// For each role, only the projects of its token exist, also for uploads that the user has sent.
func TestAccessByProject(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	puente := u.createIn("puente", 5)
	partial := u.createIn("puente", 5, "Upload-Concat", "partial")
	u.patch(partial, 0, strings.NewReader("hello")).want(t, 204, "")
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Admin} {
		narrow := s.like(t, u, func(id *tenant.Identity) { id.Role, id.Projects = role, []string{"casa", "torre"} })
		narrow.wantGone(puente)
		narrow.wantGone(partial)
		torre := narrow.createIn("torre", 5)
		mine := narrow.createIn("torre", 5, "Upload-Concat", "partial")
		narrow.patch(mine, 0, strings.NewReader("hello")).want(t, 204, "")
		for _, list := range []string{partial, mine + " " + partial, partial + " " + mine} {
			narrow.do("POST", u.uploads, nil, "Upload-Concat", "final;"+list, "Upload-Metadata", metadata("project", "torre")).want(t, 404, "not-found")
		}
		for _, project := range []string{"puente", "tor", "torre2"} {
			narrow.do("POST", u.uploads, nil, "Upload-Length", "5", "Upload-Metadata", metadata("project", project)).want(t, 403, "not-your-project")
		}
		narrow.do("POST", u.uploads, nil, "Upload-Length", "5").want(t, 403, "not-your-project") // the default one
		narrow.do("POST", u.uploads, nil, "Upload-Concat", "final;"+mine, "Upload-Metadata", metadata("project", "puente")).want(t, 403, "not-your-project")

		narrow.patch(torre, 0, strings.NewReader("he")).want(t, 204, "")
		narrow.wantOffset(torre, 2)
		narrow.do("GET", torre+"/timeline", nil).want(t, 200, "")
		if got := narrow.listed(""); !slices.Equal(got, idsOf(torre, mine)) && !slices.Equal(got, idsOf(torre)) {
			t.Errorf("%s: the list has %q", role, got)
		}
		if got := narrow.listed("?project=puente"); len(got) > 0 {
			t.Errorf("%s: the list of another project has %q", role, got)
		}
		narrow.do("DELETE", torre, nil).want(t, 204, "")
		narrow.do("DELETE", mine, nil).want(t, 204, "")
		s.exec(t, `update uploads set project = 'gone' where project = 'torre'`)
	}
	u.wantOffset(puente, 0)
}

// A client id that the user has used in a project outside the token is taken. The answer does not tell in which project.
func TestAccessToClientIDOfAnotherProject(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	there := u.create(5, "Upload-Metadata", metadata("project", "puente", "client_id", "1"))
	narrow := s.like(t, u, func(id *tenant.Identity) { id.Projects = []string{"torre"} })
	a := narrow.do("POST", u.uploads, nil, "Upload-Length", "5", "Upload-Metadata", metadata("project", "torre", "client_id", "1")).want(t, 409, "client-id-taken")
	if strings.Contains(string(a.body)+a.header.Get("Location"), idOf(there).String()) {
		t.Errorf("it tells of %s: %s", there, a.body)
	}
}

// An investor sees completed uploads and can change nothing.
func TestAccessOfInvestors(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	eva := u.as(s, "eva", tenant.Inversionista)
	var hidden []string
	for _, status := range []string{"pending", "uploading", "uploaded", "processing", "expired", "cancelled"} {
		url := u.create(5)
		s.exec(t, `update uploads set status = $2 where id = $1`, idOf(url), status)
		hidden = append(hidden, url)
	}
	url := u.create(5)
	s.exec(t, `update uploads set status = 'failed', failure_reason = 'infected' where id = $1`, idOf(url))
	for _, url := range append(hidden, url) {
		eva.wantGone(url)
	}
	done := u.create(5)
	u.patch(done, 0, strings.NewReader("hello")).want(t, 204, "")
	s.exec(t, `update uploads set status = 'completed', completed_at = now() where id = $1`, idOf(done))
	eva.do("GET", done, nil).want(t, 200, "")
	eva.do("GET", done+"/timeline", nil).want(t, 200, "")
	stack.Want(t, eva.listed(""), idsOf(done), "list")
	if got := eva.listed("?status=failed"); len(got) > 0 {
		t.Errorf("the list of what failed has %q", got)
	}
	for _, url := range []string{done, hidden[0], u.uploads + "/" + uuid.NewString()} {
		eva.do("HEAD", url, nil).want(t, 403, "")
		eva.patch(url, 0, strings.NewReader("x")).want(t, 403, "forbidden")
		eva.do("DELETE", url, nil).want(t, 403, "forbidden")
	}
	eva.do("POST", u.uploads, nil, "Upload-Length", "5").want(t, 403, "forbidden")

	narrow := s.like(t, eva, func(id *tenant.Identity) { id.Projects = []string{"torre"} })
	narrow.do("GET", done, nil).want(t, 404, "not-found")
	if got := narrow.listed(""); len(got) > 0 {
		t.Errorf("narrowed as well, the list has %q", got)
	}
}

// A crew member sees the uploads of others, and can neither write nor cancel them nor ask for their offset, which would
// interrupt the running PATCH: it continues on the same connection. A manager can.
func TestAccessOfOwnersAndManagers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	pedro := s.like(t, u, func(id *tenant.Identity) { id.User = "pedro" })
	data := noise(4096)
	url := u.create(len(data))
	slow := u.sendSlowly(t, url, data)
	for range 3 {
		pedro.do("HEAD", url, nil).want(t, 403, "")
		pedro.patch(url, 8, strings.NewReader("x")).want(t, 403, "not-yours")
		pedro.do("DELETE", url, nil).want(t, 403, "not-yours")
		pedro.do("POST", u.uploads, nil, "Upload-Concat", "final;"+url).want(t, 403, "not-yours")
		pedro.do("HEAD", url, nil, "Tus-Resumable", "", "Upload-Draft-Interop-Version", "6").want(t, 403, "")
		pedro.do("GET", url, nil).want(t, 200, "")
		pedro.do("GET", url+"/timeline", nil).want(t, 200, "")
		slow.send(t, 1)
	}
	slow.finish(t, u)

	url = u.create(len(data))
	slow = u.sendSlowly(t, url, data)
	marta := u.as(s, "marta", tenant.Constructora)
	if marta.offset(url) < 8 { // a HEAD takes the upload over
		t.Error("the manager is told of less than what had arrived")
	}
	if a := stack.Receive(t, "answer to the interrupted PATCH", slow.over); a.status == 204 {
		t.Errorf("the interrupted PATCH is answered with %d", a.status)
	}
	at := marta.offset(url)
	marta.patch(url, at, reader(data[at:])).want(t, 204, "")
	wantWhole(t, u, url, data)
	other := u.create(5)
	marta.do("DELETE", other, nil).want(t, 204, "")
	stack.Want(t, u.upload(other).Status, "cancelled", "status")
}
