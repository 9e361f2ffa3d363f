package server_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/server"
	"github.com/tramo/tramo/server/ratelimit"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

// pictured makes a completed upload with a thumbnail of 160 pixels.
func (s *site) pictured(t *testing.T, u user, meta ...string) (address string) {
	t.Helper()
	address = s.processed(t, u, "photo "+uuid.NewString(), "image/jpeg", append([]string{"filename", "a.jpg"}, meta...)...)
	s.addThumbnail(t, u, address, value[string](t, s, `select project from uploads where id = $1`, idOf(address)))
	return address
}

func (s *site) addThumbnail(t *testing.T, u user, address, project string) {
	t.Helper()
	keys := object.Keys{Tenant: u.who.Tenant, Project: project, Upload: idOf(address)}
	bucket, err := object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: stack.Get(t, ground.S3).Endpoint(), Name: stack.Get(t, ground.S3).Bucket()})
	stack.Must(t, err)
	stack.Must(t, bucket.Put(t.Context(), keys.Thumbnail(160), "image/webp", strings.NewReader("picture"), 7))
	s.exec(t, `insert into thumbnails (tenant_id, upload_id, size, width_px, height_px, bytes, content_type, object_key)
		values ($1, $2, 160, 160, 120, 7, 'image/webp', $3)`, u.who.Tenant, idOf(address), keys.Thumbnail(160))
}

// pictures are the uploads of an answer or a message, with their thumbnails.
type pictures struct {
	ID         uuid.UUID
	Thumbnails []struct{ URL string }
}

// pictureOf returns the address of the upload's thumbnail, as GET links it.
func (u user) pictureOf(address string) string {
	u.t.Helper()
	p := readAs[pictures](u.t, u.do("GET", address, nil), 200)
	if len(p.Thumbnails) != 1 {
		u.t.Fatalf("%s has %d thumbnails", address, len(p.Thumbnails))
	}
	return absolute(u.t, address, p.Thumbnails[0].URL)
}

func absolute(t testing.TB, base, ref string) string {
	t.Helper()
	b, err := url.Parse(base)
	stack.Must(t, err)
	r, err := b.Parse(ref)
	stack.Must(t, err)
	return r.String()
}

// show asks for a picture as an img element does: without a token, with what it was linked by. It follows no redirect.
func show(t testing.TB, link string, headers ...string) answer {
	t.Helper()
	res, err := http.DefaultTransport.RoundTrip(user{t: t}.request("GET", link, nil, append([]string{"Authorization", "", "Tus-Resumable", ""}, headers...)...))
	stack.Must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	stack.Must(t, err)
	return answer{res.StatusCode, res.Header, b}
}

// No answer of any route and no stream has a presigned link before an entry in the audit log covers it. The guard of newSite
// looks; here everything passes by it that tells of an upload with a picture.
func TestNoPresignedLinkWithoutEntry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.live(t, func(c *server.Config) { c.Live.Recheck = 50 * time.Millisecond }) // rows are changed here without a notification
	admin := s.user.as(s, "olga", tenant.Admin)
	before := s.pictured(t, s.user, "batch", "lote", "client_id", "uno")
	events := s.user.listen(s.url, "")
	socket, _, err := s.user.webSocket(s.url, "ticket="+s.ticket(t, s.user))
	stack.Must(t, err)
	after := s.pictured(t, s.user)
	s.exec(t, `update uploads set updated_at = now() where id = $1`, idOf(after))
	for _, l := range []*listening{events, socket} {
		seen := make(map[uuid.UUID]bool)
		for !seen[idOf(before)] || !seen[idOf(after)] {
			e, ok := l.next()
			if !ok {
				t.Fatal("the stream has ended")
			}
			var p pictures
			stack.Must(t, json.Unmarshal(e.Data, &p))
			if e.Event == "upload" && len(p.Thumbnails) > 0 {
				seen[p.ID] = true
				show(t, absolute(t, s.url, p.Thumbnails[0].URL)).want(t, 302, "")
			}
		}
	}
	ids := strings.NewReplacer(":id", idOf(before).String(), ":size", "160", ":delivery", uuid.NewString())
	for _, route := range s.server.Routes() {
		method, path, _ := strings.Cut(route, " ")
		if (method != "GET" && method != "HEAD") || path == "/api/events" {
			continue
		}
		if strings.HasPrefix(path, "/api/tenants/") {
			path = strings.Replace(path, ":id", s.user.who.Tenant.String(), 1)
		}
		admin.follow(method, s.url+ids.Replace(path))
	}
	for _, query := range []string{"?limit=1", "?batch=lote", "?status=completed", "?project=default"} {
		if a := s.user.do("GET", s.user.uploads+query, nil).want(t, 200, ""); !strings.Contains(string(a.body), "/thumbnails/160") {
			t.Errorf("%s lists %s", query, a.body)
		}
	}
}

