package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// batches is the address of the collection.
func (u user) batches() string {
	return strings.TrimSuffix(u.uploads, server.UploadsPath) + "/api/batches"
}

// An obj is JSON as a client makes it.
type obj = map[string]any

// entries are n entries of a manifest, of size bytes each.
func entries(n, size int) (all []obj) {
	for range n {
		id := uuid.NewString()
		all = append(all, obj{"client_id": id, "filename": id[:8] + ".txt", "size": size, "type": "text/plain"})
	}
	return all
}

// A filed manifest is the answer to one.
type filed struct {
	Batch   batchJSON
	Uploads []struct {
		ClientID string `json:"client_id"`
		ID       uuid.UUID
		URL      string
		Status   string
		Offset   *int
		Existing bool
	}
}

// A batchJSON is what GET tells, and less of it other answers.
type batchJSON struct {
	ID       uuid.UUID
	Name     string
	State    string
	Manifest bool
	Counts   map[string]int
	Bytes    struct{ Expected, Received, Safe int }
	Stuck    struct{ Count int }
	Failed   struct {
		Count int
		Items []struct {
			ID      uuid.UUID
			Failure struct{ Reason string }
		}
	}
}

// post sends JSON.
func (u user) post(url string, v any, headers ...string) answer {
	u.t.Helper()
	body, err := json.Marshal(v)
	stack.Must(u.t, err)
	return u.do("POST", url, reader(body), append([]string{"Content-Type", "application/json"}, headers...)...)
}

func readAs[T any](t testing.TB, a answer, status int) (v T) {
	t.Helper()
	if a.status != status {
		t.Fatalf("%d %s, want %d", a.status, a.body, status)
	}
	stack.Must(t, json.Unmarshal(a.body, &v))
	return v
}

func (u user) batch(id uuid.UUID) batchJSON {
	u.t.Helper()
	return readAs[batchJSON](u.t, u.do("GET", u.batches()+"/"+id.String(), nil), 200)
}

var requestID = regexp.MustCompile(`"request_id":"[^"]*"`)

// said is a problem without the id of its request, which is each request's own.
func (a answer) said() string { return requestID.ReplaceAllString(string(a.body), "") }

// asWorker ends an upload as a worker would.
func (s *site) asWorker(t *testing.T, id uuid.UUID, end func(storage.Tx) error) {
	t.Helper()
	ctx := tenant.With(t.Context(), tenant.Identity{Tenant: s.user.who.Tenant, User: "worker", Role: tenant.Admin})
	stack.Must(t, s.Worker.InTenant(ctx, func(tx storage.Tx) error {
		stack.Must(t, tx.MarkProcessing(ctx, id, 1))
		return end(tx)
	}))
}

func (s *site) completes(t *testing.T, id uuid.UUID) {
	t.Helper()
	s.asWorker(t, id, func(tx storage.Tx) error { return tx.Complete(t.Context(), id, storage.Results{}) })
}

func (s *site) fails(t *testing.T, id uuid.UUID, reason string) {
	t.Helper()
	s.asWorker(t, id, func(tx storage.Tx) error {
		return tx.Move(t.Context(), id, storage.MoveFail.Because(storage.Failure{Reason: reason, Detail: "x"}))
	})
}

