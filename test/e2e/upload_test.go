package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// A phone's photo, sent by an unmodified tus-js-client over a connection that is cut in the middle, three
// times, arrives byte for byte, without a byte sent twice that was received, and ends completed with its
// pictures and its place.
func TestPhotoOverABrokenConnection(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	path := fieldPhoto(t)
	proxy, err := stack.NewProxy(tramo.replicas[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	if err := proxy.CutAfter(1 << 20); err != nil {
		t.Fatal(err)
	}

	sent := u.sendWithTusJS(t, proxy, path, "filename", "obra.jpg", "filetype", "image/jpeg", "project", "torre-norte", "client_id", "a")
	if sent.Attempts < 3 {
		t.Errorf("the connection was to be cut, but %d attempts sufficed: %v", sent.Attempts, sent.Offsets)
	}
	if !slices.IsSorted(sent.Offsets) {
		t.Errorf("offsets went back: %v", sent.Offsets)
	}
	url := tramo.replicas[0].URL + "/api/uploads/" + idOf(sent.URL)
	up, _ := u.await(url)
	if up.Status != "completed" {
		t.Fatalf("status %s, failure %+v", up.Status, up.Failure)
	}
	original := read(t, path)
	if up.Offset != len(original) || up.SHA256 != sumOf(original) {
		t.Errorf("got %d bytes with SHA-256 %s, sent %d with %s", up.Offset, up.SHA256, len(original), sumOf(original))
	}
	if up.Project != "torre-norte" || up.Filename != "obra.jpg" || up.Type != "image/jpeg" {
		t.Errorf("project %q, filename %q, type %q", up.Project, up.Filename, up.Type)
	}
	checkObject(t, up.ID, original)
	checkThumbnails(t, up)
	checkFacts(t, up)
	checkTags(t, u, url)
}

func checkThumbnails(t *testing.T, up upload) {
	t.Helper()
	var sizes []int
	for _, d := range up.Thumbnails {
		sizes = append(sizes, d.Size)
		data := fetch(t, d.URL)
		if len(data) != d.Bytes || !bytes.HasPrefix(data, []byte("RIFF")) || string(data[8:12]) != "WEBP" || d.Type != "image/webp" {
			t.Errorf("thumbnail %d: %d bytes, %.12q, %s", d.Size, len(data), data, d.Type)
		}
		if max(d.Width, d.Height) != d.Size {
			t.Errorf("thumbnail %d is %d by %d", d.Size, d.Width, d.Height)
		}
		for _, chunk := range []string{"EXIF", "XMP "} {
			if bytes.Contains(data, []byte(chunk)) {
				t.Errorf("thumbnail %d carries %s", d.Size, chunk)
			}
		}
	}
	if !slices.Equal(sizes, []int{160, 480, 1600}) {
		t.Errorf("thumbnails %v", sizes)
	}
}

// checkFacts compares with what stack.FieldPhotoTags wrote.
func checkFacts(t *testing.T, up upload) {
	t.Helper()
	e := up.Facts
	if e == nil || e.GPS == nil || e.Camera == nil {
		t.Fatalf("no facts: %+v", e)
	}
	if e.GPS.Latitude != -33.4489 || e.GPS.Longitude != -70.6693 || e.GPS.Altitude != 570 {
		t.Errorf("position %+v", e.GPS)
	}
	if e.TakenAt != "2026-03-14T19:20:05Z" || e.TakenLocal != "2026-03-14T16:20:05" {
		t.Errorf("taken at %s, local %s", e.TakenAt, e.TakenLocal)
	}
	if e.Camera.Make != "Samsung" || e.Camera.Model != "SM-A546E" || e.Orientation != 6 || e.Width != 3000 || e.Height != 4000 {
		t.Errorf("camera %+v, orientation %d, %d by %d", e.Camera, e.Orientation, e.Width, e.Height)
	}
}

// checkTags looks for one of them, through the child, the database and the server.
func checkTags(t *testing.T, u user, url string) {
	t.Helper()
	a := u.do("GET", url+"/tags", nil)
	var said struct {
		Tags      map[string]map[string]any
		Truncated bool
	}
	if err := json.Unmarshal(a.body, &said); err != nil || said.Tags["IFD0"]["Model"] != "SM-A546E" || said.Truncated {
		t.Errorf("tags: %d %s", a.status, a.body)
	}
}

// An upload begun on one replica, cut there in the middle of a part and of the whole, is finished on the
// other; the offset that the first one told is what the second one goes on from.
func TestBegunOnOneReplicaFinishedOnTheOther(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	photo := stack.Photo(stack.PhotoConfig{Width: 6000, Height: 4500, Seed: 7, Quality: 95})
	if len(photo) < 9<<20 {
		t.Fatalf("the photo has %d bytes; more than a part is needed", len(photo))
	}
	url := u.create(tramo.replicas[0], len(photo), "filename", "grande.jpg", "filetype", "image/jpeg")
	other := tramo.replicas[1].URL + "/api/uploads/" + idOf(url)

	if a := u.patch(url, 0, photo[:1<<20]); a.status != http.StatusNoContent || a.header.Get("Upload-Offset") != "1048576" {
		t.Fatalf("first piece: %d %s", a.status, a.body)
	}
	if got := u.offset(other); got != 1<<20 {
		t.Fatalf("the other replica tells offset %d", got)
	}
	if a := u.patch(other, 1<<20, photo[1<<20:9<<20-3]); a.status != http.StatusNoContent {
		t.Fatalf("second piece: %d %s", a.status, a.body)
	}
	if got := u.get(url); got.Status != "uploading" || got.Offset != 9<<20-3 {
		t.Fatalf("in the middle: %+v", got)
	}
	if a := u.patch(url, 9<<20-3, photo[9<<20-3:]); a.status != http.StatusNoContent {
		t.Fatalf("last piece: %d %s", a.status, a.body)
	}
	up, _ := u.await(other)
	if up.Status != "completed" || up.SHA256 != sumOf(photo) {
		t.Fatalf("%+v", up)
	}
	checkObject(t, up.ID, photo)
}

// A client whose connection to one replica hangs half-open asks the other: it learns the offset of all that
// was received, and the hanging request can add nothing any more.
func TestHalfOpenConnectionIsTakenOver(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	first, err := tramo.serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Stop() //nolint:errcheck // the test has spoken
	photo := stack.Photo(stack.PhotoConfig{Seed: 3})
	url := u.create(first, len(photo), "filetype", "image/jpeg")
	other := tramo.replicas[1].URL + "/api/uploads/" + idOf(url)

	body, hanging := io.Pipe()
	ended := make(chan answer, 1)
	go func() {
		a, _ := u.try(context.WithoutCancel(t.Context()), "PATCH", url, body, "Upload-Offset", "0", "Content-Type", "application/offset+octet-stream")
		ended <- a
	}()
	const received = 700_000
	if _, err := hanging.Write(photo[:received]); err != nil {
		t.Fatal(err)
	}
	first.awaitMetric(t, "tramo_upload_received_bytes_total", received)
	got := u.offset(other)
	if got != received {
		t.Fatalf("offset %d, but %d bytes were received", got, received)
	}
	if a := u.patch(other, got, photo[got:]); a.status != http.StatusNoContent {
		t.Fatalf("PATCH on the other replica: %d %s", a.status, a.body)
	}
	hanging.CloseWithError(io.ErrUnexpectedEOF)
	if a := stack.Receive(t, "end of the PATCH that hung", ended); a.status != 0 && a.status != http.StatusLocked {
		t.Errorf("the request that hung was answered %d %s", a.status, a.body)
	}
	up, _ := u.await(other)
	if up.Status != "completed" || up.SHA256 != sumOf(photo) {
		t.Fatalf("%+v", up)
	}
}

// The sender of an upload sees each of its states, in order.
func TestEveryState(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	photo := stack.Photo(stack.PhotoConfig{Width: 4000, Height: 3000, Seed: 5})
	url := u.create(tramo.replicas[0], len(photo), "filetype", "image/jpeg")
	states := []string{u.get(url).Status}
	u.patch(url, 0, photo[:1000])
	states = append(states, u.get(url).Status)
	u.patch(url, 1000, photo[1000:])
	_, seen := u.await(url)
	states = append(states, seen...)
	order := []string{"pending", "uploading", "uploaded", "processing", "completed"}
	last := -1
	for _, s := range states {
		at := slices.Index(order, s)
		if at < last {
			t.Errorf("states came in the order %v", states)
		}
		last = at
	}
	if states[0] != "pending" || states[1] != "uploading" || states[len(states)-1] != "completed" {
		t.Errorf("states %v", states)
	}
}

// A client that never received the answer to its creation creates again under the same client_id: it gets
// the same upload, goes on from its offset, and there is one object in the end.
func TestLostCreationIsFoundAgain(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	photo := stack.Photo(stack.PhotoConfig{Width: 800, Height: 600, Seed: 9})
	meta := []string{"filename", "p.jpg", "filetype", "image/jpeg", "client_id", "phone-17/0001"}
	first := u.create(tramo.replicas[0], len(photo), meta...)
	u.patch(first, 0, photo[:100])
	again := u.create(tramo.replicas[1], len(photo), meta...)
	if idOf(first) != idOf(again) {
		t.Fatalf("two uploads, %s and %s", first, again)
	}
	if got := u.offset(again); got != 100 {
		t.Fatalf("offset %d", got)
	}
	a := u.do("POST", tramo.replicas[0].URL+"/api/uploads", nil, "Upload-Length", "5", "Upload-Metadata", metadata(meta...))
	if p := a.problem(t); a.status != http.StatusConflict || p.Type != "/problems/client-id-taken" {
		t.Errorf("another size under the same client_id: %d %+v", a.status, p)
	}
}

// A cancelled upload gives its quota back, leaves nothing in S3 and is gone for clients.
func TestCancel(t *testing.T) {
	t.Parallel()
	_, u := newTenant(t, "1MiB")
	r := tramo.replicas[0]
	url := u.create(r, 1<<20, "filename", "a.pdf")
	u.patch(url, 0, make([]byte, 1000))
	if a := u.do("DELETE", url, nil); a.status != http.StatusNoContent {
		t.Fatalf("DELETE: %d %s", a.status, a.body)
	}
	if a := u.do("HEAD", url, nil); a.status != http.StatusGone {
		t.Errorf("HEAD afterwards: %d", a.status)
	}
	if got := u.get(url).Status; got != "cancelled" {
		t.Errorf("status %s", got)
	}
	if files := objectsOf(t, idOf(url)); len(files) != 0 {
		t.Errorf("left in S3: %v", files)
	}
	u.create(r, 1<<20, "filename", "b.pdf") // fits only if the quota was given back
}

func TestQuota(t *testing.T) {
	t.Parallel()
	_, u := newTenant(t, "10KiB")
	r := tramo.replicas[0]
	u.create(r, 6<<10)
	a := u.do("POST", r.URL+"/api/uploads", nil, "Upload-Length", "6144")
	p := a.problem(t)
	if a.status != http.StatusRequestEntityTooLarge || p.Type != "/problems/quota-exceeded" || !strings.Contains(p.Detail, "4.0 KiB left") {
		t.Errorf("%d %+v", a.status, p)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	var made []string
	for range 5 {
		made = append(made, idOf(u.create(tramo.replicas[0], 10, "project", "a")))
	}
	u.create(tramo.replicas[0], 10, "project", "b")
	var listed []string
	for cursor := ""; ; {
		var page struct {
			Items []upload
			Next  string
		}
		a := u.do("GET", tramo.replicas[1].URL+"/api/uploads?project=a&limit=2&cursor="+cursor, nil)
		if err := json.Unmarshal(a.body, &page); err != nil || a.status != http.StatusOK {
			t.Fatalf("%d %s %v", a.status, a.body, err)
		}
		for _, up := range page.Items {
			listed = append(listed, up.ID)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	slices.Reverse(made)
	if !slices.Equal(listed, made) {
		t.Errorf("listed %v, made %v", listed, made)
	}
}

// sentReport is what tus.mjs prints.
type sentReport struct {
	URL      string
	Attempts int
	Offsets  []int
}

// sendWithTusJS uploads a file through proxy with an unmodified tus-js-client.
func (u user) sendWithTusJS(t *testing.T, proxy *stack.Proxy, path string, meta ...string) sentReport {
	t.Helper()
	return u.runTusJS(t, proxy, path, nil, meta...)
}

// runTusJS is sendWithTusJS with variables that tus.mjs knows.
func (u user) runTusJS(t *testing.T, proxy *stack.Proxy, path string, env []string, meta ...string) sentReport {
	t.Helper()
	root, err := stack.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	pairs := make(map[string]string)
	for i := 0; i < len(meta); i += 2 {
		pairs[meta[i]] = meta[i+1]
	}
	encoded, err := json.Marshal(pairs)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := stack.Run(ctx, stack.ProcessConfig{
		Path: "/usr/bin/env",
		Args: []string{"node", filepath.Join(root, "test/e2e/tus.mjs"), filepath.Join(root, "web"), proxy.URL() + "/api/uploads", path},
		Env:  stack.CleanEnv(append(env, "TRAMO_TEST_TOKEN="+u.token, "TRAMO_TEST_METADATA="+string(encoded))...),
	})
	if err != nil {
		t.Fatal(err)
	}
	var r sentReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return r
}

// fieldPhoto makes a 12 megapixel photo with a phone's tags.
func fieldPhoto(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "photo.jpg")
	if err := os.WriteFile(path, stack.Photo(stack.PhotoConfig{Seed: 1}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stack.Tag(t.Context(), path, stack.FieldPhotoTags()...); err != nil {
		t.Fatal(err)
	}
	return path
}

// objectsOf returns the files in which S3 keeps an upload's objects.
func objectsOf(t *testing.T, id string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(filepath.Join(tramo.S3.Dir(), tramo.S3.Bucket()), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "/uploads/"+id+"/") {
			files = append(files, path)
		}
		return nil // tests beside this one come and go
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// checkObject compares the upload's object, as a plain file, with what was sent.
func checkObject(t *testing.T, id string, original []byte) {
	t.Helper()
	var found bool
	for _, path := range objectsOf(t, id) {
		if strings.HasPrefix(filepath.Base(path), "tail-") {
			t.Errorf("a tail is left: %s", path)
		}
		if strings.HasPrefix(filepath.Base(path), "original-") {
			found = true
			if !bytes.Equal(read(t, path), original) {
				t.Errorf("%s is not what was sent", path)
			}
		}
	}
	if !found {
		t.Errorf("upload %s has no object", id)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func fetch(t *testing.T, url string) []byte {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() // read to its end
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v", url, res.StatusCode, err)
	}
	return data
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
