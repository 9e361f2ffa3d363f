package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// An unmodified tus-js-client sends a file as three uploads at once, over connections that are cut: it arrives
// byte for byte, as one upload with one job, and costs its size.
func TestConcatParallelUploads(t *testing.T) {
	t.Parallel()
	_, u := newTenant(t, "20MiB")
	content := noise(12_000_000)
	path := filepath.Join(t.TempDir(), "obra.pdf")
	stack.Must(t, os.WriteFile(path, content, 0o600))
	proxy, err := stack.NewProxy(watched(t, tramo.replicas[0]).URL)
	stack.Must(t, err)
	defer proxy.Close()
	stack.Must(t, proxy.CutAfter(3_000_000)) // each connection, and each of the three is longer
	sent := u.runTusJS(t, proxy, path, []string{"TRAMO_TEST_PARALLEL=3"}, "filename", "obra.pdf", "client_id", "p")
	if sent.Attempts < 4 {
		t.Errorf("the connections were to be cut, but %d attempts sufficed", sent.Attempts)
	}
	u.checkOnlyUpload(t, sent.URL, content)
	u.create(tramo.replicas[1], 20<<20-len(content))
	u.do("POST", tramo.replicas[1].URL+"/api/uploads", nil, "Upload-Length", "1").want(t, http.StatusRequestEntityTooLarge, "")
}

// Fifty uploads of 100 KB become one, whose HEAD names them, in the order that was asked for, by addresses of any
// form; the final one takes no bytes and its parts are no uploads of their own.
func TestConcatManySmallPartials(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	var addresses []string
	var content []byte
	for i := range 50 {
		data := noise(100_000)
		content = append(content, data...)
		at := u.partial(tramo.replicas[i%2], data)
		switch i % 3 {
		case 1:
			at = "/api/uploads/" + idOf(at)
		case 2:
			at = idOf(at)
		}
		addresses = append(addresses, at)
	}
	a := u.concat(tramo.replicas[0], addresses)
	final := a.header.Get("Location")
	u.checkOnlyUpload(t, final, content)

	head := u.do("HEAD", final, nil)
	list, ok := strings.CutPrefix(head.header.Get("Upload-Concat"), "final;")
	if got := strings.Fields(list); !ok || len(got) != 50 || idOf(got[49]) != idOf(addresses[49]) {
		t.Errorf("Upload-Concat: %s", head.header.Get("Upload-Concat"))
	}
	u.patch(final, len(content), []byte("x")).want(t, http.StatusForbidden, "final")
	if again := u.concat(tramo.replicas[1], addresses); idOf(again.header.Get("Location")) != idOf(final) {
		t.Error("the same again made another upload")
	}
	if p := u.tryConcat(tramo.replicas[0], addresses[:2]).problem(t); p.Type != "/problems/partial-taken" {
		t.Errorf("used again: %+v", p)
	}
}

// What cannot be concatenated is refused, and another tenant's upload does not exist.
func TestConcatRefused(t *testing.T) {
	t.Parallel()
	u, other := newUser(t), newUser(t)
	r := tramo.replicas[0]
	mine, theirs := u.partial(r, []byte("abc")), other.partial(r, []byte("abc"))
	single := u.send(r, []byte("abc"))
	open := u.do("POST", r.URL+"/api/uploads", nil, "Upload-Length", "3", "Upload-Concat", "partial").header.Get("Location")
	for name, c := range map[string]struct {
		header string
		status int
		kind   string
	}{
		"another tenant's": {"final;" + mine + " " + theirs, 404, "not-found"},
		"nobody's":         {"final;" + mine + " /api/uploads/x", 404, "not-found"},
		"elsewhere":        {"final;/files/" + idOf(mine), 404, "not-found"},
		"a whole upload":   {"final;" + mine + " " + single, 400, "not-partial"},
		"twice":            {"final;" + mine + " " + mine, 400, "not-partial"},
		"not complete":     {"final;" + mine + " " + open, 409, "partial-open"},
		"none":             {"final;", 400, "upload-concat"},
		"another word":     {"last", 400, "upload-concat"},
		"no address":       {"final;http://%zz", 400, "upload-concat"},
	} {
		t.Run(name, func(t *testing.T) {
			u.do("POST", r.URL+"/api/uploads", nil, "Upload-Concat", c.header).want(t, c.status, c.kind)
		})
	}
	u.concat(r, []string{mine})
}

// The server is killed while S3 copies the second part of a final upload. The client asks another one for the
// same: it is finished, once, and nothing of the partial uploads is left.
func TestConcatOfAKilledServer(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	reached := make(chan struct{})
	s3 := holdSecondCopy(t, reached)
	victim := tramo.serves(t, "TRAMO_S3_ENDPOINT="+s3)
	var addresses []string
	var content []byte
	for _, size := range []int{6 << 20, 1000, 12 << 20} {
		data := noise(size)
		content = append(content, data...)
		addresses = append(addresses, u.partial(tramo.replicas[0], data))
	}
	go func() {
		_, _ = u.try(context.WithoutCancel(t.Context()), "POST", victim.URL+"/api/uploads", nil,
			"Upload-Concat", "final;"+strings.Join(addresses, " ")) // it is killed before it answers
	}()
	stack.Receive(t, "request to S3", reached)
	victim.Kill()
	final := u.concat(tramo.replicas[1], addresses).header.Get("Location")
	u.checkOnlyUpload(t, final, content)
	for _, a := range addresses {
		if files := objectsOf(t, idOf(a)); len(files) > 0 {
			t.Errorf("left in S3: %v", files)
		}
	}
}

