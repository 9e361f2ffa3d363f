package server_test

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// attacks has attacks on every route; a test fails for a route without one. [newVictim] makes what they name.
var attacks = slices.Concat(attacksOnUploads, attacksByForm, attacksOnDeleted, attacksOnBatches, attacksOnErasures, attacksOnQuarantine, attacksOnTenants,
	attacksOnAudit, attacksOnDeadLetters, attacksOnWebhooks, attacksOnEvents)

// simply is an attack by a method, a path and headers, with {kinds} of the victim's things in them.
func simply(route, path string, headers ...string) attack {
	method, _, _ := strings.Cut(route, " ")
	body := ""
	if method == http.MethodPatch || method == http.MethodPost {
		body = "hello"
	}
	return with(body, route, path, headers...)
}

// with is simply with a body, filled in the same way.
func with(body, route, path string, headers ...string) attack {
	method, _, _ := strings.Cut(route, " ")
	name := strings.Join(append([]string{path, body}, headers...), " ")
	return attack{route: route, name: name, send: func(u user, v victim) *http.Request {
		var filled []string
		for _, h := range headers {
			filled = append(filled, v.fill(h))
		}
		var r io.Reader
		if body != "" {
			r = strings.NewReader(v.fill(body))
		}
		return u.request(method, u.base()+v.fill(path), r, filled...)
	}}
}

// withJSON is with a JSON body.
func withJSON(route, path, body string, headers ...string) attack {
	return with(body, route, path, append([]string{"Content-Type", "application/json"}, headers...)...)
}

// naming is a creation with metadata that names the victim's things; {own} is a project of the attacker.
func naming(pairs ...string) attack {
	return attack{route: "POST /api/uploads", name: "metadata " + strings.Join(pairs, " "), send: func(u user, v victim) *http.Request {
		filled := []string{"filename", "mine.txt"}
		for _, p := range pairs {
			filled = append(filled, strings.ReplaceAll(v.fill(p), "{own}", u.project()))
		}
		return u.request("POST", u.uploads, nil, "Upload-Length", "5", "Upload-Metadata", metadata(filled...))
	}}
}

// byForm is the same by a form.
func byForm(pairs ...string) attack {
	return attack{route: "POST /api/uploads", name: "form " + strings.Join(pairs, " "), send: func(u user, v victim) *http.Request {
		var body strings.Builder
		for i := 0; i < len(pairs); i += 2 {
			body.WriteString(field(pairs[i], strings.ReplaceAll(v.fill(pairs[i+1]), "{own}", u.project())))
		}
		body.WriteString(field(`file; filename="mine.txt"`, "hello", "Content-Type: text/plain") + formEnd)
		return u.request("POST", u.uploads, strings.NewReader(body.String()), "Tus-Resumable", "", "Content-Type", formOf)
	}}
}

const formOf = "multipart/form-data; boundary=" + boundary

