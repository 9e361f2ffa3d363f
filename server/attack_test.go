package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
)

// A victim is what somebody has that others must not learn of, by kind: ids, names, cursors. What an attack says of it
// comes from here, so that the same attack can be made on what never was.
type victim map[string]string

// phantom has, of each kind, something that looks alike and never was.
func (v victim) phantom() victim {
	p := victim{}
	for kind, s := range v {
		if _, err := uuid.Parse(s); err == nil {
			p[kind] = uuid.NewString()
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

// An attack is a request that names what is a victim's.
type attack struct {
	route string // that it takes, as the router has it
	name  string
	send  func(u user, v victim) *http.Request
}

// attacks are tried on every route. Whoever adds a route adds what can be tried there: a test looks whether any is left
// out. What they name is made in [newVictim].
var attacks = slices.Concat(attacksOnUploads, attacksOnAudit, attacksOnWebhooks)

// simply is an attack that is a method and a path, with {kinds} of the victim's in it, and headers likewise.
func simply(route, path string, headers ...string) attack {
	method, _, _ := strings.Cut(route, " ")
	return attack{route, path + " " + strings.Join(headers, " "), func(u user, v victim) *http.Request {
		var filled []string
		for _, h := range headers {
			filled = append(filled, v.fill(h))
		}
		base := strings.TrimSuffix(u.uploads, "/api/uploads")
		var body io.Reader
		if method == http.MethodPatch || method == http.MethodPost {
			body = strings.NewReader("hello")
		}
		return u.request(method, base+v.fill(path), body, filled...)
	}}
}

func (v victim) fill(s string) string {
	for kind, value := range v {
		s = strings.ReplaceAll(s, "{"+kind+"}", value)
	}
	return s
}

// naming is a creation whose metadata names what is the victim's.
func naming(key, kind string) attack {
	return attack{"POST /api/uploads", "metadata " + key, func(u user, v victim) *http.Request {
		pairs := []string{"filename", "mine.jpg", key, v[kind]}
		return u.request("POST", u.uploads, nil, "Upload-Length", "5", "Upload-Metadata", metadata(pairs...))
	}}
}

var attacksOnUploads = []attack{
	simply("GET /api/uploads", "/api/uploads"),
	simply("GET /api/uploads", "/api/uploads?cursor={upload}"),
	simply("GET /api/uploads", "/api/uploads?cursor={whole}&limit=1"),
	simply("GET /api/uploads", "/api/uploads?batch={batch}"),
	simply("GET /api/uploads", "/api/uploads?project={project}"),
	simply("GET /api/uploads", "/api/uploads?project={project}&batch={batch}&status=completed"),
	simply("GET /api/uploads/:id", "/api/uploads/{upload}"),
	simply("GET /api/uploads/:id", "/api/uploads/{whole}"),
	simply("GET /api/uploads/:id", "/api/uploads/{partial}"),
	simply("GET /api/uploads/:id", "/api/uploads/{upload}", "If-None-Match", "*"),
	simply("GET /api/uploads/:id/timeline", "/api/uploads/{upload}/timeline"),
	simply("GET /api/uploads/:id/timeline", "/api/uploads/{whole}/timeline?cursor=1&limit=1"),
	simply("GET /api/uploads/:id/receipt", "/api/uploads/{upload}/receipt"),
	simply("GET /api/uploads/:id/receipt", "/api/uploads/{whole}/receipt"),

	simply("GET /api/uploads/:id/content", "/api/uploads/{whole}/content"),
	simply("HEAD /api/uploads/:id/content", "/api/uploads/{whole}/content"),
	simply("GET /api/uploads/:id/thumbnails/:size", "/api/uploads/{whole}/thumbnails/160"),
	simply("HEAD /api/uploads/:id/thumbnails/:size", "/api/uploads/{whole}/thumbnails/160"),
	simply("HEAD /api/uploads/:id", "/api/uploads/{upload}"),
	simply("HEAD /api/uploads/:id", "/api/uploads/{whole}"),
	simply("HEAD /api/uploads/:id", "/api/uploads/{upload}", "Tus-Resumable", "", "Upload-Draft-Interop-Version", "6"),
	simply("HEAD /api/uploads/:id", "/api/uploads/{upload}", "Tus-Resumable", "0.2.2"),
	simply("PATCH /api/uploads/:id", "/api/uploads/{upload}", "Upload-Offset", "0", "Content-Type", octets),
	simply("PATCH /api/uploads/:id", "/api/uploads/{upload}", "Upload-Offset", "7", "Content-Type", octets),
	simply("PATCH /api/uploads/:id", "/api/uploads/{upload}", "Upload-Offset", "0", "Content-Type", octets, "Upload-Checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="),
	simply("PATCH /api/uploads/:id", "/api/uploads/{upload}", "Upload-Offset", "0", "Content-Type", octets, "Upload-Length", "5"),
	simply("PATCH /api/uploads/:id", "/api/uploads/{whole}", "Upload-Offset", "10", "Content-Type", octets),
	simply("PATCH /api/uploads/:id", "/api/uploads/{upload}", "Tus-Resumable", "", "Upload-Draft-Interop-Version", "6",
		"Upload-Offset", "0", "Upload-Complete", "?0", "Content-Type", "application/partial-upload"),
	simply("DELETE /api/uploads/:id", "/api/uploads/{upload}"),
	simply("DELETE /api/uploads/:id", "/api/uploads/{whole}"),
	simply("DELETE /api/uploads/:id", "/api/uploads/{partial}"),
	simply("DELETE /api/uploads/:id", "/api/uploads/{upload}", "Tus-Resumable", "", "Upload-Draft-Interop-Version", "6"),
	simply("POST /api/uploads/:id", "/api/uploads/{upload}", "Upload-Length", "5"),
	simply("POST /api/uploads/:id", "/api/uploads/{upload}", "X-HTTP-Method-Override", "HEAD"),
	simply("POST /api/uploads/:id", "/api/uploads/{upload}", "X-HTTP-Method-Override", "DELETE"),
	simply("POST /api/uploads/:id", "/api/uploads/{whole}", "X-HTTP-Method-Override", "GET"),

	naming("client_id", "client"),
	naming("batch", "batch"),
	naming("project", "project"),
	naming("sha256", "sha256"),
	simply("POST /api/uploads", "/api/uploads", "Upload-Length", "5", "Content-Type", octets),
	concatOf("{partial}"),
	concatOf("{upload}"),
	concatOf("{whole}"),
	concatOf("{partial} {partial}"),
	concatOf("/api/uploads/{partial}"),
	concatOf("http://elsewhere.example.com/api/uploads/{partial}"),
	{"POST /api/uploads", "concatenation of an own one and the victim's", func(u user, v victim) *http.Request {
		own := "none"
		if u.who.Role.CanUpload() {
			own = u.create(5, "Upload-Concat", "partial", "Upload-Metadata", metadata("project", u.project()))
			u.patch(own, 0, strings.NewReader("hello")).want(u.t, 204, "")
		}
		return u.request("POST", u.uploads, nil, "Upload-Concat", "final;"+own+" "+v["partial"])
	}},
}

func concatOf(list string) attack {
	a := simply("POST /api/uploads", "/api/uploads", "Upload-Concat", "final;"+list)
	a.name = "concatenation of " + list
	return a
}

var attacksOnAudit = []attack{
	simply("GET /api/audit", "/api/audit?subject={upload}"),
	simply("GET /api/audit", "/api/audit?actor={user}"),
	simply("GET /api/audit", "/api/audit?cursor={seq}"),
}

var attacksOnWebhooks = []attack{
	simply("GET /api/webhooks", "/api/webhooks"),
	withJSON("POST /api/webhooks", "/api/webhooks", `{"id":"{endpoint}"}`),
	simply("GET /api/webhooks/:id", "/api/webhooks/{endpoint}"),
	withJSON("PATCH /api/webhooks/:id", "/api/webhooks/{endpoint}", `{"enabled":false}`),
	simply("DELETE /api/webhooks/:id", "/api/webhooks/{endpoint}"),
	withJSON("POST /api/webhooks/:id/rotate", "/api/webhooks/{endpoint}/rotate", ``),
	withJSON("POST /api/webhooks/:id/test", "/api/webhooks/{endpoint}/test", ``),
	simply("GET /api/webhooks/:id/deliveries", "/api/webhooks/{endpoint}/deliveries"),
	simply("GET /api/webhooks/:id/deliveries", "/api/webhooks/{endpoint}/deliveries?cursor={delivery}"),
	withJSON("POST /api/webhooks/:id/deliveries/replay", "/api/webhooks/{endpoint}/deliveries/replay", ``),
	withJSON("POST /api/webhooks/:id/deliveries/:delivery/replay", "/api/webhooks/{endpoint}/deliveries/{delivery}/replay", ``),
}

// withJSON is an attack with a body.
func withJSON(route, path, body string) attack {
	return attack{route, path + " " + body, func(u user, v victim) *http.Request {
		method, _, _ := strings.Cut(route, " ")
		base := strings.TrimSuffix(u.uploads, "/api/uploads")
		return u.request(method, base+v.fill(path), strings.NewReader(v.fill(body)), "Content-Type", "application/json")
	}}
}

// unarmed are the routes that name nothing of anybody's.
var unarmed = map[string]string{
	"/api":                   "no such resource",
	"/api/*":                 "no such resource",
	"/api/uploads/":          "the collection, as without the slash",
	"/*":                     "the page, for everyone",
	"/problems":              "documentation, for everyone",
	"/problems/":             "documentation, for everyone",
	"/problems/:name":        "documentation, for everyone",
	"/.well-known/jwks.json": "public keys, for everyone",
	"/openapi.yaml":          "documentation, for everyone",
	"/openapi.json":          "documentation, for everyone",
	"/docs":                  "documentation, for everyone",
}

// collections take only POST and GET; tus's other methods have no resource there.
var collections = []string{"PATCH /api/uploads", "HEAD /api/uploads", "DELETE /api/uploads"}

// A route that nobody attacks fails this test.
func TestEveryRouteIsAttacked(t *testing.T) {
	t.Parallel()
	for _, route := range newSite(t).server.Routes() {
		method, path, _ := strings.Cut(route, " ")
		if _, ok := unarmed[path]; ok || method == http.MethodOptions || slices.Contains(collections, route) {
			continue
		}
		if !slices.ContainsFunc(attacks, func(a attack) bool { return a.route == route }) {
			t.Errorf("nobody attacks %s: add what can be tried there to attacks", route)
		}
	}
}

// project is one that the user has.
func (u user) project() string {
	if u.who.Projects != nil {
		return u.who.Projects[0]
	}
	return "default"
}

// A slowUpload is a victim's PATCH that goes on while others try things.
type slowUpload struct {
	url  string
	sent []byte
	rest []byte
	body *io.PipeWriter
	over chan answer
}

// sendSlowly begins a PATCH and returns once the server has something of it.
func (u user) sendSlowly(t *testing.T, url string, data []byte) *slowUpload {
	t.Helper()
	body, client := io.Pipe()
	s := &slowUpload{url: url, rest: data, body: client, over: make(chan answer, 1)}
	r := u.request("PATCH", url, body, "Upload-Offset", "0", "Content-Type", octets)
	r.ContentLength = int64(len(data))
	go func() {
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			s.over <- answer{body: []byte(err.Error())}
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		s.over <- answer{res.StatusCode, res.Header, b}
	}()
	s.send(t, 8)
	eventually(t, "the victim's first bytes", func() bool { return u.upload(url).Offset > 0 })
	return s
}

// send sends n bytes more on the same connection.
func (s *slowUpload) send(t *testing.T, n int) {
	t.Helper()
	if _, err := s.body.Write(s.rest[:n]); err != nil {
		t.Fatalf("the victim's connection: %v, after %d bytes", err, len(s.sent))
	}
	s.sent, s.rest = append(s.sent, s.rest[:n]...), s.rest[n:]
}

// finish sends what is left and wants the request, the same all the time, to have gone well.
func (s *slowUpload) finish(t *testing.T, u user) {
	t.Helper()
	s.send(t, len(s.rest))
	must(t, s.body.Close())
	a := <-s.over
	a.want(t, 204, "")
	wantWhole(t, u, s.url, s.sent)
}

// newVictim is somebody with one of each kind: an upload that is being written, one that is complete, with a picture, a
// partial one, names, and an audit log.
func (s *site) newVictim(t *testing.T) (u user, v victim, slow *slowUpload) {
	t.Helper()
	u = s.user
	v = victim{"project": "obra-secreta", "batch": "lote-secreto", "client": "cliente-secreto", "user": "usuario-secreto"}
	u = s.like(t, u, func(id *tenant.Identity) { id.User = v["user"] })
	sha := sha256.Sum256([]byte("completo!!"))
	v["sha256"] = hex.EncodeToString(sha[:])
	about := metadata("filename", "secreto.txt", "project", v["project"], "batch", v["batch"], "client_id", v["client"])
	data := noise(4096)
	upload := u.create(len(data), "Upload-Metadata", about)
	whole := u.create(10, "Upload-Metadata", metadata("filename", "secreto.txt", "project", v["project"], "sha256", v["sha256"]))
	u.patch(whole, 0, strings.NewReader("completo!!")).want(t, 204, "")
	s.completeAt(t, u, whole, v["project"])
	partial := u.create(5, "Upload-Concat", "partial", "Upload-Metadata", metadata("project", v["project"]))
	u.patch(partial, 0, strings.NewReader("trozo")).want(t, 204, "")
	v["upload"], v["whole"], v["partial"] = idOf(upload).String(), idOf(whole).String(), idOf(partial).String()
	s.like(t, u, func(id *tenant.Identity) { id.User = "pedro" }).do("DELETE", upload, nil).want(t, 403, "not-yours")
	s.addWebhook(t, u, v)
	var seq int64
	must(t, s.admin.QueryRow(t.Context(), `select max(seq) from audit where tenant_id = $1`, u.who.Tenant).Scan(&seq))
	v["seq"] = fmt.Sprint(seq + 1)
	return u, v, u.sendSlowly(t, upload, data)
}

// addWebhook gives the victim an endpoint and a delivery.
func (s *site) addWebhook(t *testing.T, u user, v victim) {
	t.Helper()
	marta := s.marta(t, u)
	at := s.url + "/api/webhooks"
	var endpoint struct{ ID string }
	a := marta.do("POST", at, strings.NewReader(`{"url":"https://93.184.215.14/secreto.txt"}`), "Content-Type", "application/json")
	a.want(t, 201, "")
	must(t, json.Unmarshal(a.body, &endpoint))
	if a := marta.do("POST", at+"/"+endpoint.ID+"/test", nil); a.status >= 300 {
		t.Fatalf("no delivery: %d %s", a.status, a.body)
	}
	v["endpoint"] = endpoint.ID
	var delivery string
	must(t, s.admin.QueryRow(t.Context(), `select id::text from webhook_deliveries where endpoint_id = $1`, endpoint.ID).Scan(&delivery))
	v["delivery"] = delivery
}

// completeAt does what the workers would.
func (s *site) completeAt(t *testing.T, u user, url, project string) {
	t.Helper()
	key := object.Keys{Tenant: u.who.Tenant, Project: project, Upload: idOf(url)}.Thumbnail(160)
	s.exec(t, `update uploads set status = 'completed', completed_at = now() where id = $1`, idOf(url))
	s.exec(t, `insert into derivatives values ($1, $2, 160, 10, 10, 10, 'image/webp', $3)`, u.who.Tenant, idOf(url), key)
}

var (
	anyID   = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	anyTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)
	anyDate = regexp.MustCompile(`\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT`)
	anySeq  = regexp.MustCompile(`"(seq)":\d+`)
)

// normal is an answer as text, without what differs between any two requests, and with the victim's things by kind.
func (v victim) normal(a answer) string {
	var b strings.Builder
	fmt.Fprintln(&b, a.status)
	for _, name := range slices.Sorted(maps.Keys(a.header)) {
		if !slices.Contains([]string{"Date", "X-Request-Id", "Traceresponse"}, name) && !strings.HasPrefix(name, "Ratelimit") {
			fmt.Fprintln(&b, name, a.header[name])
		}
	}
	b.Write(a.body)
	text := b.String()
	for kind, s := range v {
		if len(s) > 7 { // shorter ones are in everything
			text = strings.ReplaceAll(text, s, "<"+kind+">")
		}
	}
	text = anyTime.ReplaceAllString(anyID.ReplaceAllString(text, "<id>"), "<time>")
	// Fractions of seconds have no fixed length.
	text = regexp.MustCompile(`Content-Length \[\d+\]`).ReplaceAllString(text, "Content-Length")
	return anySeq.ReplaceAllString(anyDate.ReplaceAllString(text, "<date>"), `"$1":0`)
}

// attackers are those to whom nothing of the victim's exists: each role of another tenant, and, inside the victim's own,
// who is narrowed to another project. inside leaves the latter out.
func (s *site) attackers(t *testing.T, u user, inside bool) map[string]func() user {
	t.Helper()
	all := map[string]func() user{}
	for _, role := range []tenant.Role{tenant.Empleado, tenant.Constructora, tenant.Inversionista, tenant.Admin} {
		as := func(id *tenant.Identity) { id.User, id.Role = u.who.User, role } // even the user's name is the victim's
		all["another tenant's "+string(role)] = func() user { return s.like(t, s.newTenant(t), as) }
		if inside {
			all["narrowed "+string(role)] = func() user {
				return s.like(t, u, func(id *tenant.Identity) {
					id.User, id.Role, id.Projects = uuid.NewString(), role, []string{"otra-obra"}
				})
			}
		}
	}
	return all
}

// Whatever is tried on what is somebody else's, on whichever route: the answer is, byte for byte, the one for what never
// existed, and tells nothing of the victim's. The victim's upload, which is being written all the time, ends well in the
// request that began it, and no row of the victim's has changed.
func TestAttacks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.attack(t, true)
}

// The same with row-level security taken away: the tenant that every statement names holds alone. (That row-level
// security holds alone, [TestForgottenTenant] in package storage shows.)
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
			never := v.phantom()
			want := never.normal(newAttacker().try(a, never))
			answer := newAttacker().try(a, v)
			if got := v.normal(answer); got != want {
				t.Errorf("%s, %s %s: the victim's is told from what never was:\n%s\nand\n%s", name, a.route, a.name, got, want)
			}
			for _, secret := range []string{"secreto.txt", "usuario-secreto", "completo!!", "trozo"} {
				if bytes.Contains(answer.body, []byte(secret)) && !strings.Contains(a.name, "{user}") {
					t.Errorf("%s, %s %s: tells of %s: %s", name, a.route, a.name, secret, answer.body)
				}
			}
		}
	}
	if after := s.rowsOf(t, u); after != before {
		t.Errorf("the victim's rows changed from\n%s\nto\n%s", before, after)
	}
	slow.finish(t, u)
}

