package server_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/hooks/webhook"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// processed makes an upload of data, with the rows and objects of a completed one.
func (s *site) processed(t *testing.T, u user, data, mediaType string, meta ...string) (address string) {
	t.Helper()
	a := u.do("POST", u.uploads, strings.NewReader(data), "Upload-Length", fmt.Sprint(len(data)), "Content-Type", octets,
		"Upload-Metadata", metadata(meta...)).want(t, 201, "")
	address = a.header.Get("Location")
	s.exec(t, "update uploads set status = 'completed', detected_type = $2, completed_at = now() where id = $1", idOf(address), mediaType)
	return address
}

// follow asks for content and returns the answer of the API and that of S3. The token stays with the API.
func (u user) follow(method, url string, headers ...string) (api, s3 answer) {
	u.t.Helper()
	r := u.request(method, url, nil)
	res, err := http.DefaultTransport.RoundTrip(r)
	stack.Must(u.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	stack.Must(u.t, err)
	api = answer{res.StatusCode, res.Header, b}
	if api.status != http.StatusFound {
		return api, s3
	}
	return api, user{t: u.t}.do(method, api.header.Get("Location"), nil, append([]string{"Authorization", "", "Tus-Resumable", ""}, headers...)...)
}

// The content of a completed upload is one redirect away, with its sender's file name and its type. Types that a browser would
// run are served as downloads. Ranges and HEAD work.
func TestContent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, c := range []struct{ data, mediaType, name, wantType, wantDisposition string }{
		{"photo", "image/jpeg", "día 1.jpg", "image/jpeg", `inline; filename="d_a 1.jpg"; filename*=UTF-8''d%C3%ADa%201.jpg`},
		{"%PDF-", "application/pdf", "plan.pdf", "application/pdf", `inline; filename="plan.pdf"`},
		{"<script>", "text/html", "a.html", "application/octet-stream", `attachment; filename="a.html.txt"`},
		{"<svg/>", "image/svg+xml", "a.svg", "application/octet-stream", `attachment; filename="a.svg.txt"`},
		{"alert(1)", "text/javascript", "a.jpg", "application/octet-stream", `attachment; filename="a.jpg.txt"`},
		{"echo hi", "text/plain", "run.bat", "text/plain", `attachment; filename="run.bat.txt"`},
		{"photo", "image/jpeg", "foto\u202egpj.exe", "image/jpeg", `attachment; filename="fotogpj.exe.jpg"`},
		{"a;b", "text/csv", "acta.csv", "text/csv", `attachment; filename="acta.csv"`},
		{"x", "image/jpeg", "", "image/jpeg", `inline; filename="ID.jpg"`},
	} {
		address := s.processed(t, s.user, c.data, c.mediaType, "filename", c.name)
		disposition := strings.ReplaceAll(c.wantDisposition, "ID", idOf(address).String())
		for _, method := range []string{"GET", "HEAD"} {
			api, s3 := s.user.follow(method, address+"/content")
			api.want(t, 302, "")
			api.wantHeader(t, "Cache-Control", "no-store")
			s3.want(t, 200, "")
			s3.wantHeader(t, "Content-Type", c.wantType)
			s3.wantHeader(t, "Content-Disposition", disposition)
			s3.wantHeader(t, "Cache-Control", "private")
			if method == "GET" && string(s3.body) != c.data {
				t.Errorf("content is %q", s3.body)
			}
			if l := api.header.Get("Location"); !strings.Contains(l, "X-Amz-Expires=900") {
				t.Errorf("the link %s does not work for 15 minutes", l)
			}
		}
	}
	address := s.processed(t, s.user, "0123456789", "text/plain")
	_, s3 := s.user.follow("GET", address+"/content", "Range", "bytes=3-5")
	if s3.status != http.StatusPartialContent || string(s3.body) != "345" {
		t.Errorf("a range is %d %q", s3.status, s3.body)
	}
	api, _ := s.user.follow("GET", address+"/content")
	link := strings.Replace(api.header.Get("Location"), "attachment", "inline", 1)
	user{t: t}.do("GET", link, nil, "Authorization", "").want(t, 403, "") // what it is served as is signed

	body := string(s.user.do("GET", address, nil).body)
	if !strings.Contains(body, `"content_url":"/api/uploads/`+idOf(address).String()+`/content"`) {
		t.Errorf("GET tells %s", body)
	}
}

// Thumbnails have addresses of their own, by size. Other sizes do not exist.
func TestThumbnails(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := s.processed(t, s.user, "photo", "image/jpeg", "filename", "a.jpg")
	keys := object.Keys{Tenant: s.user.who.Tenant, Project: object.DefaultProject, Upload: idOf(address)}
	bucket, err := object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: stack.Get(t, ground.S3).Endpoint(), Name: stack.Get(t, ground.S3).Bucket()})
	stack.Must(t, err)
	stack.Must(t, bucket.Put(t.Context(), keys.Thumbnail(160), "image/webp", strings.NewReader("picture"), 7))
	s.exec(t, `insert into thumbnails (tenant_id, upload_id, size, width_px, height_px, bytes, content_type, object_key)
		values ($1, $2, 160, 160, 120, 7, 'image/webp', $3)`, s.user.who.Tenant, idOf(address), keys.Thumbnail(160))
	api, s3 := s.user.follow("GET", address+"/thumbnails/160")
	api.want(t, 302, "")
	s3.want(t, 200, "")
	s3.wantHeader(t, "Content-Type", "image/webp")
	s3.wantHeader(t, "Content-Disposition", `inline; filename="`+idOf(address).String()+`-160.webp"`)
	stack.Want(t, string(s3.body), "picture", "body")
	for _, size := range []string{"480", "0", "-160", "x", "160.webp", "99999999999999999999"} {
		s.user.do("GET", address+"/thumbnails/"+size, nil).want(t, 404, "not-found")
	}
}