// A manifest creates a batch and its uploads, whose addresses take HEAD and PATCH at once. The batch ends when its last upload
// has ended.
func TestBatchManifest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	a := u.post(u.batches(), obj{"project": "torre", "name": "Torre, lunes", "client_id": "lunes", "uploads": entries(3, 10)})
	f := readAs[filed](t, a, 201)
	a.wantHeader(t, "Location", u.batches()+"/"+f.Batch.ID.String())
	if f.Batch.State != "open" || !f.Batch.Manifest || len(f.Uploads) != 3 {
		t.Fatalf("got %s", a.body)
	}
	for _, up := range f.Uploads {
		if n := u.offset(up.URL); n != 0 || up.Status != "pending" || up.Offset == nil || up.Existing {
			t.Errorf("%+v is at %d", up, n)
		}
	}
	u.do("HEAD", f.Uploads[0].URL, nil).wantHeader(t, "Upload-Length", "10")
	u.patch(f.Uploads[0].URL, 0, reader(noise(10))).want(t, 204, "")
	u.patch(f.Uploads[1].URL, 0, reader(noise(4))).want(t, 204, "")
	s.touched(t, f.Uploads[1].URL, 6*time.Minute)
	b := u.batch(f.Batch.ID)
	if want := map[string]int{
		"total": 3, "pending": 1, "uploading": 1, "uploaded": 1, "processing": 0, "completed": 0, "failed": 0, "expired": 0, "cancelled": 0,
	}; !maps.Equal(b.Counts, want) || b.Bytes.Expected != 30 || b.Bytes.Received != 14 || b.Bytes.Safe != 10 || b.Stuck.Count != 1 {
		t.Errorf("got %+v", b)
	}
	u.patch(f.Uploads[1].URL, 4, reader(noise(6))).want(t, 204, "")
	u.do("DELETE", f.Uploads[2].URL, nil).want(t, 204, "")
	s.completes(t, f.Uploads[0].ID)
	s.completes(t, f.Uploads[1].ID)
	if b := u.batch(f.Batch.ID); b.State != "completed" || b.Counts["cancelled"] != 1 || b.Bytes.Expected != 20 || b.Bytes.Safe != 20 {
		t.Errorf("got %+v", b)
	}

	more := readAs[filed](t, u.post(u.batches()+"/"+f.Batch.ID.String()+"/uploads", obj{"uploads": entries(1, 10)}), 200)
	stack.Want(t, more.Batch.State, "open", "state of the batch with another upload")
	// The same manifest again, without a key, changes nothing.
	before := s.count(t, `select count(*) from timeline`)
	again := readAs[filed](t, u.post(u.batches(), obj{"project": "torre", "name": "x", "client_id": "lunes"}), 200)
	if again.Batch.ID != f.Batch.ID || again.Batch.Name != "Torre, lunes" || s.count(t, `select count(*) from timeline`) != before {
		t.Errorf("got %+v", again)
	}
	// Uploads name their batch, and lists filter by it.
	for _, name := range []string{"lunes", f.Batch.ID.String()} {
		list := readAs[struct {
			Items []struct {
				Batch   string
				BatchID uuid.UUID `json:"batch_id"`
			}
		}](t, u.do("GET", u.uploads+"?batch="+name, nil), 200)
		if len(list.Items) != 4 || list.Items[0].BatchID != f.Batch.ID || list.Items[0].Batch != "lunes" {
			t.Errorf("%s: got %+v", name, list)
		}
	}
}

// The answer to a bad manifest lists all of its errors, and nothing of it is created.
func TestBatchManifestRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	good := entries(1, 10)[0]
	with := func(key string, v any) obj {
		e := maps.Clone(good)
		e["client_id"] = uuid.NewString()
		e[key] = v
		return e
	}
	u.post(u.batches(), obj{"project": "torre", "name": "x", "uploads": []obj{with("client_id", "here")}}).want(t, 201, "")
	bad := []obj{
		good, with("size", 0), with("size", maxSize+1), with("type", "video/mp4"), with("type", "x"), with("sha256", "abc"),
		with("client_id", ""), maps.Clone(good), with("filename", strings.Repeat("x", 766)), with("filename", "a\x00b"),
	}
	a := u.post(u.batches(), obj{"project": "torre", "name": "x", "uploads": bad}).want(t, 422, "bad-manifest")
	p := readAs[struct {
		Errors []struct {
			Index    int
			ClientID string `json:"client_id"`
			Type     string
			Detail   string
		}
	}](t, a, 422)
	var got []string
	for _, e := range p.Errors {
		got = append(got, fmt.Sprint(e.Index, " ", strings.TrimPrefix(e.Type, "/problems/")))
		if e.ClientID != bad[e.Index]["client_id"] || e.Detail == "" {
			t.Errorf("got %+v", e)
		}
	}
	want := []string{
		"1 empty", "2 too-large", "3 type-not-allowed", "4 bad-metadata", "5 bad-metadata", "6 bad-metadata", "7 client-id-taken",
		"8 bad-metadata", "9 bad-metadata",
	}
	stack.Want(t, got, want, "pages")

	conflicts := []obj{with("client_id", "here"), good} // of another batch
	a = u.post(u.batches(), obj{"project": "torre", "name": "y", "uploads": conflicts}).want(t, 422, "bad-manifest")
	a.wantText(t, `"index":0`)
	a.wantNoText(t, `"index":1`)

	s.exec(t, `update tenants set quota_bytes = charged_bytes + 15`)
	a = u.post(u.batches(), obj{"name": "z", "uploads": entries(2, 10)}).want(t, 413, "quota-exceeded")
	a.wantText(t, "20 B", "15 B") // what is needed and what remains
	u.post(u.batches(), obj{"name": "z", "uploads": entries(1001, 10)}).want(t, 413, "too-many-uploads")
	u.post(u.batches(), obj{"name": " "}).want(t, 422, "bad-batch")
	u.post(u.batches(), obj{"name": "z", "project": "a b"}).want(t, 422, "bad-batch")
	u.post(u.batches(), obj{"name": "z", "client_id": strings.Repeat("x", 129)}).want(t, 422, "bad-batch")
	u.post(u.batches(), obj{"name": "z", "photos": 1}).want(t, 400, "bad-request")
	u.post(u.batches(), obj{"name": "z", "uploads": []obj{with("size", "10")}}).want(t, 400, "bad-request")
	u.post(u.batches(), []int{}).want(t, 400, "bad-request")
	u.do("POST", u.batches(), strings.NewReader(`{"name": "z"} {}`)).want(t, 400, "bad-request")
	u.do("POST", u.batches(), strings.NewReader("{\"name\": \"\xff\"}")).want(t, 400, "bad-request")
	u.do("POST", u.batches(), strings.NewReader(strings.Repeat(" ", 8<<20+1))).want(t, 413, "request-too-large")
	s.wantCount(t, 1, `select count(*) from uploads`)
	s.wantCount(t, 1, `select count(*) from batches`)
}