var attacksOnUploads = []attack{
	simply("GET /api/uploads", "/api/uploads"),
	simply("GET /api/uploads", "/api/uploads?cursor={upload}"),
	simply("GET /api/uploads", "/api/uploads?cursor={whole}&limit=1"),
	simply("GET /api/uploads", "/api/uploads?batch={batch}"),
	simply("GET /api/uploads", "/api/uploads?project={project}"),
	simply("GET /api/uploads", "/api/uploads?project={project}&batch={batch}&status=completed"),
	simply("GET /api/uploads", "/api/uploads?near={near}"),
	simply("GET /api/uploads", "/api/uploads?near=-12.05,-77.04,100000"),
	simply("GET /api/uploads", "/api/uploads?taken={taken}"),
	simply("GET /api/uploads", "/api/uploads?taken=2026-11-20..2026-11-20"),
	simply("GET /api/uploads", "/api/uploads?near={near}&taken={taken}&project={project}&limit=1"),
	simply("GET /api/uploads/:id", "/api/uploads/{upload}"),
	simply("GET /api/uploads/:id", "/api/uploads/{whole}"),
	simply("GET /api/uploads/:id", "/api/uploads/{partial}"),
	simply("GET /api/uploads/:id", "/api/uploads/{upload}", "If-None-Match", "*"),
	simply("GET /api/uploads/:id/timeline", "/api/uploads/{upload}/timeline"),
	simply("GET /api/uploads/:id/timeline", "/api/uploads/{whole}/timeline?cursor=1&limit=1"),
	simply("GET /api/uploads/:id/tags", "/api/uploads/{upload}/tags"),
	simply("GET /api/uploads/:id/tags", "/api/uploads/{whole}/tags"),
	simply("GET /api/uploads/:id/receipt", "/api/uploads/{upload}/receipt"),
	simply("GET /api/uploads/:id/receipt", "/api/uploads/{whole}/receipt"),

	simply("GET /api/uploads/:id/content", "/api/uploads/{whole}/content"),
	simply("HEAD /api/uploads/:id/content", "/api/uploads/{whole}/content"),
	simply("GET /api/uploads/:id/thumbnails/:size", "/api/uploads/{whole}/thumbnails/160"),
	simply("GET /api/uploads/:id/thumbnails/:size", "/api/uploads/{whole}/thumbnails/160?link=AAAA"),
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

	naming("project", "{own}", "client_id", "{client}"),
	naming("project", "{own}", "batch", "{batch}"),
	naming("project", "{project}"),
	naming("project", "{project}", "batch", "{batch}", "client_id", "{client}"),
	naming("project", "{own}", "sha256", "{sha256}"),
	simply("POST /api/uploads", "/api/uploads", "Upload-Length", "5", "Content-Type", octets),
	concatOf("{partial}"),
	concatOf("{upload}"),
	concatOf("{whole}"),
	concatOf("{partial} {partial}"),
	concatOf("/api/uploads/{partial}"),
	concatOf("http://elsewhere.example.com/api/uploads/{partial}"),
	{route: "POST /api/uploads", name: "concatenation of an own one and the victim's", send: func(u user, v victim) *http.Request {
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

var attacksOnDeadLetters = []attack{
	simply("GET /api/admin/dead-letters", "/api/admin/dead-letters"),
	simply("GET /api/admin/dead-letters", "/api/admin/dead-letters?state=all&cursor={letter}"),
	simply("GET /api/admin/dead-letters/:id", "/api/admin/dead-letters/{letter}"),
	simply("GET /api/admin/dead-letters/:id", "/api/admin/dead-letters/{dead}"),
	toStrangers(simply("GET /api/admin/dead-letters/:id", "/api/admin/dead-letters/{letter}", "Tramo-Tenant", "{tenant}")),
	simply("DELETE /api/admin/dead-letters/:id", "/api/admin/dead-letters/{letter}"),
	with("", "POST /api/admin/dead-letters/:id/retry", "/api/admin/dead-letters/{letter}/retry"),
	withJSON("POST /api/admin/dead-letters/retry", "/api/admin/dead-letters/retry", `{"ids":["{letter}"]}`),
	withJSON("POST /api/admin/dead-letters/retry", "/api/admin/dead-letters/retry", `{"all":true}`),
	withJSON("POST /api/admin/dead-letters/retry", "/api/admin/dead-letters/retry", `{"step":"scan"}`),
	with("", "POST /api/uploads/:id/retry", "/api/uploads/{dead}/retry"),
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
	withJSON("POST /api/webhooks/:id/deliveries/replay", "/api/webhooks/{endpoint}/deliveries/replay", `{"since":"2026-01-01T00:00:00Z"}`),
	withJSON("POST /api/webhooks/:id/deliveries/:delivery/replay", "/api/webhooks/{endpoint}/deliveries/{delivery}/replay", ``),
}

// aManifest is one that the victim has sent, under its {key}.
const aManifest = `{"project":"{project}","name":"{batch_name}","client_id":"{batch_client}",` +
	`"uploads":[{"client_id":"{entry}","filename":"secreto.txt","size":5,"type":"text/plain"}]}`

// moreEntries are what it has added to that batch, under its {key_to_add}.
const moreEntries = `{"uploads":[{"client_id":"{entry}-2","filename":"secreto.txt","size":5,"type":"text/plain"}]}`

var attacksByForm = []attack{
	byForm("project", "{own}"),
	byForm("project", "{own}", "client_id", "{client}"),
	byForm("project", "{own}", "client_id", "{entry}"),
	byForm("project", "{own}", "batch", "{batch}"),
	byForm("project", "{own}", "batch", "{batch_id}"),
	byForm("project", "{own}", "batch", "{batch_name}"),
	byForm("project", "{project}", "batch", "{batch_client}", "client_id", "{client}"),
	byForm("project", "{project}", "batch", "{batch_id}"),
	with(field("client_id", "{client}")+field(`file; filename="mine.txt"`, "hello")+formEnd,
		"POST /api/uploads/:id", "/api/uploads/{upload}", "Tus-Resumable", "", "Content-Type", formOf),
}

var attacksOnDeleted = []attack{
	simply("GET /api/uploads", "/api/uploads?deleted=true"),
	simply("GET /api/uploads", "/api/uploads?deleted=true&cursor={deleted}"),
	simply("GET /api/uploads", "/api/uploads?deleted=true&project={project}"),
	simply("GET /api/uploads", "/api/uploads?deleted=true&near={near}"),
	simply("GET /api/uploads/:id", "/api/uploads/{deleted}"),
	simply("GET /api/uploads/:id", "/api/uploads/{deleted}?deleted=true"),
	simply("HEAD /api/uploads/:id", "/api/uploads/{deleted}"),
	simply("DELETE /api/uploads/:id", "/api/uploads/{deleted}"),
	simply("GET /api/uploads/:id/timeline", "/api/uploads/{deleted}/timeline"),
	simply("GET /api/uploads/:id/content", "/api/uploads/{deleted}/content"),
	with("", "POST /api/uploads/:id/restore", "/api/uploads/{deleted}/restore"),
	with("", "POST /api/uploads/:id/restore", "/api/uploads/{whole}/restore"),
	with("", "POST /api/uploads/:id/restore", "/api/uploads/{upload}/restore"),
	with("", "POST /api/uploads/:id/retry", "/api/uploads/{failed}/retry"),
	with("", "POST /api/uploads/:id/retry", "/api/uploads/{whole}/retry"),
	with("", "POST /api/uploads/:id/retry", "/api/uploads/{deleted}/retry"),
	simply("GET /api/uploads", "/api/uploads?status=failed"),
	concatOf("{deleted}"),
}

var attacksOnBatches = []attack{
	simply("GET /api/batches", "/api/batches"),
	simply("GET /api/batches", "/api/batches?cursor={batch_id}"),
	simply("GET /api/batches", "/api/batches?project={project}&state=open&limit=1"),
	simply("GET /api/batches", "/api/batches?project={project}&cursor={batch_id}"),
	simply("GET /api/uploads", "/api/uploads?batch={batch_id}"),
	simply("GET /api/uploads", "/api/uploads?batch={batch_name}"),
	simply("GET /api/uploads", "/api/uploads?batch={batch_client}"),
	simply("GET /api/batches/:id", "/api/batches/{batch_id}"),
	withJSON("PATCH /api/batches/:id", "/api/batches/{batch_id}", `{"name":"mine"}`),
	with("", "POST /api/batches/:id/cancel", "/api/batches/{batch_id}/cancel"),
	with("", "POST /api/batches/:id/retry", "/api/batches/{batch_id}/retry"),
	withJSON("POST /api/batches/:id/uploads", "/api/batches/{batch_id}/uploads", moreEntries),
	withJSON("POST /api/batches/:id/uploads", "/api/batches/{batch_id}/uploads", moreEntries, "Idempotency-Key", "{key_to_add}"),
	withJSON("POST /api/batches/:id/uploads", "/api/batches/{batch_id}/uploads", `{"uploads":[]}`, "Idempotency-Key", "{key_to_add}"),
	withJSON("POST /api/batches", "/api/batches", aManifest),
	withJSON("POST /api/batches", "/api/batches", aManifest, "Idempotency-Key", "{key}"),
	withJSON("POST /api/batches", "/api/batches", aManifest, "Idempotency-Key", "{key_to_add}"),
	inOwn(aManifest),
	inOwn(aManifest, "Idempotency-Key", "{key}"),
	inOwn(`{"project":"{project}","name":"mine","client_id":"{batch_id}","uploads":[{"client_id":"{client}","filename":"mine.txt","size":5}]}`),
	inOwn(`{"project":"{project}","name":"mine","client_id":"{batch}","uploads":[{"client_id":"{entry}","filename":"mine.txt","size":5}]}`),
	naming("project", "{own}", "batch", "{batch_id}"),
	naming("project", "{own}", "batch", "{batch_name}"),
	naming("project", "{own}", "batch", "{batch_client}"),
	naming("project", "{project}", "batch", "{batch_id}"),
	naming("project", "{project}", "batch", "{batch_client}"),
	naming("project", "{own}", "client_id", "{entry}"),
}

// inOwn is a manifest for a project that the attacker has.
func inOwn(manifest string, headers ...string) attack {
	a := withJSON("POST /api/batches", "/api/batches", manifest, headers...)
	a.name += " in its own project"
	send := a.send
	a.send = func(u user, v victim) *http.Request {
		mine := maps.Clone(v)
		mine["project"] = u.project()
		return send(u, mine)
	}
	return a
}

var attacksOnErasures = []attack{
	simply("GET /api/erasures", "/api/erasures"),
	simply("GET /api/erasures", "/api/erasures?cursor={erasure}"),
	simply("GET /api/erasures/:id", "/api/erasures/{erasure}"),
	simply("GET /api/erasures/:id", "/api/erasures/{erasure_of_user}"),
	with("", "POST /api/erasures/:id/approve", "/api/erasures/{erasure}/approve"),
	with("", "POST /api/erasures/:id/cancel", "/api/erasures/{erasure}/cancel"),
	with("", "POST /api/erasures/:id/cancel", "/api/erasures/{erasure_of_user}/cancel"),
	withJSON("POST /api/erasures", "/api/erasures", `{"upload_id":"{upload}"}`),
	withJSON("POST /api/erasures", "/api/erasures", `{"upload_id":"{whole}"}`),
	withJSON("POST /api/erasures", "/api/erasures", `{"upload_id":"{deleted}"}`),
	withJSON("POST /api/erasures", "/api/erasures", `{"user_id":"{user}"}`),
	withJSON("POST /api/erasures", "/api/erasures", `{"tenant":true}`),
}

var attacksOnQuarantine = []attack{
	simply("GET /api/admin/quarantine", "/api/admin/quarantine"),
	simply("GET /api/admin/quarantine", "/api/admin/quarantine?cursor={infected}"),
	simply("GET /api/admin/quarantine", "/api/admin/quarantine?cursor={whole}&limit=1"),
	withJSON("POST /api/admin/quarantine/:id/release", "/api/admin/quarantine/{infected}/release", `{"reason":"secreto"}`),
	withJSON("POST /api/admin/quarantine/:id/release", "/api/admin/quarantine/{whole}/release", `{"reason":"secreto"}`),
	withJSON("POST /api/admin/quarantine/:id/release", "/api/admin/quarantine/{infected}/release", `{}`),
	simply("DELETE /api/admin/quarantine/:id", "/api/admin/quarantine/{infected}"),
	simply("DELETE /api/admin/quarantine/:id", "/api/admin/quarantine/{whole}"),
	simply("GET /api/uploads/:id", "/api/uploads/{infected}"),
	simply("GET /api/uploads/:id/content", "/api/uploads/{infected}/content"),
	with("", "POST /api/uploads/:id/retry", "/api/uploads/{infected}/retry"),
	withJSON("POST /api/erasures", "/api/erasures", `{"upload_id":"{infected}"}`),
}

// toStrangers is an attack by users who may not know the victim's tenant: its own users know it, and an admin may enter it,
// which is audited ([TestEnterTenant]).
func toStrangers(a attack) attack {
	a.allowed = func(who tenant.Identity, v victim) bool {
		return who.Role == tenant.Admin || who.Tenant.String() == v["tenant"]
	}
	return a
}

var attacksOnTenants = []attack{
	toStrangers(simply("GET /api/tenants/:id/export", "/api/tenants/{tenant}/export")),
	toStrangers(simply("GET /api/tenants/:id/export", "/api/tenants/{tenant}/export", "Tramo-Tenant", "{tenant}")),
	toStrangers(simply("GET /api/uploads", "/api/uploads", "Tramo-Tenant", "{tenant}")),
	toStrangers(simply("GET /api/uploads/:id", "/api/uploads/{upload}", "Tramo-Tenant", "{tenant}")),
	toStrangers(simply("GET /api/tenant", "/api/tenant", "Tramo-Tenant", "{tenant}")),
	simply("GET /api/tenant", "/api/tenant"),
	simply("GET /api/tenant", "/api/tenant?id={tenant}"),
	{route: "GET /api/tenants/:id/export", name: "of its own", send: func(u user, _ victim) *http.Request {
		return u.request("GET", u.base()+"/api/tenants/"+u.who.Tenant.String()+"/export", nil)
	}},
}

// attacksOnEvents are attacks that get no stream.
var attacksOnEvents = []attack{
	simply("GET /api/events", "/api/events?upload={upload}"),
	simply("GET /api/events", "/api/events?upload={whole}&batch={batch_id}&project={project}"),
	simply("GET /api/events", "/api/events?upload={deleted}"),
	simply("GET /api/events", "/api/events?upload={upload}", "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
	with("", "POST /api/events/tickets", "/api/events/tickets?upload={upload}"),
}

// unarmed are the routes that name nothing of any tenant.
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

// collections have only POST and GET; the other methods of tus have no resource there.
var collections = []string{"PATCH /api/uploads", "HEAD /api/uploads", "DELETE /api/uploads"}

// Every route has an attack.
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

// withoutEffect are the routes on which even the owner reaches nothing.
var withoutEffect = map[string]string{
	"POST /api/webhooks":       "an id is the server's to give",
	"GET /api/tenant":          "it is the token's own",
	"GET /api/events":          "who may listen gets a stream",
	"POST /api/events/tickets": "it is the token's own",
}

// An attack that could not succeed proves nothing: each route has one that is answered differently to the owner than for
// things that never existed.
func TestAttacksReach(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u, v := s.newDoneVictim(t)
	reached := map[string]bool{}
	reading := func(a attack) bool { return strings.HasPrefix(a.route, "GET ") || strings.HasPrefix(a.route, "HEAD ") }
	changing := func(a attack) bool { return !reading(a) }
	for _, a := range slices.Concat(slices.DeleteFunc(slices.Clone(attacks), changing), slices.DeleteFunc(slices.Clone(attacks), reading)) {
		if _, ok := withoutEffect[a.route]; ok || reached[a.route] {
			continue
		}
		if changing(a) {
			s.user = s.newTenant(t) // the attack before has changed the last tenant
			u, v = s.newDoneVictim(t)
		}
		owner := s.like(t, u, func(id *tenant.Identity) { id.Role = tenant.Admin })
		never := v.phantom()
		none := never.normal(owner, owner.try(a, never))
		reached[a.route] = v.normal(owner, owner.try(a, v)) != none
	}
	for route, ok := range reached {
		if !ok {
			t.Errorf("no attack on %s reaches anything: not even its owner does", route)
		}
	}
}

// newDoneVictim makes a victim whose PATCH has ended.
func (s *site) newDoneVictim(t *testing.T) (user, victim) {
	t.Helper()
	u, v, slow := s.newVictim(t)
	stack.Must(t, slow.body.CloseWithError(io.ErrUnexpectedEOF))
	stack.Receive(t, "end of the cut PATCH", slow.over)
	return u, v
}
