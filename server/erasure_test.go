package server_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// someTags are those of each file that complete has processed.
var someTags = storage.Tags{Tags: []byte(`{"GPS": {"GPSLatitude": 34.6}, "IFD0": {"Make": "Probe", "Model": "P1"}}`), Truncated: true}

// complete sends a file and has it processed, with a picture.
func (s *site) complete(t *testing.T, u user, pairs ...string) string {
	t.Helper()
	file := noise(100)
	url := u.create(len(file), "Upload-Metadata", metadata(pairs...))
	u.patch(url, 0, reader(file)).want(t, 204, "")
	id, ctx := idOf(url), tenant.With(t.Context(), u.who)
	stack.Must(t, s.Worker.InTenant(ctx, func(tx storage.Tx) error {
		if err := tx.MarkProcessing(ctx, id, 1); err != nil {
			return err
		}
		return tx.Complete(ctx, id, storage.Results{DetectedType: "image/png", Tags: someTags, Thumbnails: []storage.Thumbnail{
			{Size: 160, WidthPx: 1, HeightPx: 1, Bytes: 1, ContentType: "image/webp", ObjectKey: object.Keys{Tenant: u.who.Tenant, Project: object.DefaultProject, Upload: id}.Thumbnail(160)},
		}})
	}))
	return url
}

type erasureAnswer struct {
	ID       uuid.UUID
	State    string
	Subject  *string
	StartsAt *time.Time `json:"starts_at"`
}

func (a answer) erasure(t *testing.T) (e erasureAnswer) {
	t.Helper()
	stack.Must(t, json.Unmarshal(a.body, &e))
	return e
}

// On every route and method a deleted upload does not exist, until a manager restores it as it was.
func TestDeletedUploadsAreNotFound(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	jefa := s.user.as(s, "jefa", tenant.Constructora)
	url := s.complete(t, s.user, "client_id", "IMG_1", "filename", "a.png")
	s.user.as(s, "ben", tenant.Empleado).do("DELETE", url, nil).want(t, 403, "not-yours")
	s.user.as(s, "inv", tenant.Inversionista).do("DELETE", url, nil).want(t, 403, "forbidden")
	before := s.user.do("GET", url, nil)
	s.user.do("DELETE", url, nil).want(t, 204, "")
	never := s.user.uploads + "/" + uuid.NewString()
	for _, u := range []user{s.user, jefa} {
		for _, try := range []struct{ verb, path string }{
			{"GET", ""}, {"HEAD", ""}, {"PATCH", ""}, {"DELETE", ""}, {"GET", "/timeline"}, {"GET", "/tags"}, {"POST", "/nothing"},
		} {
			headers := []string{"Upload-Offset", "0", "Content-Type", octets, "X-Request-Id", "same"}
			got, want := u.do(try.verb, url+try.path, nil, headers...), u.do(try.verb, never+try.path, nil, headers...)
			if got.status != 404 || want.status != got.status || !bytes.Equal(got.body, want.body) {
				t.Errorf("%s %s: %d %s, but %d %s of what never was", try.verb, try.path, got.status, got.body, want.status, want.body)
			}
		}
	}
	list := func(u user, query string) (items []struct {
		ID        uuid.UUID
		DeletedAt *string `json:"deleted_at"`
		PurgeAt   *string `json:"purge_at"`
		Links     []any   `json:"thumbnails"`
	}) {
		t.Helper()
		page := struct{ Items any }{&items}
		stack.Must(t, json.Unmarshal(u.do("GET", u.uploads+query, nil).want(t, 200, "").body, &page))
		return items
	}
	if items := list(jefa, ""); len(items) != 0 {
		t.Errorf("the list has %v", items)
	}
	s.user.do("GET", s.user.uploads+"?deleted=true", nil).want(t, 403, "forbidden")
	jefa.do("GET", jefa.uploads+"?deleted=perhaps", nil).want(t, 400, "bad-request")
	if items := list(jefa, "?deleted=true"); len(items) != 1 || items[0].ID != idOf(url) || items[0].DeletedAt == nil || items[0].PurgeAt == nil || len(items[0].Links) != 0 {
		t.Errorf("the list of deleted ones has %+v", items)
	}
	s.user.do("POST", url+"/restore", nil).want(t, 403, "forbidden")
	jefa.do("POST", never+"/restore", nil).want(t, 404, "not-found")
	s.newTenant(t).as(s, "z", tenant.Constructora).do("POST", url+"/restore", nil).want(t, 404, "not-found")

	second := s.complete(t, s.user, "client_id", "IMG_1", "filename", "a.png")
	if second == url {
		t.Fatal("the client id still names the deleted upload")
	}
	jefa.do("POST", url+"/restore", nil).want(t, 409, "client-id-taken")
	s.user.do("DELETE", second, nil).want(t, 204, "")
	jefa.do("POST", url+"/restore", nil).want(t, 200, "")
	if after := s.user.do("GET", url, nil); !sameButUpdated(t, before.body, after.body) {
		t.Errorf("it was %s and is %s", before.body, after.body)
	}
}

