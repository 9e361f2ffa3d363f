package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tramo/tramo/test/stack"
)

const (
	octets  = "application/offset+octet-stream"
	maxSize = 100 << 20 // TRAMO_MAX_UPLOAD_SIZE, by default
)

// A bad request is answered with the right status and a problem document that says what to do, and the server goes on.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	tenant, u := newTenant(t, "50GiB")
	r := tramo.replicas[0]
	uploads := r.URL + "/api/uploads"
	mine := u.create(r, 10, "filename", "a.txt")
	unknown := uploads + "/01890a5d-ac96-774b-bcce-b302099a8057"
	investor := tramo.userOf(t, tenant, "ana", "inversionista")

	for name, c := range map[string]struct {
		as      user
		method  string
		url     string
		headers []string
		body    string
		status  int
		problem string
	}{
		"wrong tus version":        {u, "POST", uploads, []string{"Tus-Resumable", "0.2.2", "Upload-Length", "5"}, "", 412, "tus-version"},
		"no tus version":           {u, "POST", uploads, []string{"Tus-Resumable", "", "Upload-Length", "5"}, "", 412, "tus-version"},
		"no length":                {u, "POST", uploads, nil, "", 400, "upload-length"},
		"garbage length":           {u, "POST", uploads, []string{"Upload-Length", "many"}, "", 400, "upload-length"},
		"negative length":          {u, "POST", uploads, []string{"Upload-Length", "-1"}, "", 400, "upload-length"},
		"length beyond 64 bits":    {u, "POST", uploads, []string{"Upload-Length", "99999999999999999999"}, "", 413, "too-large"},
		"too large":                {u, "POST", uploads, []string{"Upload-Length", fmt.Sprint(maxSize + 1)}, "", 413, "too-large"},
		"empty":                    {u, "POST", uploads, []string{"Upload-Length", "0"}, "", 422, "empty"},
		"metadata not base64":      {u, "POST", uploads, []string{"Upload-Length", "5", "Upload-Metadata", "filename ???"}, "", 400, "bad-metadata"},
		"metadata without key":     {u, "POST", uploads, []string{"Upload-Length", "5", "Upload-Metadata", "filename YQ==,"}, "", 400, "bad-metadata"},
		"metadata key twice":       {u, "POST", uploads, []string{"Upload-Length", "5", "Upload-Metadata", "a YQ==,a Yg=="}, "", 400, "bad-metadata"},
		"metadata with NUL":        {u, "POST", uploads, []string{"Upload-Length", "5", "Upload-Metadata", metadata("filename", "a\x00b")}, "", 400, "bad-metadata"},
		"metadata not UTF-8":       {u, "POST", uploads, []string{"Upload-Length", "5", "Upload-Metadata", metadata("filename", "a\xff")}, "", 400, "bad-metadata"},
		"name too long":            {u, "POST", uploads, []string{"Upload-Length", "5", "Upload-Metadata", metadata("filename", strings.Repeat("a", 766))}, "", 400, "bad-metadata"},
		"project is a path":        {u, "POST", uploads, []string{"Upload-Length", "5", "Upload-Metadata", metadata("project", "../b")}, "", 400, "bad-metadata"},
		"sha256 is none":           {u, "POST", uploads, []string{"Upload-Length", "5", "Upload-Metadata", metadata("sha256", "abc")}, "", 400, "bad-metadata"},
		"filetype is none":         {u, "POST", uploads, []string{"Upload-Length", "5", "Upload-Metadata", metadata("filetype", "photo")}, "", 400, "bad-metadata"},
		"type not allowed":         {u, "POST", uploads, []string{"Upload-Length", "5", "Upload-Metadata", metadata("filetype", "text/html")}, "", 415, "type-not-allowed"},
		"investor uploads":         {investor, "POST", uploads, []string{"Upload-Length", "5"}, "", 403, "forbidden"},
		"investor cancels":         {investor, "DELETE", mine, nil, "", 403, "forbidden"},
		"investor writes":          {investor, "PATCH", mine, []string{"Content-Type", octets, "Upload-Offset", "0"}, "x", 403, "forbidden"},
		"unknown id":               {u, "PATCH", unknown, []string{"Content-Type", octets, "Upload-Offset", "0"}, "x", 404, "not-found"},
		"id is none":               {u, "PATCH", uploads + "/nonsense", []string{"Content-Type", octets, "Upload-Offset", "0"}, "x", 404, "not-found"},
		"cancel unknown id":        {u, "DELETE", unknown, nil, "", 404, "not-found"},
		"read unknown id":          {u, "GET", unknown, nil, "", 404, "not-found"},
		"read nonsense":            {u, "GET", uploads + "/nonsense", nil, "", 404, "not-found"},
		"no content type":          {u, "PATCH", mine, []string{"Upload-Offset", "0"}, "x", 415, "content-type"},
		"no offset":                {u, "PATCH", mine, []string{"Content-Type", octets}, "x", 400, "upload-offset"},
		"garbage offset":           {u, "PATCH", mine, []string{"Content-Type", octets, "Upload-Offset", "x"}, "x", 400, "upload-offset"},
		"offset ahead":             {u, "PATCH", mine, []string{"Content-Type", octets, "Upload-Offset", "5"}, "x", 409, "offset-mismatch"},
		"more than announced":      {u, "PATCH", mine, []string{"Content-Type", octets, "Upload-Offset", "0"}, "elevenbytes", 413, "beyond-length"},
		"deferred length of 2":     {u, "POST", uploads, []string{"Upload-Defer-Length", "2"}, "", 400, "upload-length"},
		"length and deferred":      {u, "POST", uploads, []string{"Upload-Defer-Length", "1", "Upload-Length", "2"}, "", 400, "upload-length"},
		"limit":                    {u, "GET", uploads + "?limit=0", nil, "", 400, "bad-request"},
		"status":                   {u, "GET", uploads + "?status=lost", nil, "", 400, "bad-request"},
		"project with NUL":         {u, "GET", uploads + "?project=a%00", nil, "", 400, "bad-request"},
		"batch not UTF-8":          {u, "GET", uploads + "?batch=%ff", nil, "", 400, "bad-request"},
		"cursor":                   {u, "GET", uploads + "?cursor=x", nil, "", 400, "bad-request"},
		"unknown route":            {u, "GET", r.URL + "/api/nothing", nil, "", 404, "not-found"},
		"method that no route has": {u, "PUT", mine, nil, "", 405, "method-not-allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			a := c.as.do(c.method, c.url, strings.NewReader(c.body), c.headers...).want(t, c.status, c.problem)
			if c.status == 412 && a.header.Get("Tus-Version") != "1.0.0" {
				t.Error("412 does not tell Tus-Version")
			}
		})
	}
	u.wantOffset(mine, 0)
	u.patch(mine, 0, []byte("ten bytes!"))
	u.wantOffset(mine, 10)
}