// A crew made its manifest offline and sent some photos before it. Those photos join the batch.
func TestBatchManifestAdoptsUploads(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	meta := func(id string, more ...string) string {
		return metadata(append([]string{"client_id", id, "filename", id + ".txt", "project", "torre"}, more...)...)
	}
	entry := func(id string, size int) obj { return obj{"client_id": id, "filename": id + ".txt", "size": size} }
	whole := u.create(10, "Upload-Metadata", meta("whole"))
	u.patch(whole, 0, reader(noise(10))).want(t, 204, "")
	s.completes(t, idOf(whole))
	part := u.create(10, "Upload-Metadata", meta("part"))
	u.patch(part, 0, reader(noise(4))).want(t, 204, "")
	labelled := u.create(10, "Upload-Metadata", meta("labelled", "batch", "lunes"))
	other := u.create(10, "Upload-Metadata", meta("other"))

	manifest := obj{"project": "torre", "name": "Torre, lunes", "client_id": "lunes", "uploads": []obj{
		entry("whole", 10), entry("part", 10), entry("labelled", 10), entry("new", 10),
	}}
	f := readAs[filed](t, u.post(u.batches(), manifest), 200) // the batch was created by its label
	if f.Batch.Name != "Torre, lunes" || !f.Batch.Manifest {
		t.Errorf("the batch is %+v", f.Batch)
	}
	for i, want := range []string{whole, part, labelled} {
		if up := f.Uploads[i]; up.URL != want || !up.Existing {
			t.Errorf("entry %d is %+v, not %s", i, up, want)
		}
	}
	if up := f.Uploads[1]; up.Status != "uploading" || up.Offset == nil || *up.Offset != 4 {
		t.Errorf("got %+v", up)
	}
	if b := u.batch(f.Batch.ID); b.Counts["total"] != 4 || b.Counts["completed"] != 1 || b.Bytes.Received != 14 {
		t.Errorf("got %+v", b)
	}
	u.post(u.batches(), obj{"project": "torre", "name": "x", "uploads": []obj{entry("other", 11)}}).want(t, 422, "bad-manifest")
	u.post(u.batches(), obj{"project": "puente", "name": "x", "uploads": []obj{entry("other", 10)}}).want(t, 422, "bad-manifest")
	// All uploads of this manifest existed and have ended.
	u.patch(other, 0, reader(noise(10))).want(t, 204, "")
	s.completes(t, idOf(other))
	f = readAs[filed](t, u.post(u.batches(), obj{"project": "torre", "name": "x", "uploads": []obj{entry("other", 10)}}), 201)
	stack.Want(t, u.batch(f.Batch.ID).State, "completed", "state of the batch")
	s.wantCount(t, 1, `select count(*) from announcements where batch_id = $1`, f.Batch.ID)
}