// sameButUpdated compares two uploads, without when they changed and without links, which are made anew each time.
func sameButUpdated(t *testing.T, a, b []byte) bool {
	t.Helper()
	var both [2]map[string]any
	for i, body := range [][]byte{a, b} {
		stack.Must(t, json.Unmarshal(body, &both[i]))
		maps.DeleteFunc(both[i], func(k string, _ any) bool { return k == "updated_at" || k == "thumbnails" })
	}
	x, _ := json.Marshal(both[0]) // what was just read
	y, _ := json.Marshal(both[1])
	return bytes.Equal(x, y) && len(both[0]) > 10
}

// A failed upload can be deleted, also one whose bytes are gone. A cancelled upload is gone already.
func TestDeleteInEveryState(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	wrong := s.user.create(5, "Upload-Metadata", metadata("sha256", strings.Repeat("0", 64)))
	s.user.patch(wrong, 0, reader(noise(5))).want(t, 422, "checksum-mismatch")
	s.user.do("HEAD", wrong, nil).want(t, 410, "")
	s.user.do("DELETE", wrong, nil).want(t, 204, "")
	s.user.do("HEAD", wrong, nil).want(t, 404, "")
	open := s.user.create(5)
	s.user.do("DELETE", open, nil).want(t, 204, "")
	s.user.do("DELETE", open, nil).want(t, 410, "gone")
	uploaded := s.user.create(5)
	s.user.patch(uploaded, 0, reader(noise(5))).want(t, 204, "")
	s.user.do("DELETE", uploaded, nil).want(t, 204, "")
	s.user.do("GET", uploaded, nil).want(t, 404, "not-found")
}