// holdSecondCopy is S3 that never answers the second copy of a part.
func holdSecondCopy(t *testing.T, reached chan struct{}) string {
	t.Helper()
	target, err := url.Parse(tramo.S3.Endpoint())
	stack.Must(t, err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // which is signed
	}}
	var copies atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Amz-Copy-Source") != "" && copies.Add(1) == 2 {
			close(reached)
			<-r.Context().Done()
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// An unmodified tus-js-client that does not know the size of what it sends, over a connection that is cut.
func TestDeferredLength(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	path := fieldPhoto(t)
	proxy, err := stack.NewProxy(watched(t, tramo.replicas[0]).URL)
	stack.Must(t, err)
	defer proxy.Close()
	stack.Must(t, proxy.CutAfter(1<<20))
	sent := u.runTusJS(t, proxy, path, []string{"TRAMO_TEST_DEFERRED=1", "TRAMO_TEST_CHUNK=700000"}, "filename", "obra.jpg", "filetype", "image/jpeg")
	up, _ := u.await(tramo.replicas[1].URL + "/api/uploads/" + idOf(sent.URL))
	if original := read(t, path); up.Status != "completed" || up.Size != len(original) || up.SHA256 != sumOf(original) {
		t.Errorf("%+v", up)
	}
}

// A length is declared once, and may be declared again by a client that was cut off; an upload that turns out to be
// empty is refused and holds no room.
func TestDeferredLengthIsDeclaredOnce(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := tramo.replicas[0]
	begin := func() string {
		return u.do("POST", r.URL+"/api/uploads", nil, "Upload-Defer-Length", "1").header.Get("Location")
	}
	patch := func(at string, offset int, data, length string) answer {
		return u.do("PATCH", at, strings.NewReader(data), "Upload-Offset", strconv.Itoa(offset), "Upload-Length", length,
			"Content-Type", "application/offset+octet-stream")
	}
	at := begin()
	if head := u.do("HEAD", at, nil); head.header.Get("Upload-Defer-Length") != "1" || head.header.Get("Upload-Length") != "" {
		t.Errorf("HEAD: %v", head.header)
	}
	if body := u.do("GET", at, nil).body; !bytes.Contains(body, []byte(`"size":null`)) {
		t.Errorf("GET: %s", body)
	}
	for _, c := range []struct {
		offset       int
		data, length string
		status       int
	}{{0, "abcd", "", 204}, {4, "", "3", 400}, {4, "ef", "8", 204}, {6, "", "9", 400}, {6, "gh", "8", 204}, {8, "", "8", 204}} {
		patch(at, c.offset, c.data, c.length).want(t, c.status, "")
	}
	if up := u.get(at); up.Size != 8 || up.Offset != 8 || up.SHA256 != sumOf([]byte("abcdefgh")) {
		t.Errorf("%+v", up)
	}
	late := begin()
	patch(late, 0, "abcd", "")
	if a := patch(late, 4, "", "4"); a.status != http.StatusNoContent || u.get(late).SHA256 != sumOf([]byte("abcd")) {
		t.Errorf("declared with nothing more to send: %d %s", a.status, a.body)
	}
	empty := begin()
	patch(empty, 0, "", "0").want(t, http.StatusUnprocessableEntity, "empty")
	stack.Want(t, u.get(empty).Status, "cancelled", "status of an empty upload")
}

// partial sends data as a partial upload.
func (u user) partial(at replica, data []byte) string {
	u.t.Helper()
	a := u.do("POST", at.URL+"/api/uploads", bytes.NewReader(data), "Upload-Length", strconv.Itoa(len(data)),
		"Upload-Concat", "partial", "Content-Type", "application/offset+octet-stream").want(u.t, http.StatusCreated, "")
	return a.header.Get("Location")
}

func (u user) tryConcat(at replica, partials []string) answer {
	u.t.Helper()
	return u.do("POST", at.URL+"/api/uploads", nil, "Upload-Concat", "final;"+strings.Join(partials, " "))
}

func (u user) concat(at replica, partials []string) answer {
	u.t.Helper()
	return u.tryConcat(at, partials).want(u.t, http.StatusCreated, "")
}

// checkOnlyUpload makes sure that an upload is what was sent, has one job, and is all that its tenant has.
func (u user) checkOnlyUpload(t *testing.T, address string, content []byte) {
	t.Helper()
	id := idOf(address)
	checkObject(t, id, content)
	up := u.get(tramo.replicas[1].URL + "/api/uploads/" + id)
	if up.SHA256 != sumOf(content) || up.Size != len(content) || up.Offset != len(content) {
		t.Errorf("%+v", up)
	}
	var page struct{ Items []upload }
	a := u.do("GET", tramo.replicas[1].URL+"/api/uploads", nil)
	if err := json.Unmarshal(a.body, &page); err != nil || len(page.Items) != 1 || page.Items[0].ID != id {
		t.Errorf("listed %s, %v", a.body, err)
	}
	conn, err := pgx.Connect(stack.Context(t), tramo.Postgres.URL("postgres", tramo.Database))
	stack.Must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	var jobs int
	err = conn.QueryRow(stack.Context(t), `select count(*) from river_job where args->>'upload_id' = $1`, id).Scan(&jobs)
	if err != nil || jobs != 1 {
		t.Errorf("%d jobs, %v", jobs, err)
	}
}

// noise makes bytes that no two tests share.
func noise(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	return data
}