// Only completed uploads are served, whoever asks. The refusal says what to do; infected uploads are never served. For another
// tenant, and outside the token's projects, the upload does not exist.
func TestContentRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := s.processed(t, s.user, "photo", "image/jpeg", "project", "torre")
	id := idOf(address)
	paths := []string{address + "/content", address + "/thumbnails/160"}
	for status, problem := range map[storage.Status]string{
		storage.Uploading: "content-not-ready", storage.Uploaded: "content-not-ready", storage.Processing: "content-not-ready",
		storage.Cancelled: "no-content", storage.Expired: "no-content", storage.Failed: "no-content",
	} {
		s.exec(t, "update uploads set status = $2, failure_reason = case $2 when 'failed' then 'unreadable' end, failure_detail = '' where id = $1", id, status)
		for _, path := range paths {
			a := s.user.do("GET", path, nil).want(t, 409, problem)
			if status != storage.Failed {
				a.wantText(t, string(status))
			}
		}
	}
	s.exec(t, "update uploads set status = 'failed', failure_reason = 'infected' where id = $1", id)
	s.user.do("GET", paths[0], nil).want(t, 409, "no-content").wantText(t, "infected")

	elsewhere, investor := s.user.who, s.user.who
	elsewhere.Role = tenant.Constructora
	investor.Role = tenant.Inversionista
	missing := s.user.do("GET", strings.Replace(paths[0], id.String(), uuid.NewString(), 1), nil, "X-Request-Id", "same")
	for _, path := range paths {
		for who, u := range map[string]user{"another tenant": s.newTenant(t), "an investor": s.as(t, investor)} {
			a := u.do("GET", path, nil, "X-Request-Id", "same")
			if a.status != missing.status || string(a.body) != string(missing.body) {
				t.Errorf("%s: %d %s, want %d %s", who, a.status, a.body, missing.status, missing.body)
			}
		}
		nobody := s.user
		nobody.token = ""
		nobody.do("GET", path, nil, "Authorization", "").want(t, 401, "unauthorized")
	}
	s.exec(t, "update uploads set status = 'completed', failure_reason = null where id = $1", id)
	api, _ := s.as(t, investor).follow("GET", paths[0])
	api.want(t, 302, "")
}

// The audit log has every download and every request for an infected upload, but no other refusals.
func TestContentAudit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := s.processed(t, s.user, "photo", "image/jpeg")
	s.user.do("GET", address+"/thumbnails/160", nil).want(t, 404, "not-found")
	s.user.follow("GET", address+"/content")
	s.exec(t, "update uploads set status = 'processing' where id = $1", idOf(address))
	s.user.do("GET", address+"/content", nil).want(t, 409, "content-not-ready")
	s.exec(t, "update uploads set status = 'failed', failure_reason = 'infected', failure_detail = '' where id = $1", idOf(address))
	s.user.do("GET", address+"/content", nil).want(t, 409, "no-content")
	var entries []storage.AuditEntry
	stack.Must(t, s.API.InTenant(tenant.With(t.Context(), s.user.who), func(tx storage.Tx) (err error) {
		entries, err = tx.AuditLog(t.Context(), storage.AuditPage{Limit: 10, Action: "upload.content"})
		return err
	}))
	var got []string
	for _, e := range entries {
		got = append(got, e.Actor+" "+e.Outcome+" "+*e.Subject)
		if e.Address == nil || e.RequestID == nil {
			t.Errorf("%+v does not say where it came from", e)
		}
	}
	who, id := s.user.who.User, idOf(address).String()
	if want := []string{who + " infected " + id, who + " done " + id}; strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("%q, want %q", got, want)
	}
}

// A name whose characters change the direction of writing is told with these characters visible, wherever JSON tells it; the name that
// its sender gave stays in the upload's metadata.
func TestDirectionOfNamesIsShown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const name, want = "foto\u202egpj.exe", `"filename":"foto[U+202E]gpj.exe"`
	address := s.processed(t, s.user, "x", "image/jpeg", "filename", name, "batch", "lunes")
	s.exec(t, `update uploads set title = $2 where id = $1`, idOf(address), "a\u2067b")
	for _, url := range []string{address, s.user.uploads} {
		body := string(s.user.do("GET", url, nil).want(t, 200, "").body)
		if !strings.Contains(body, want) || !strings.Contains(body, `"title":"a[U+2067]b"`) {
			t.Errorf("%s: %s", url, body)
		}
	}
	if got := s.user.do("HEAD", address, nil).header.Get("Upload-Metadata"); !strings.Contains(got, metadata("filename", name)) {
		t.Errorf("HEAD tells %s", got)
	}
	s.exec(t, `update uploads set status = 'failed', failure_reason = 'dead_lettered', failure_detail = '' where id = $1`, idOf(address))
	batch := value[uuid.UUID](t, s, `select batch_id from uploads where id = $1`, idOf(address))
	if body := string(s.user.do("GET", s.url+"/api/batches/"+batch.String(), nil).want(t, 200, "").body); !strings.Contains(body, want) {
		t.Errorf("the batch: %s", body)
	}
	u, given := storage.Upload{}, name
	u.Filename = &given
	if told := webhook.Describe(u).Filename; *told != "foto[U+202E]gpj.exe" {
		t.Errorf("a webhook tells %q", *told)
	}
}