// The erasure of a tenant needs two admins. Requests with other fields are refused.
func TestErasures(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, nil)
	all := strings.TrimSuffix(s.user.uploads, "/uploads") + "/erasures"
	jefa, one := s.user.as(s, "jefa", tenant.Constructora), s.user.as(s, "one", tenant.Admin)
	for body, status := range map[string]int{
		``: 400, `{}`: 400, `[]`: 400, `{"user_id": "a", "tenant": true}`: 400, `{"user_id": "ana", "now": 1}`: 400, `{"user_id": "ana"} x`: 400, `{"upload_id": "x"}`: 400,
		`{"user_id": "` + strings.Repeat("a", 300) + `"}`: 400, `{"user_id": "` + strings.Repeat("a", 5000) + `"}`: 400, `{"upload_id": "` + uuid.NewString() + `"}`: 404,
		`{"tenant": true}`: 403,
	} {
		if a := jefa.do("POST", all, strings.NewReader(body)); a.status != status {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	s.user.do("POST", all, strings.NewReader(`{"user_id": "ana"}`)).want(t, 403, "forbidden")
	a := one.do("POST", all, strings.NewReader(`{"tenant": true}`)).want(t, 202, "")
	address := all + "/" + a.erasure(t).ID.String()
	a.wantHeader(t, "Location", "/api/erasures/"+a.erasure(t).ID.String())
	one.do("POST", address+"/approve", nil).want(t, 403, "same-admin")
	// Another name in a token of the same company, from the same place, may be the same person's.
	for _, name := range []string{"two", "ONE"} {
		s.user.as(s, name, tenant.Admin).do("POST", address+"/approve", nil).want(t, 403, "same-admin")
	}
	olga, in := s.operator(t), []string{"Tramo-Tenant", s.user.who.Tenant.String()}
	olga.as(s, "One", tenant.Admin).do("POST", address+"/approve", nil, in...).want(t, 403, "same-admin")
	jefa.do("POST", address+"/approve", nil).want(t, 403, "forbidden")
	stranger := s.newTenant(t).as(s, "three", tenant.Admin)
	for _, path := range []string{"", "/approve", "/cancel"} {
		verb := map[bool]string{true: "GET", false: "POST"}[path == ""]
		stranger.do(verb, address+path, nil).want(t, 404, "not-found")
	}
	s.user.create(5)
	a = olga.do("POST", address+"/approve", nil, in...).want(t, 202, "")
	if e := a.erasure(t); e.State != "running" || e.Subject != nil {
		t.Errorf("got %+v", e)
	}
	stack.Until(t, "nothing in the tenant can be changed", func() bool { return olga.do("POST", address+"/cancel", nil, in...).status == 403 })
	olga.do("POST", address+"/cancel", nil, in...).want(t, 403, "no-tenant")
	s.user.do("POST", s.user.uploads, nil, "Upload-Length", "5").want(t, 403, "no-tenant")
	list := readAs[struct {
		Items []erasureAnswer
		Next  *string
	}](t, jefa.do("GET", all, nil), 200)
	if len(list.Items) != 1 || list.Next != nil {
		t.Errorf("got %+v", list)
	}
}

// The erasure of a user says when it starts. Any manager of the company cancels it until then, and nobody else; one that was
// cancelled stays so.
func TestErasureIsCancelled(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(_ *server.Config, p *server.Parts) { p.Erasures.Delay = time.Hour })
	s.live(t, nil)
	url := s.complete(t, s.user)
	all := strings.TrimSuffix(s.user.uploads, "/uploads") + "/erasures"
	jefa, jefe := s.user.as(s, "jefa", tenant.Constructora), s.user.as(s, "jefe", tenant.Constructora)
	a := jefa.do("POST", all, strings.NewReader(`{"user_id": "ana"}`)).want(t, 202, "")
	e := a.erasure(t)
	if e.State != "scheduled" || e.StartsAt == nil || e.StartsAt.Before(time.Now().Add(50*time.Minute)) {
		t.Errorf("requested: %s", a.body)
	}
	address := all + "/" + e.ID.String()
	s.user.do("POST", address+"/cancel", nil).want(t, 403, "forbidden")
	s.newTenant(t).as(s, "jefa", tenant.Constructora).do("POST", address+"/cancel", nil).want(t, 404, "not-found")
	jefa.do("POST", address+"/approve", nil).want(t, 409, "erasure-state")
	s.user.do("GET", url, nil).want(t, 200, "")
	if e := jefe.do("POST", address+"/cancel", nil).want(t, 200, "").erasure(t); e.State != "cancelled" || e.StartsAt == nil {
		t.Errorf("cancelled: %+v", e)
	}
	jefe.do("POST", address+"/cancel", nil).want(t, 409, "erasure-state")
	if e := jefa.do("GET", address, nil).want(t, 200, "").erasure(t); e.State != "cancelled" {
		t.Errorf("afterwards: %+v", e)
	}
}

type exportedLine struct {
	Type  string
	Row   map[string]any
	Links *struct {
		Original   string
		Thumbnails map[string]string
	}
	Counts map[string]int
}

// lines reads an export to its end.
func lines(t *testing.T, body []byte) (all []exportedLine) {
	t.Helper()
	for d := json.NewDecoder(bytes.NewReader(body)); ; {
		var l exportedLine
		err := d.Decode(&l)
		if err == io.EOF {
			return all
		}
		stack.Must(t, err)
		all = append(all, l)
	}
}

