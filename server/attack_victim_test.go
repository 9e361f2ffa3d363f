package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// A slowUpload is a PATCH of the victim that runs during the attacks.
type slowUpload struct {
	url  string
	sent []byte
	rest []byte
	body *io.PipeWriter
	over chan answer
}

// sendSlowly begins a PATCH and returns once the server has received some of it.
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
	stack.Until(t, "the victim's first bytes", func() bool { return u.upload(url).Offset > 0 })
	return s
}

// send sends n more bytes on the same connection.
func (s *slowUpload) send(t *testing.T, n int) {
	t.Helper()
	if _, err := s.body.Write(s.rest[:n]); err != nil {
		t.Fatalf("the victim's connection: %v, after %d bytes", err, len(s.sent))
	}
	s.sent, s.rest = append(s.sent, s.rest[:n]...), s.rest[n:]
}

// finish sends the rest and wants the request, still the same one, to succeed.
func (s *slowUpload) finish(t *testing.T, u user) {
	t.Helper()
	s.send(t, len(s.rest))
	stack.Must(t, s.body.Close())
	stack.Receive(t, "answer to the slow PATCH", s.over).want(t, 204, "")
	wantWhole(t, u, s.url, s.sent)
}

// newVictim is somebody with one of each kind: an upload that is being written, one that is complete, with a picture, a
// partial one, one that failed, one with a dead letter, one that is deleted, a batch, erasures, an endpoint, names, and an audit log.
func (s *site) newVictim(t *testing.T) (u user, v victim, slow *slowUpload) {
	t.Helper()
	u = s.user
	v = victim{"tenant": u.who.Tenant.String(), "project": "obra-secreta", "batch": "lote-secreto", "client": "cliente-secreto", "user": "usuario-secreto"}
	u = s.like(t, u, func(id *tenant.Identity) { id.User = v["user"] })
	sha := sha256.Sum256([]byte("completo!!"))
	v["sha256"] = hex.EncodeToString(sha[:])
	about := metadata("filename", "secreto.txt", "project", v["project"], "batch", v["batch"], "client_id", v["client"])
	data := noise(4096)
	upload := u.create(len(data), "Upload-Metadata", about)
	whole := u.create(10, "Upload-Metadata", metadata("filename", "secreto.txt", "project", v["project"], "sha256", v["sha256"]))
	u.patch(whole, 0, strings.NewReader("completo!!")).want(t, 204, "")
	s.completeAt(t, u, whole, v["project"])
	v["near"], v["taken"] = "-12.0464,-77.0428,100", "2026-11-20T08:00:00Z..2026-11-20T08:00:00Z"
	partial := u.create(5, "Upload-Concat", "partial", "Upload-Metadata", metadata("project", v["project"]))
	u.patch(partial, 0, strings.NewReader("trozo")).want(t, 204, "")
	v["upload"], v["whole"], v["partial"] = idOf(upload).String(), idOf(whole).String(), idOf(partial).String()
	s.like(t, u, func(id *tenant.Identity) { id.User = "pedro" }).do("DELETE", upload, nil).want(t, 403, "not-yours")
	s.addEnded(t, u, v)
	s.exec(t, `update uploads set latitude = -12.0464, longitude = -77.0428, taken_at = '2026-11-20T08:00Z', taken_local = '2026-11-20T05:00'
		where user_id = $1 and tenant_id = $2`, u.who.User, u.who.Tenant)
	s.addBatch(t, u, v)
	s.addErasures(t, u, v)
	s.addWebhook(t, u, v)
	v["seq"] = fmt.Sprint(s.count(t, `select max(seq) + 1 from audit where tenant_id = $1`, u.who.Tenant))
	return u, v, u.sendSlowly(t, upload, data)
}

// addEnded adds a failed upload that could be retried, and a deleted one that could be restored.
func (s *site) addEnded(t *testing.T, u user, v victim) {
	t.Helper()
	send := func() string {
		url := u.create(10, "Upload-Metadata", metadata("filename", "secreto.txt", "project", v["project"], "client_id", uuid.NewString()))
		u.patch(url, 0, strings.NewReader("completo!!")).want(t, 204, "")
		return url
	}
	failed, deleted, dead, infected := send(), send(), send(), send()
	s.infect(t, u, infected, v["project"])
	v["infected"] = idOf(infected).String()
	s.exec(t, `update uploads set status = 'failed', failure_reason = 'unreadable' where id = $1`, idOf(failed))
	s.completeAt(t, u, deleted, v["project"])
	u.do("DELETE", deleted, nil).want(t, 204, "")
	s.exec(t, `update uploads set status = 'failed', failure_reason = 'dead_lettered' where id = $1`, idOf(dead))
	v["dead"], v["letter"] = idOf(dead).String(), uuid.Must(uuid.NewV7()).String()
	s.exec(t, `insert into dead_letters (tenant_id, id, upload_id, job_id, kind, step, error, attempts)
		values ($1, $2, $3, 7, 'process_upload', 'scan', 'completo!! secreto.txt', 3)`, u.who.Tenant, v["letter"], v["dead"])
	v["failed"], v["deleted"] = idOf(failed).String(), idOf(deleted).String()
}

// infect does what workers do of what they find.
func (s *site) infect(t *testing.T, u user, url, project string) {
	t.Helper()
	key := object.Keys{Tenant: u.who.Tenant, Project: project, Upload: idOf(url)}.Quarantine(1)
	s.exec(t, `update uploads set status = 'failed', failure_reason = 'infected', failure_detail = 'secreto', object_key = $2 where id = $1`, idOf(url), key)
	s.exec(t, `insert into scans (tenant_id, upload_id, verdict, signature) values ($1, $2, 'infected', 'secreto')`, u.who.Tenant, idOf(url))
}