// HEAD answers have no body; their status is right all the same.
func TestBadHeadRequests(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := tramo.replicas[0]
	mine := u.create(r, 10)
	for name, c := range map[string]struct {
		url     string
		headers []string
		status  int
	}{
		"unknown id":        {r.URL + "/api/uploads/01890a5d-ac96-774b-bcce-b302099a8057", nil, 404},
		"id is none":        {r.URL + "/api/uploads/nonsense", nil, 404},
		"wrong tus version": {mine, []string{"Tus-Resumable", "0.1"}, 412},
		"no token":          {mine, []string{"Authorization", ""}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			a := u.do("HEAD", c.url, nil, c.headers...)
			if a.status != c.status || a.header.Get("Upload-Offset") != "" {
				t.Errorf("%d, Upload-Offset %q", a.status, a.header.Get("Upload-Offset"))
			}
		})
	}
}

// What tus 1.0.0 asks of a server's answers.
func TestTusProtocolAnswers(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := tramo.replicas[0]
	a := u.do("OPTIONS", r.URL+"/api/uploads", nil)
	want := map[string]string{
		"Tus-Resumable": "1.0.0", "Tus-Version": "1.0.0", "Tus-Max-Size": fmt.Sprint(maxSize),
		"Tus-Extension": "creation,creation-with-upload,termination,concatenation,creation-defer-length,checksum,checksum-trailer,expiration",
	}
	for h, v := range want {
		stack.Want(t, a.header.Get(h), v, "OPTIONS: %s", h)
	}
	meta := metadata("filename", "a.txt", "own-key", "ñandú")
	created := u.do("POST", r.URL+"/api/uploads", nil, "Upload-Length", "5", "Upload-Metadata", meta)
	url := created.header.Get("Location")
	head := u.do("HEAD", url, nil)
	if head.header.Get("Cache-Control") != "no-store" || head.header.Get("Upload-Length") != "5" || head.header.Get("Tus-Resumable") != "1.0.0" {
		t.Errorf("HEAD: %v", head.header)
	}
	if got := strings.Split(head.header.Get("Upload-Metadata"), ","); len(got) != 2 || !strings.Contains(meta, got[0]) || !strings.Contains(meta, got[1]) {
		t.Errorf("HEAD tells metadata %q, sent %q", got, meta)
	}
	// Clients that cannot send PATCH may override POST.
	over := u.do("POST", url, strings.NewReader("hello"), "X-HTTP-Method-Override", "PATCH", "Upload-Offset", "0", "Content-Type", octets)
	if over.status != http.StatusNoContent || over.header.Get("Upload-Offset") != "5" {
		t.Errorf("overridden method: %d %s", over.status, over.body)
	}
	// A complete upload has its size as offset, and can be deleted.
	u.wantOffset(url, 5)
	u.do("DELETE", url, nil).want(t, http.StatusNoContent, "")
	u.do("GET", url, nil).want(t, http.StatusNotFound, "")
}