// An export has every upload once, over many pages, with its data, and links for completed uploads that are not deleted. The
// last line has the counts. The export of another tenant does not exist.
func TestExport(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	jefa := s.user.as(s, "jefa", tenant.Constructora)
	address := func(u user) string {
		return strings.TrimSuffix(s.user.uploads, "/uploads") + "/tenants/" + u.who.Tenant.String() + "/export"
	}
	clean, open := s.complete(t, s.user, "filename", "a.png"), s.user.create(5)
	deleted := s.complete(t, s.user, "filename", "b.png")
	s.user.do("DELETE", deleted, nil).want(t, 204, "")
	const more = 250 // of several pages
	s.exec(t, `with new as (insert into uploads (tenant_id, id, user_id, project, metadata, size, charged_bytes)
		select $1, gen_random_uuid(), 'ana', 'default', '{}', 1, 1 from generate_series(1, $2) returning tenant_id, id)
		insert into contents (tenant_id, upload_id) select tenant_id, id from new`, jefa.who.Tenant, more)
	stranger := s.newTenant(t)
	s.complete(t, stranger, "filename", "secret.png")

	a := jefa.do("GET", address(jefa), nil).want(t, 200, "")
	a.wantHeader(t, "Content-Type", "application/x-ndjson")
	seen, links := map[string]bool{}, map[string]bool{}
	all := lines(t, a.body)
	for _, l := range all {
		if l.Type != "upload" {
			continue
		}
		id, _ := l.Row["id"].(string)
		if seen[id] {
			t.Errorf("%s is there twice", id)
		}
		seen[id] = true
		links[id] = l.Links != nil
		if id == idOf(clean).String() {
			if l.Row["filename"] != "a.png" || len(l.Row["timeline"].([]any)) < 3 || len(l.Row["thumbnails"].([]any)) != 1 || l.Row["received"] != 100.0 ||
				fmt.Sprint(l.Row["tags"]) != "map[tags:map[GPS:map[GPSLatitude:34.6] IFD0:map[Make:Probe Model:P1]] truncated:true]" {
				t.Errorf("the upload is %v", l.Row)
			}
			checkLinks(t, l)
		}
	}
	if len(seen) != more+3 || !seen[idOf(open).String()] || !links[idOf(clean).String()] || links[idOf(deleted).String()] || links[idOf(open).String()] {
		t.Errorf("%d uploads; links to the clean one %t, the deleted one %t", len(seen), links[idOf(clean).String()], links[idOf(deleted).String()])
	}
	first, last := all[0], all[len(all)-1]
	if first.Type != "export" || last.Type != "end" || last.Counts["upload"] != len(seen) || last.Counts["audit"] == 0 || last.Counts["tenant"] != 1 {
		t.Errorf("it begins with %+v and ends with %+v", first, last)
	}
	if bytes.Contains(a.body, []byte(stranger.who.Tenant.String())) {
		t.Error("another tenant is in it")
	}

	s.user.do("GET", address(jefa), nil).want(t, 403, "forbidden")
	got := jefa.do("GET", address(stranger), nil, "X-Request-Id", "same")
	want := jefa.do("GET", s.url+"/api/tenants/"+uuid.NewString()+"/export", nil, "X-Request-Id", "same")
	if got.status != 404 || got.status != want.status || !bytes.Equal(got.body, want.body) {
		t.Errorf("another's export: %d %s; nobody's: %d %s", got.status, got.body, want.status, want.body)
	}
	admin := s.newTenant(t).as(s, "op", tenant.Admin)
	admin.do("GET", address(stranger), nil).want(t, 200, "")
	s.exec(t, `update audit set seq = default where tenant_id = $1 and action = 'tenant.export' and actor = 'op' and home_tenant = $2`,
		stranger.who.Tenant, admin.who.Tenant)
}

func checkLinks(t *testing.T, l exportedLine) {
	t.Helper()
	for _, link := range []string{l.Links.Original, l.Links.Thumbnails["160"]} {
		u, err := url.Parse(link)
		stack.Must(t, err)
		stack.Want(t, u.Query().Get("X-Amz-Expires"), "86400", "seconds that the link %s works", link)
	}
	res, err := client.Get(l.Links.Original)
	stack.Must(t, err)
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 || len(b) != 100 {
		t.Errorf("the link answers %d with %d bytes (%v)", res.StatusCode, len(b), err)
	}
}

// When an export fails, the connection is cut and the last line is missing. A slow or disconnected reader holds no
// transaction.
func TestExportInterrupted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	jefa := s.user.as(s, "jefa", tenant.Constructora)
	s.exec(t, `with new as (insert into uploads (tenant_id, id, user_id, project, filename, metadata, size, charged_bytes)
		select $1, gen_random_uuid(), 'ana', 'default', repeat('x', 250), jsonb_build_object('note', repeat('y', 8000)), 1, 1
		from generate_series(1, 3000) returning tenant_id, id)
		insert into contents (tenant_id, upload_id) select tenant_id, id from new`, jefa.who.Tenant)
	address := s.url + "/api/tenants/" + jefa.who.Tenant.String() + "/export"
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	stack.Must(t, err)
	defer conn.Close()
	stack.Must(t, jefa.request("GET", address, nil).Write(conn))
	in := bufio.NewReaderSize(conn, 4096)
	res, err := http.ReadResponse(in, nil)
	stack.Must(t, err)
	defer res.Body.Close()
	_, err = io.ReadFull(res.Body, make([]byte, 1000)) // the export has begun, and 24 MB do not fit into the buffers between
	stack.Must(t, err)
	stack.Until(t, "no transaction waits for the reader", func() bool { // a transaction that reads a page is idle between its statements
		return s.count(t, `select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'`) == 0
	})
	s.exec(t, `alter table erasures rename to erasures_gone; update tenants set name = name`)
	rest, err := io.ReadAll(res.Body)
	if err == nil || bytes.Contains(rest, []byte(`{"type":"end"`)) {
		t.Errorf("it ended with %v and %q", err, rest[max(0, len(rest)-200):])
	}
}