// A request that is repeated with its Idempotency-Key acts once and gets the same answer.
func TestBatchIdempotencyKey(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	manifest := obj{"name": "x", "uploads": entries(2, 10)}
	first := u.post(u.batches(), manifest, "Idempotency-Key", `"one"`)
	f := readAs[filed](t, first, 201)
	u.patch(f.Uploads[0].URL, 0, reader(noise(10))).want(t, 204, "")
	again := u.post(u.batches(), manifest, "Idempotency-Key", `one`).want(t, 201, "")
	again.wantHeader(t, "Location", first.header.Get("Location"))
	stack.Want(t, string(again.body), string(first.body), "second answer")
	u.post(u.batches(), obj{"name": "y"}, "Idempotency-Key", "one").want(t, 422, "idempotency-key-reused")
	u.post(u.batches()+"/"+f.Batch.ID.String()+"/uploads", obj{"uploads": manifest["uploads"]}, "Idempotency-Key", "one").want(t, 422, "idempotency-key-reused")
	for _, key := range []string{" ", strings.Repeat("x", 256), "ñ"} {
		u.post(u.batches(), manifest, "Idempotency-Key", key).want(t, 400, "bad-request")
	}
	add := u.batches() + "/" + f.Batch.ID.String() + "/uploads"
	more := obj{"uploads": entries(1, 10)}
	one, two := u.post(add, more, "Idempotency-Key", "two"), u.post(add, more, "Idempotency-Key", "two")
	if one.status != 200 || string(one.body) != string(two.body) {
		t.Errorf("answered\n%s\nand then\n%s", one.body, two.body)
	}
	// The request is refused while another replica works on it.
	running := s.transaction(t, `select pg_advisory_xact_lock(hashtextextended(concat_ws('/', 'idempotency', $1::uuid, $2::text, 'three'), 0))`,
		u.who.Tenant, u.who.User)
	busy := u.post(u.batches(), obj{"name": "z"}, "Idempotency-Key", "three").want(t, 409, "idempotency-key-busy")
	busy.wantHeader(t, "Retry-After", "1")
	stack.Must(t, running.Rollback(t.Context()))
	// A request that was refused may be tried again.
	u.post(u.batches(), obj{"name": ""}, "Idempotency-Key", "three").want(t, 422, "bad-batch")
	u.post(u.batches(), obj{"name": "z"}, "Idempotency-Key", "three").want(t, 201, "")
	s.wantCount(t, 3, `select count(*) from uploads`)
	s.wantCount(t, 2, `select count(*) from batches`)
}

// Uploads name their batch by its id or by their client's own name. A batch of another tenant does not exist.
func TestBatchInUploadMetadata(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	create := func(u user, pairs ...string) answer {
		return u.do("POST", u.uploads, nil, "Upload-Length", "10", "Upload-Metadata", metadata(pairs...))
	}
	f := readAs[filed](t, u.post(u.batches(), obj{"project": "torre", "name": "x"}), 201)
	create(u, "project", "torre", "batch", f.Batch.ID.String()).want(t, 201, "")
	create(u, "project", "torre", "batch", "martes").want(t, 201, "")
	create(u, "project", "torre", "batch", "martes").want(t, 201, "")
	create(u, "project", "puente", "batch", "martes").want(t, 201, "")
	create(u, "project", "torre", "batch", uuid.NewString()).want(t, 201, "") // a client may name a batch by a UUID of its own
	create(u, "project", "torre").want(t, 201, "")
	s.wantCount(t, 4, `select count(*) from batches`)
	if b := u.batch(f.Batch.ID); b.Counts["total"] != 1 {
		t.Errorf("got %+v", b)
	}
	create(u, "project", "puente", "batch", f.Batch.ID.String()).want(t, 409, "other-project")

	nobodys := uuid.Must(uuid.NewV7()).String()
	stranger := s.newTenant(t)
	for _, who := range []user{stranger, stranger.as(s, "eva", tenant.Constructora)} {
		a, b := create(who, "project", "puente", "batch", f.Batch.ID.String()), create(who, "project", "puente", "batch", nobodys)
		a.want(t, 404, "no-batch")
		if a.status != b.status || strings.ReplaceAll(a.said(), f.Batch.ID.String(), nobodys) != b.said() {
			t.Errorf("a batch of another's is told as %s, and one that nobody has as %s", a.body, b.body)
		}
		for _, path := range []string{"", "/uploads", "/retry", "/cancel"} {
			method := map[string]string{"": "GET"}[path]
			if method == "" {
				method = "POST"
			}
			var answers []answer
			for _, id := range []string{f.Batch.ID.String(), nobodys, "x"} {
				answers = append(answers, who.do(method, who.batches()+"/"+id+path, strings.NewReader(`{}`)))
			}
			if answers[0].status != answers[1].status || answers[0].said() != answers[1].said() {
				t.Errorf("%s %s: %s, and of nobody's %s", method, path, answers[0].body, answers[1].body)
			}
		}
	}
	// The same name in another tenant is another batch.
	create(stranger, "project", "torre", "batch", "martes").want(t, 201, "")
	s.wantCount(t, 3, `select count(*) from batches where client_id = 'martes'`)
	s.exec(t, `update batches set cancelled_at = now() where client_id = 'martes'`)
	create(u, "project", "torre", "batch", "martes").want(t, 409, "batch-cancelled")
}