// No token, or one that is not good, is 401 with a problem document on every route, tus included, and says
// nothing of what is there. Only OPTIONS needs none, because a browser's preflight has none.
func TestTokenIsRequired(t *testing.T) {
	t.Parallel()
	tenant, u := newTenant(t, "50GiB")
	r := tramo.replicas[0]
	mine := u.create(r, 10)
	expired, err := tramo.Tramo(stack.Context(t), "token", "--tenant", tenant, "--user", "a", "--role", "empleado", "--ttl=-1h")
	stack.Must(t, err)
	parts := strings.Split(u.token, ".")
	for name, token := range map[string]string{
		"none": "", "garbage": "Bearer x", "other scheme": "Basic YTpi", "expired": "Bearer " + strings.TrimSpace(expired),
		"unsigned":         "Bearer eyJhbGciOiJub25lIn0." + parts[1] + ".",
		"forged signature": "Bearer " + parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
	} {
		for _, route := range []struct{ method, url string }{
			{"GET", r.URL + "/api/uploads"}, {"POST", r.URL + "/api/uploads"},
			{"GET", mine}, {"GET", mine + "/receipt"}, {"GET", mine + "/timeline"}, {"HEAD", mine}, {"PATCH", mine}, {"DELETE", mine}, {"POST", mine}, {"GET", r.URL + "/api/nothing"},
		} {
			a := u.do(route.method, route.url, nil, "Authorization", token)
			if a.status != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s token, %s %s: %d", name, route.method, route.url, a.status)
			}
			if route.method != "HEAD" {
				a.problem(t)
			}
		}
	}
}

// Another tenant's upload does not exist: every verb answers as for an id that never was, and the owner's
// upload is as it was.
func TestTenantIsolation(t *testing.T) {
	t.Parallel()
	owner, stranger := newUser(t), newUser(t)
	r := tramo.replicas[0]
	url := owner.create(r, 10, "filename", "secret.txt")
	owner.patch(url, 0, []byte("half."))
	unknown := r.URL + "/api/uploads/01890a5d-ac96-774b-bcce-b302099a8057"
	for _, method := range []string{"GET", "HEAD", "PATCH", "DELETE"} {
		headers := []string{"Content-Type", octets, "Upload-Offset", "5", "X-Request-Id", "same"} // which problems contain
		theirs := stranger.do(method, url, bytes.NewReader([]byte("x")), headers...)
		nobodys := stranger.do(method, unknown, bytes.NewReader([]byte("x")), headers...)
		if theirs.status != http.StatusNotFound || theirs.status != nobodys.status || !bytes.Equal(theirs.body, nobodys.body) {
			t.Errorf("%s: %d %s, for an unknown id %d %s", method, theirs.status, theirs.body, nobodys.status, nobodys.body)
		}
	}
	a := stranger.do("GET", r.URL+"/api/uploads", nil)
	var page struct{ Items []upload }
	if err := json.Unmarshal(a.body, &page); err != nil || len(page.Items) != 0 {
		t.Errorf("a stranger's list: %s %v", a.body, err)
	}
	owner.wantOffset(url, 5)
}