// entries returns who was given what, newest first.
func (s *site) entries(t *testing.T, action string) (all []string) {
	t.Helper()
	s.in(t, s.user, func(ctx context.Context, tx storage.Tx) error {
		log, err := tx.AuditLog(ctx, storage.AuditPage{Limit: 100, Action: action})
		for _, e := range log {
			all = append(all, e.Actor+" "+e.Outcome+" "+*e.Subject)
		}
		return err
	})
	return all
}

// A link shows its thumbnail to an img element, which sends no token. A user gets the same link again, and a browser may keep
// what it leads to. One entry in the audit log covers what a user is shown of an upload, however often and in whatever size.
func TestThumbnailLinks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address, other := s.pictured(t, s.user), s.pictured(t, s.user)
	link := s.user.pictureOf(address)
	if again := s.user.pictureOf(address); again != link {
		t.Errorf("another link: %s, before %s", again, link)
	}
	bea := s.user.as(s, "bea", tenant.Constructora)
	if of := bea.pictureOf(address); of == link {
		t.Error("two users have the same link")
	}
	if found := s.entries(t, "upload.thumbnails"); found != nil {
		t.Errorf("links that nobody followed are audited: %q", found)
	}
	nobody := user{t: t}
	for _, method := range []string{"GET", "HEAD", "GET"} {
		api, s3 := nobody.follow(method, link)
		api.want(t, 302, "").wantHeader(t, "Cache-Control", "private, max-age=240")
		s3.want(t, 200, "").wantHeader(t, "Cache-Control", "private, max-age=300")
		if method == "GET" && string(s3.body) != "picture" {
			t.Errorf("%s shows %q", link, s3.body)
		}
		if l := api.header.Get("Location"); !strings.Contains(l, "X-Amz-Expires=300") {
			t.Errorf("S3 is asked for more than 5 minutes: %s", l)
		}
	}
	api, _ := s.user.follow("GET", address+"/thumbnails/160")
	api.want(t, 302, "").wantHeader(t, "Cache-Control", "no-store") // the address is the same for all users
	show(t, bea.pictureOf(address)).want(t, 302, "")
	show(t, s.user.pictureOf(other)).want(t, 302, "")
	who := s.user.who.User
	want := []string{who + " done " + idOf(other).String(), "bea done " + idOf(address).String(), who + " done " + idOf(address).String()}
	if found := s.entries(t, "upload.thumbnails"); !slices.Equal(found, want) {
		t.Errorf("the audit log has %q, want %q", found, want)
	}
	if found := s.entries(t, "upload.content"); found != nil {
		t.Errorf("thumbnails are audited as content: %q", found)
	}
}

// A link gives its thumbnail and nothing else: not another one, not the content, not what GET tells, and no stream.
func TestThumbnailLinkGivesNoMore(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address, other := s.pictured(t, s.user), s.pictured(t, s.user)
	_, query, _ := strings.Cut(s.user.pictureOf(address), "?")
	for _, path := range []string{other + "/thumbnails/160", address + "/thumbnails/480", address + "/thumbnails/x", s.user.uploads + "/x/thumbnails/160"} {
		show(t, path+"?"+query).want(t, 401, "bad-link")
	}
	for _, path := range []string{address, address + "/content", address + "/timeline", s.user.uploads, s.url + "/api/events", s.url + "/api/tenant"} {
		show(t, path+"?"+query).want(t, 401, "unauthorized")
	}
	_, signature, _ := strings.Cut(query, "=")
	user{t: t, token: signature}.do("GET", address, nil).want(t, 401, "unauthorized")
	show(t, address+"/thumbnails/160?link="+s.user.token).want(t, 401, "bad-link")
	show(t, address+"/thumbnails/160?link=").want(t, 401, "bad-link")
	if found := s.entries(t, "upload.thumbnails"); found != nil {
		t.Errorf("%q", found)
	}
}