// Each role may do with a batch only what it is allowed to.
func TestBatchRoles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u, manager, investor := s.user, s.user.as(s, "constructora", tenant.Constructora), s.user.as(s, "inversionista", tenant.Inversionista)
	f := readAs[filed](t, u.post(u.batches(), obj{"project": "torre", "name": "x", "uploads": entries(1, 10)}), 201)
	at := u.batches() + "/" + f.Batch.ID.String()
	rename := func(u user, body string) answer { return u.do("PATCH", at, strings.NewReader(body)) }
	for _, path := range []string{at + "/retry", at + "/cancel", f.Uploads[0].URL + "/retry"} {
		u.do("POST", path, nil).want(t, 403, "forbidden")
		investor.do("POST", path, nil).want(t, 403, "forbidden")
	}
	rename(u, `{"name": "y"}`).want(t, 403, "forbidden")
	investor.post(u.batches(), obj{"name": "x"}).want(t, 403, "forbidden")
	investor.do("GET", at, nil).want(t, 404, "not-found")
	rename(manager, `{"name": ""}`).want(t, 422, "bad-batch")
	rename(manager, `{"title": "y"}`).want(t, 400, "bad-request")
	stack.Want(t, readAs[batchJSON](t, rename(manager, `{"name": "Torre, martes"}`), 200).Name, "Torre, martes", "name")
	s.wantCount(t, 1, `select count(*) from audit where action = 'batch.rename' and subject = $1 and actor = 'constructora'`, f.Batch.ID.String())
	// Anybody of the project may add uploads, which are then that user's.
	readAs[filed](t, manager.post(at+"/uploads", obj{"uploads": entries(1, 10)}), 200)
	u.post(u.batches()+"/"+uuid.NewString()+"/uploads", obj{"uploads": entries(1, 10)}).want(t, 404, "not-found")
}

// Failed uploads with an object are processed again; uploads without one must be sent again; infected uploads are refused.
func TestBatchRetry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u, manager := s.user, s.user.as(s, "constructora", tenant.Constructora)
	es := entries(5, 10)
	es[4]["sha256"] = strings.Repeat("0", 64)
	f := readAs[filed](t, u.post(u.batches(), obj{"project": "torre", "name": "x", "uploads": es}), 201)
	for i, up := range f.Uploads {
		want := 204
		if i == 4 {
			want = 422
		}
		u.patch(up.URL, 0, reader(noise(10))).want(t, want, "")
	}
	for i, reason := range []string{storage.ReasonDeadLettered, storage.ReasonUnreadable, storage.ReasonInfected} {
		s.fails(t, f.Uploads[i].ID, reason)
	}
	s.completes(t, f.Uploads[3].ID)
	at := u.batches() + "/" + f.Batch.ID.String()
	if b := u.batch(f.Batch.ID); b.State != "failed" || b.Failed.Count != 4 || len(b.Failed.Items) != 4 {
		t.Fatalf("got %+v", b)
	}
	charged := s.count(t, `select charged_bytes from tenants where id = $1`, u.who.Tenant)

	for i, problem := range map[int]string{2: "no-retry", 3: "nothing-to-retry", 4: "send-again"} {
		manager.do("POST", f.Uploads[i].URL+"/retry", nil).want(t, 409, problem)
	}
	manager.do("POST", u.uploads+"/"+uuid.NewString()+"/retry", nil).want(t, 404, "not-found")
	manager.do("POST", f.Uploads[0].URL+"/retry", nil).want(t, 200, "")
	r := readAs[struct {
		Retried   []uuid.UUID
		SendAgain []struct{ ID uuid.UUID } `json:"send_again"`
		Refused   []struct{ ID uuid.UUID }
	}](t, manager.do("POST", at+"/retry", nil), 200)
	if len(r.Retried) != 1 || r.Retried[0] != f.Uploads[1].ID || len(r.SendAgain) != 1 || r.SendAgain[0].ID != f.Uploads[4].ID || len(r.Refused) != 1 {
		t.Errorf("got %+v", r)
	}
	for _, i := range []int{0, 1} {
		stack.Want(t, u.upload(f.Uploads[i].URL).Status, "uploaded", "status")
		s.wantJobs(t, f.Uploads[i].URL, 2)
		s.completes(t, f.Uploads[i].ID)
	}
	if b := u.batch(f.Batch.ID); b.State != "failed" { // the infected one
		t.Errorf("the batch is %s", b.State)
	}
	s.wantCharged(t, u, charged)
	// The client id is free again.
	again := readAs[filed](t, u.post(at+"/uploads", obj{"uploads": []obj{es[4]}}), 200)
	if again.Uploads[0].Existing || again.Uploads[0].ID == f.Uploads[4].ID {
		t.Errorf("got %+v", again)
	}
	s.wantCount(t, 2, `select count(*) from audit where action in ('batch.retry', 'upload.retry')`)
}