// Files that are not what they should be end failed, with a reason for machines and a sentence for a
// person; the worker goes on with the next.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := tramo.replicas[0]
	photo := stack.Photo(stack.PhotoConfig{Width: 1200, Height: 900, Seed: 4})
	wrongSum := strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		data   []byte
		meta   []string
		reason string
	}{
		"virus":              {eicar(), []string{"filename", "eicar.com"}, "infected"},
		"virus as a photo":   {eicar(), []string{"filename", "a.jpg", "filetype", "image/jpeg"}, "infected"},
		"text as a photo":    {[]byte("no photo at all, but a text"), []string{"filetype", "image/jpeg"}, "type_mismatch"},
		"photo as PDF":       {photo, []string{"filetype", "application/pdf"}, "type_mismatch"},
		"page undeclared":    {[]byte("<!DOCTYPE html><html><script>alert(1)</script></html>"), nil, "type_not_allowed"},
		"program undeclared": {append([]byte("\x7fELF\x02\x01\x01\x00"), make([]byte, 100)...), nil, "type_not_allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			up, _ := u.await(u.send(r, c.data, c.meta...))
			if up.Status != "failed" || up.Failure == nil || up.Failure.Reason != c.reason || len(up.Failure.Detail) < 20 {
				t.Errorf("%s, %+v", up.Status, up.Failure)
			}
			if len(up.Thumbnails) != 0 {
				t.Errorf("thumbnails %+v", up.Thumbnails)
			}
			if tagged := tagOf(t, up.ID, "scan"); (c.reason == "infected") != (tagged == "infected") {
				t.Errorf("the object is tagged %q", tagged)
			}
		})
	}
	t.Run("checksum", func(t *testing.T) {
		url := u.create(r, 5, "sha256", wrongSum)
		u.patch(url, 0, []byte("hello")).want(t, http.StatusUnprocessableEntity, "checksum-mismatch")
		u.do("HEAD", url, nil).want(t, http.StatusGone, "")
		up := u.get(url)
		if up.Status != "failed" || up.Failure.Reason != "checksum_mismatch" || len(objectsOf(t, up.ID)) != 0 {
			t.Errorf("%+v, %v", up, objectsOf(t, up.ID))
		}
	})
	t.Run("a good one afterwards", func(t *testing.T) {
		u.completes(u.send(r, photo, "filetype", "image/jpeg", "sha256", sumOf(photo)))
	})
	t.Run("what cannot be decoded is kept", func(t *testing.T) {
		for kind, data := range map[string][]byte{"image/jpeg": photo[:300], "image/png": stack.PNG(100, 100)[:30]} {
			url := u.send(r, data, "filename", "a", "filetype", kind)
			up := u.completes(url)
			if up.NoThumbnail == nil || *up.NoThumbnail != "unreadable" || up.Failure != nil || len(up.Thumbnails) != 0 {
				t.Errorf("%s: %s, %+v", kind, up.Status, up)
			}
			back := filepath.Join(t.TempDir(), "back")
			if _, status := u.curl("-L", "-o", back, url+"/content"); status != "200" || !bytes.Equal(read(t, back), data) {
				t.Errorf("%s: the content comes back with %s", kind, status)
			}
		}
	})
	t.Run("what has no picture", func(t *testing.T) {
		up, _ := u.await(u.send(r, []byte("fecha;hora\n1;2\n"), "filename", "a.csv", "filetype", "text/csv"))
		if up.Status != "completed" || len(up.Thumbnails) != 0 {
			t.Errorf("%s, %+v", up.Status, up.Failure)
		}
	})
}

// A large body that is refused is answered early, and its sender reads the answer and not a reset connection.
func TestLargeBodiesAreRefusedWithAnAnswer(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	body := make([]byte, 30<<20)
	url := u.create(tramo.replicas[0], len(body))
	for name, c := range map[string]struct {
		headers []string
		status  int
	}{
		"bad token":    {[]string{"Authorization", "Bearer x", "Upload-Offset", "0"}, http.StatusUnauthorized},
		"wrong offset": {[]string{"Upload-Offset", "7"}, http.StatusConflict},
	} {
		for range 5 {
			a, err := u.try(t.Context(), "PATCH", url, bytes.NewReader(body), append(c.headers, "Content-Type", octets)...)
			if err != nil || a.status != c.status {
				t.Errorf("%s: %d, %v", name, a.status, err)
			}
		}
	}
	u.wantOffset(url, 0)
}

// tagOf returns a tag of the upload's object.
func tagOf(t *testing.T, id, name string) string {
	t.Helper()
	bucket := tramo.S3.Bucket()
	client := tramo.S3.Client("")
	for _, path := range objectsOf(t, id) {
		if !strings.HasPrefix(filepath.Base(path), "original-") {
			continue
		}
		key, err := filepath.Rel(filepath.Join(tramo.S3.Dir(), bucket), path)
		stack.Must(t, err)
		tags, err := client.GetObjectTagging(stack.Context(t), &s3.GetObjectTaggingInput{Bucket: &bucket, Key: &key})
		if err != nil {
			return "" // no tags at all
		}
		for _, tag := range tags.TagSet {
			if *tag.Key == name {
				return *tag.Value
			}
		}
	}
	return ""
}

// A client that sends nothing for longer than the server waits gets an answer after which it tries again (423:
// tus-js-client gives up on 408), and goes on from all that had arrived.
func TestSilentBodyIsNotTheEnd(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := tramo.serves(t, "TRAMO_NETWORK_TIMEOUT=1s")
	data := bytes.Repeat([]byte("a line of text\n"), 10_000)
	url := u.create(r, len(data), "filename", "a.txt")
	body, client := io.Pipe()
	defer client.Close() // it is not read any more
	const arrived = 60_000
	go client.Write(data[:arrived]) //nolint:errcheck // what arrives is measured below
	u.do("PATCH", url, body, "Upload-Offset", "0", "Content-Type", octets).want(t, http.StatusLocked, "cut-off")
	u.wantOffset(url, arrived)
	u.patch(url, arrived, data[arrived:])
	u.completes(url)
}