// A link works as long as its user may see the thumbnail: not while the upload is deleted, and not once it is infected or
// erased.
func TestThumbnailLinkEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := s.pictured(t, s.user, "project", "torre")
	id := idOf(address)
	link := s.user.pictureOf(address)
	narrow := s.user.as(s, "bea", tenant.Empleado, "torre", "puente").pictureOf(address)
	investor := s.user.as(s, "ines", tenant.Inversionista).pictureOf(address)
	wants := func(when string, status int, problem string, links ...string) {
		t.Helper()
		for _, l := range links {
			if a := show(t, l).want(t, status, problem); a.status != status {
				t.Errorf("that was %s", when)
			}
		}
	}
	wants("at first", 302, "", link, narrow, investor)
	s.user.do("DELETE", address, nil).want(t, 204, "")
	wants("while it is deleted", 404, "not-found", link, narrow, investor)
	s.user.as(s, "marta", tenant.Constructora).do("POST", address+"/restore", nil).want(t, 200, "")
	wants("once it is restored", 302, "", link, narrow, investor)
	s.exec(t, `update uploads set project = 'muelle' where id = $1`, id)
	wants("in a project that the token does not have", 404, "not-found", narrow)
	s.exec(t, `update uploads set project = 'torre', status = 'failed', failure_reason = 'infected', failure_detail = '' where id = $1`, id)
	wants("once it is infected", 409, "no-content", link, narrow)
	wants("once it is infected, for who sees only completed uploads", 404, "not-found", investor)
	if found := s.entries(t, "upload.thumbnails"); !slices.Contains(found, "bea infected "+id.String()) {
		t.Errorf("who asked for an infected one is not audited: %q", found)
	}
	s.exec(t, `delete from thumbnails where upload_id = $1`, id)
	s.exec(t, `update uploads set status = 'completed', failure_reason = null, failure_detail = null where id = $1`, id)
	wants("once its thumbnails are erased", 404, "not-found", link, narrow, investor)
}

// A server that clients reach where they cannot reach S3 sends content and thumbnails itself: with ranges, conditions, and
// nothing that leads to S3.
func TestServedContent(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *server.Config, _ *server.Parts) { c.ServeContent = true })
	address := s.processed(t, s.user, "0123456789", "image/jpeg", "filename", "día.jpg")
	s.addThumbnail(t, s.user, address, object.DefaultProject)
	content, link := address+"/content", s.user.pictureOf(address)
	a := s.user.do("GET", content, nil).want(t, 200, "")
	etag := a.header.Get("ETag")
	for name, want := range map[string]string{
		"Content-Type": "image/jpeg", "Content-Disposition": `inline; filename="d_a.jpg"; filename*=UTF-8''d%C3%ADa.jpg`,
		"Cache-Control": "private, no-cache", "Content-Length": "10", "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff", "Location": "",
	} {
		a.wantHeader(t, name, want)
	}
	if string(a.body) != "0123456789" || len(etag) < 10 {
		t.Errorf("content is %q, ETag %s", a.body, etag)
	}
	for _, c := range []struct {
		name, value, ifRange, body, contentRange string
		status                                   int
	}{
		{"Range", "bytes=3-5", "", "345", "bytes 3-5/10", 206},
		{"Range", "bytes=7-", "", "789", "bytes 7-9/10", 206},
		{"Range", "bytes=-2", "", "89", "bytes 8-9/10", 206},
		{"Range", "bytes=0-1,3-5", "", "0123456789", "", 200},
		{"Range", "bytes=3-5", etag, "345", "bytes 3-5/10", 206},
		{"Range", "bytes=3-5", `"another"`, "0123456789", "", 200},
		{"If-None-Match", etag, "", "", "", 304},
		{"If-None-Match", `"another", W/` + etag, "", "", "", 304},
		{"If-None-Match", `"another"`, "", "0123456789", "", 200},
	} {
		a := s.user.do("GET", content, nil, c.name, c.value, "If-Range", c.ifRange).want(t, c.status, "")
		a.wantHeader(t, "Content-Range", c.contentRange)
		a.wantHeader(t, "ETag", etag)
		if string(a.body) != c.body {
			t.Errorf("%s: %s is answered with %q, want %q", c.name, c.value, a.body, c.body)
		}
	}
	s.user.do("GET", content, nil, "Range", "bytes=10-").want(t, 416, "no-such-range").wantHeader(t, "Content-Range", "bytes */10")
	a = s.user.do("HEAD", content, nil).want(t, 200, "")
	a.wantHeader(t, "Content-Length", "10")

	a = show(t, link).want(t, 200, "")
	a.wantHeader(t, "Content-Type", "image/webp")
	if string(a.body) != "picture" {
		t.Errorf("the link shows %q", a.body)
	}
	age, ok := strings.CutPrefix(a.header.Get("Cache-Control"), "private, max-age=")
	if n, err := strconv.Atoi(age); !ok || err != nil || n < 29*60 || n > 60*60 {
		t.Errorf("a browser keeps the thumbnail for %s", a.header.Get("Cache-Control"))
	}
	show(t, link, "If-None-Match", a.header.Get("ETag")).want(t, 304, "")
	s.user.do("DELETE", address, nil).want(t, 204, "")
	show(t, link, "If-None-Match", a.header.Get("ETag")).want(t, 404, "not-found")
	s.user.do("GET", content, nil, "If-None-Match", etag).want(t, 404, "not-found")
}