// addBatch adds a batch by a manifest, with entries added later.
func (s *site) addBatch(t *testing.T, u user, v victim) {
	t.Helper()
	v["batch_name"], v["batch_client"], v["entry"] = "nombre-secreto", "manifiesto-secreto", "entrada-secreta"
	v["key"], v["key_to_add"] = "clave-secreta", "segunda-llave"
	made := readAs[filed](t, u.do("POST", u.batches(), strings.NewReader(v.fill(aManifest)),
		"Content-Type", "application/json", "Idempotency-Key", v["key"]), 201)
	v["batch_id"], v["batch_upload"] = made.Batch.ID.String(), made.Uploads[0].ID.String()
	added := readAs[filed](t, u.do("POST", u.batches()+"/"+v["batch_id"]+"/uploads", strings.NewReader(v.fill(moreEntries)),
		"Content-Type", "application/json", "Idempotency-Key", v["key_to_add"]), 200)
	v["added_upload"] = added.Uploads[0].ID.String()
}

// addErasures adds one erasure that waits for approval, and one that runs.
func (s *site) addErasures(t *testing.T, u user, v victim) {
	t.Helper()
	admin := u.as(s, "olga", tenant.Admin)
	ask := func(body string) string {
		a := admin.do("POST", u.base()+"/api/erasures", strings.NewReader(body), "Content-Type", "application/json").want(t, 202, "")
		return a.erasure(t).ID.String()
	}
	v["erasure"], v["erasure_of_user"] = ask(`{"tenant":true}`), ask(`{"user_id":"nadie"}`)
}

// addWebhook adds an endpoint and a delivery.
func (s *site) addWebhook(t *testing.T, u user, v victim) {
	t.Helper()
	marta := u.as(s, "marta", tenant.Constructora)
	at := s.url + "/api/webhooks"
	endpoint := readAs[struct{ ID string }](t, marta.post(at, obj{"url": "https://93.184.215.14/secreto.txt"}), 201)
	if a := marta.do("POST", at+"/"+endpoint.ID+"/test", nil); a.status >= 300 {
		t.Fatalf("no delivery: %d %s", a.status, a.body)
	}
	v["endpoint"] = endpoint.ID
	v["delivery"] = value[string](t, s, `select id::text from webhook_deliveries where endpoint_id = $1`, endpoint.ID)
}

// completeAt completes an upload as the workers do.
func (s *site) completeAt(t *testing.T, u user, url, project string) {
	t.Helper()
	key := object.Keys{Tenant: u.who.Tenant, Project: project, Upload: idOf(url)}.Thumbnail(160)
	s.exec(t, `update uploads set status = 'completed', completed_at = now() where id = $1`, idOf(url))
	s.exec(t, `insert into thumbnails values ($1, $2, 160, 10, 10, 10, 'image/webp', $3)`, u.who.Tenant, idOf(url), key)
	s.exec(t, `insert into tags values ($1, $2, jsonb_build_object('XMP-dc', jsonb_build_object('Title', 'secreto.txt')), false)`, u.who.Tenant, idOf(url))
}

// rowsOf are the victim's rows, except those that its running upload changes.
func (s *site) rowsOf(t *testing.T, u user) string {
	t.Helper()
	var text string
	stack.Must(t, s.admin.QueryRow(t.Context(), `
		with mine as (select * from uploads where tenant_id = $1 and user_id = $2)
		select string_agg(line, e'\n' order by line) from (
			select concat_ws(' ', 'upload', id, status, size, batch, batch_id, project, object_key, failure_reason, deleted_at, purge_at) from mine
			union all select concat_ws(' ', 'timeline', id, event) from timeline t join mine on id = upload_id where event not in ('part', 'checkpoint', 'tail')
			union all select concat_ws(' ', 'thumbnail', id, d.object_key) from thumbnails d join mine on id = upload_id
			union all select concat_ws(' ', 'scan', s.*) from scans s join mine on id = upload_id
			union all select concat_ws(' ', 'lock', id, fence, waiter) from upload_leases join mine on id = upload_id
			union all select concat_ws(' ', 'audit', actor, action) from audit where tenant_id = $1 and actor = $2
			union all select concat_ws(' ', 'batch', b.*) from batches b where tenant_id = $1 and user_id = $2
			union all select concat_ws(' ', 'erasure', e.*) from erasures e where tenant_id = $1
			union all select concat_ws(' ', 'letter', d.*) from dead_letters d where tenant_id = $1
			union all select concat_ws(' ', 'endpoint', e.*) from webhook_endpoints e where tenant_id = $1
			union all select concat_ws(' ', 'secret', e.*) from webhook_secrets e where tenant_id = $1
			union all select concat_ws(' ', 'delivery', e.*) from webhook_deliveries e where tenant_id = $1
			union all select concat_ws(' ', 'answer', key, answer) from idempotency_keys where tenant_id = $1 and user_id = $2
			union all select concat_ws(' ', 'job', j.kind, args) from river_job j join mine on mine.id::text = j.args->>'upload_id'
			union all select concat_ws(' ', 'tenant', name, quota_bytes, erasing_at, erased_at) from tenants where id = $1
		) x (line)`, u.who.Tenant, u.who.User).Scan(&text))
	return text
}