func (u user) try(a attack, v victim) answer {
	u.t.Helper()
	return u.send(a.send(u, v))
}

// rowsOf is what the victim's rows say, but for those that its own upload moves on.
func (s *site) rowsOf(t *testing.T, u user) string {
	t.Helper()
	var text string
	must(t, s.admin.QueryRow(t.Context(), `
		with mine as (select * from uploads where tenant_id = $1 and user_id = $2)
		select string_agg(line, e'\n' order by line) from (
			select concat_ws(' ', 'upload', id, status, size, batch, project, object_key, failure_reason) from mine
			union all select concat_ws(' ', 'timeline', id, event) from timeline t join mine on id = upload_id where event not in ('part', 'checkpoint', 'tail')
			union all select concat_ws(' ', 'derivative', id, d.object_key) from derivatives d join mine on id = upload_id
			union all select concat_ws(' ', 'lock', id, fence, waiter) from upload_locks join mine on id = upload_id
			union all select concat_ws(' ', 'audit', actor, action) from audit where tenant_id = $1 and actor = $2
		) x (line)`, u.who.Tenant, u.who.User).Scan(&text))
	return text
}

// A row that says what it must not, a neighbour's key, links nothing: the key has to be the upload's own.
func TestWrongRowLinksNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, v, slow := s.newVictim(t)
	thief := s.newTenant(t)
	url := thief.create(10)
	thief.patch(url, 0, strings.NewReader("0123456789")).want(t, 204, "")
	s.completeAt(t, thief, url, "default")
	a := thief.do("GET", url, nil)
	a.want(t, 200, "")
	if !strings.Contains(string(a.body), "thumbnails/160.webp") {
		t.Fatalf("its own picture is not linked: %s", a.body)
	}
	s.exec(t, `update derivatives set object_key = (select object_key from derivatives where upload_id = $2) where upload_id = $1`, idOf(url), v["whole"])
	for _, path := range []string{url, thief.uploads} {
		a := thief.do("GET", path, nil)
		a.want(t, 500, "internal")
		if strings.Contains(string(a.body), v["whole"]) {
			t.Errorf("and yet it tells %s", a.body)
		}
	}
	slow.finish(t, s.like(t, s.user, func(id *tenant.Identity) { id.User = v["user"] }))
}