// A server that cannot reach S3 says so, before it has promised any content.
func TestServedContentWithoutS3(t *testing.T) {
	t.Parallel()
	stack.Get(t, ground.S3) // whose credentials are in the environment
	bucket, err := object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: "http://127.0.0.1:1", Name: "none"})
	stack.Must(t, err)
	s := newSite(t, func(c *server.Config, p *server.Parts) { c.ServeContent, p.Bucket = true, bucket })
	address := s.pictured(t, s.user)
	for _, path := range []string{address + "/content", s.user.pictureOf(address)} {
		a := s.user.do("GET", path, nil).want(t, 503, "unavailable")
		a.wantHeader(t, "Cache-Control", "no-store")
		a.wantHeader(t, "ETag", "")
	}
}

// A gallery has a rate of its own, and takes nothing from what its user may ask of the API.
func TestGalleryRate(t *testing.T) {
	t.Parallel()
	s := newSite(t, limited(t, ratelimit.Rates{
		User: ratelimit.Rate{PerMinute: 1, Burst: 3}, IP: ratelimit.Rate{PerMinute: 1, Burst: 5}, Thumbnails: ratelimit.Rate{PerMinute: 1, Burst: 20},
	}))
	address := s.pictured(t, s.user)
	link := s.user.pictureOf(address)
	for range 20 {
		show(t, link).want(t, 302, "")
	}
	show(t, link).wantRefused(t, 429, "rate-limited", "thumbnails")
	s.user.do("GET", address, nil).want(t, 200, "")
}

// A gallery of a thousand photos: the lists are two requests that write nothing, each thumbnail is shown within the rates that
// there are by default, and each has its entry.
func TestGalleryOfAThousand(t *testing.T) {
	t.Parallel()
	s := newSite(t, limited(t, ratelimit.DefaultConfig().Rates()))
	const photos = 1000
	first := idOf(s.pictured(t, s.user))
	s.exec(t, `insert into uploads select (jsonb_populate_record(u, jsonb_build_object('id', gen_random_uuid()))).*
		from uploads u, generate_series(2, $2) where u.id = $1`, first, photos)
	for _, table := range []string{"contents", "thumbnails"} {
		s.exec(t, `insert into `+table+` select (jsonb_populate_record(x, jsonb_build_object('upload_id', u.id) ||
				case when x.tableoid = 'thumbnails'::regclass then jsonb_build_object('object_key',
					replace(to_jsonb(x)->>'object_key', x.upload_id::text, u.id::text)) else '{}' end)).*
			from `+table+` x join uploads u using (tenant_id) where x.upload_id = $1 and u.id <> $1`, first)
	}
	var links []string
	for cursor := ""; len(links) < photos; {
		page := readAs[struct {
			Items []pictures
			Next  string
		}](t, s.user.do("GET", s.user.uploads+"?limit=500"+cursor, nil), 200)
		for _, p := range page.Items {
			links = append(links, absolute(t, s.url, p.Thumbnails[0].URL))
		}
		cursor = "&cursor=" + page.Next
	}
	s.wantCount(t, 0, `select count(*) from audit where tenant_id = $1`, s.user.who.Tenant)
	begun := time.Now()
	var g errgroup.Group
	g.SetLimit(6) // as many as a browser opens to one host
	for _, link := range links {
		g.Go(func() error {
			show(t, link).want(t, 302, "")
			return nil
		})
	}
	stack.Must(t, g.Wait())
	t.Logf("%d thumbnails in %s", photos, time.Since(begun))
	s.wantCount(t, photos, `select count(distinct subject) from audit where tenant_id = $1 and action = 'upload.thumbnails'`, s.user.who.Tenant)
	s.wantCount(t, photos, `select count(*) from audit where tenant_id = $1`, s.user.who.Tenant)
}