// A batch is cancelled while one of its photos is being sent: that request ends, its quota is released once, and complete
// uploads are kept.
func TestBatchCancel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u, manager := s.user, s.user.as(s, "constructora", tenant.Constructora)
	f := readAs[filed](t, u.post(u.batches(), obj{"project": "torre", "name": "x", "uploads": entries(4, 1000)}), 201)
	u.patch(f.Uploads[0].URL, 0, reader(noise(1000))).want(t, 204, "")
	u.patch(f.Uploads[1].URL, 0, reader(noise(10))).want(t, 204, "")
	running := u.sendSlowly(t, f.Uploads[2].URL, noise(1000)) // by a client that sends nothing more
	at := u.batches() + "/" + f.Batch.ID.String()
	b := readAs[batchJSON](t, manager.do("POST", at+"/cancel", nil), 200)
	if b.State != "cancelled" || b.Counts["cancelled"] != 3 || b.Counts["uploaded"] != 1 {
		t.Errorf("got %+v", b)
	}
	if a := stack.Receive(t, "answer to the running request", running.over); a.status != 423 && a.status != 410 {
		t.Errorf("the running request was answered %d %s", a.status, a.body)
	}
	u.do("HEAD", f.Uploads[2].URL, nil).want(t, 410, "")
	manager.do("POST", at+"/cancel", nil).want(t, 200, "")
	s.wantCharged(t, u, 1000)
	s.completes(t, f.Uploads[0].ID)
	s.wantCount(t, 0, `select count(*) from announcements where batch_id = $1`, f.Batch.ID)
	u.post(at+"/uploads", obj{"uploads": entries(1, 10)}).want(t, 409, "batch-cancelled")
	manager.do("POST", at+"/retry", nil).want(t, 409, "batch-cancelled")
	s.wantCount(t, 1, `select count(*) from audit where action = 'batch.cancel'`)
}

// Batches are listed by project, state and day, with an optional zone.
func TestBatchList(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	u := s.user
	var ids []uuid.UUID
	for i, at := range []string{"2026-11-22T03:00:00Z", "2026-11-22T12:00:00Z", "2026-11-23T04:59:59Z"} {
		f := readAs[filed](t, u.post(u.batches(), obj{"project": "torre", "name": fmt.Sprint(i)}), 201)
		s.exec(t, `update batches set created_at = $2 where id = $1`, f.Batch.ID, at)
		ids = append(ids, f.Batch.ID)
	}
	for query, want := range map[string][]uuid.UUID{
		"":                                  {ids[2], ids[1], ids[0]},
		"day=2026-11-22":                    {ids[1], ids[0]},
		"day=2026-11-22&tz=America/Bogota":  {ids[2], ids[1]},
		"day=2026-11-21&tz=America/Bogota":  {ids[0]},
		"limit=1":                           {ids[2]},
		"limit=2&cursor=" + ids[2].String(): {ids[1], ids[0]},
		"state=open&project=torre":          {ids[2], ids[1], ids[0]},
		"state=completed":                   {},
		"project=puente":                    {},
	} {
		list := readAs[struct {
			Items []batchJSON
			Next  *uuid.UUID
		}](t, u.do("GET", u.batches()+"?"+query, nil), 200)
		got := []uuid.UUID{}
		for _, b := range list.Items {
			got = append(got, b.ID)
		}
		stack.Want(t, got, want, "%s", query)
	}
	for _, query := range []string{"day=today", "day=2026-11-22&tz=Mars", "tz=Local", "tz=../etc/passwd", "state=done", "limit=0", "cursor=x", "project=%00"} {
		u.do("GET", u.batches()+"?"+query, nil).want(t, http.StatusBadRequest, "bad-request")
	}
}
