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
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// A phone's photo, sent by an unmodified tus-js-client over a connection that is cut in the middle, three
// times, arrives byte for byte, without a byte sent twice that was received, and ends completed with its
// pictures and its place.
func TestUploadOverABrokenConnection(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	path := fieldPhoto(t)
	proxy, err := stack.NewProxy(tramo.replicas[0].URL)
	stack.Must(t, err)
	defer proxy.Close()
	stack.Must(t, proxy.CutAfter(1<<20))

	sent := u.runTusJS(t, proxy, path, nil, "filename", "obra.jpg", "filetype", "image/jpeg", "project", "torre-norte", "client_id", "a")
	if sent.Attempts < 3 {
		t.Errorf("the connection was to be cut, but %d attempts sufficed: %v", sent.Attempts, sent.Offsets)
	}
	if !slices.IsSorted(sent.Offsets) {
		t.Errorf("offsets went back: %v", sent.Offsets)
	}
	url := tramo.replicas[0].URL + "/api/uploads/" + idOf(sent.URL)
	up := u.completes(url)
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
		data := fetch(t, tramo.replicas[1].URL+d.URL) // every server takes the links of the others
		if len(data) != d.Bytes || !bytes.HasPrefix(data, []byte("RIFF")) || string(data[8:12]) != "WEBP" || d.Type != "image/webp" {
			t.Errorf("thumbnail %d: %d bytes, %.12q, %s", d.Size, len(data), data, d.Type)
		}
		stack.Want(t, max(d.Width, d.Height), d.Size, "size of a thumbnail of %d by %d", d.Width, d.Height)
		for _, chunk := range []string{"EXIF", "XMP "} {
			if bytes.Contains(data, []byte(chunk)) {
				t.Errorf("thumbnail %d carries %s", d.Size, chunk)
			}
		}
	}
	stack.Want(t, sizes, []int{160, 480, 1600}, "sizes of thumbnails")
}

// checkFacts compares with fieldPhotoTags.
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
// other; the second one goes on from the offset that the first one answered.
func TestUploadOverTwoReplicas(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	photo := stack.Photo(stack.PhotoConfig{Width: 6000, Height: 4500, Seed: 7, Quality: 95})
	if len(photo) < 9<<20 {
		t.Fatalf("the photo has %d bytes; more than a part is needed", len(photo))
	}
	url := u.create(tramo.replicas[0], len(photo), "filename", "grande.jpg", "filetype", "image/jpeg")
	other := tramo.replicas[1].URL + "/api/uploads/" + idOf(url)

	if a := u.patch(url, 0, photo[:1<<20]).want(t, http.StatusNoContent, ""); a.header.Get("Upload-Offset") != "1048576" {
		t.Fatalf("first piece: %v", a.header)
	}
	u.wantOffset(other, 1<<20)
	u.patch(other, 1<<20, photo[1<<20:9<<20-3]).want(t, http.StatusNoContent, "")
	if got := u.get(url); got.Status != "uploading" || got.Offset != 9<<20-3 {
		t.Fatalf("in the middle: %+v", got)
	}
	u.patch(url, 9<<20-3, photo[9<<20-3:]).want(t, http.StatusNoContent, "")
	up := u.arrives(other, photo)
	checkObject(t, up.ID, photo)
}

// A client whose connection to one replica hangs half-open asks the other: it learns the offset of all that
// was received, and the hanging request can add nothing any more.
func TestLeaseOfAHalfOpenConnection(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	first := tramo.serves(t)
	photo := stack.Photo(stack.PhotoConfig{Seed: 3})
	url := u.create(first, len(photo), "filetype", "image/jpeg")
	other := tramo.replicas[1].URL + "/api/uploads/" + idOf(url)

	const received = 700_000
	hanging := u.stall(url, 0, photo[:received])
	first.awaitMetric(t, "tramo_upload_received_bytes_total", received)
	u.wantOffset(other, received)
	u.patch(other, received, photo[received:]).want(t, http.StatusNoContent, "")
	hanging.hangUp()
	if a := hanging.answer(); a.status != 0 && a.status != http.StatusLocked {
		t.Errorf("the request that hung was answered %d %s", a.status, a.body)
	}
	u.arrives(other, photo)
}

// The sender of an upload sees each of its states, in order.
func TestUploadStates(t *testing.T) {
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
func TestClientIDOfALostCreation(t *testing.T) {
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
	u.wantOffset(again, 100)
	u.do("POST", tramo.replicas[0].URL+"/api/uploads", nil, "Upload-Length", "5", "Upload-Metadata", metadata(meta...)).want(t, http.StatusConflict, "client-id-taken")
}

// A cancelled upload gives its quota back, leaves nothing in S3 and is gone for clients.
func TestCancel(t *testing.T) {
	t.Parallel()
	_, u := newTenant(t, "1MiB")
	r := tramo.replicas[0]
	url := u.create(r, 1<<20, "filename", "a.pdf")
	u.patch(url, 0, make([]byte, 1000))
	u.do("DELETE", url, nil).want(t, http.StatusNoContent, "")
	u.do("HEAD", url, nil).want(t, http.StatusGone, "")
	stack.Want(t, u.get(url).Status, "cancelled", "status")
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
	a := u.do("POST", r.URL+"/api/uploads", nil, "Upload-Length", "6144").want(t, http.StatusRequestEntityTooLarge, "quota-exceeded")
	if p := a.problem(t); !strings.Contains(p.Detail, "4.0 KiB left") {
		t.Errorf("%+v", p)
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
		page := decode[struct {
			Items []upload
			Next  string
		}](t, u.do("GET", tramo.replicas[1].URL+"/api/uploads?project=a&limit=2&cursor="+cursor, nil), http.StatusOK)
		for _, up := range page.Items {
			listed = append(listed, up.ID)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	slices.Reverse(made)
	stack.Want(t, listed, made, "list")
}

// sentReport is what tus.mjs prints.
type sentReport struct {
	URL      string
	Attempts int
	Offsets  []int
}

// runTusJS uploads a file through proxy with an unmodified tus-js-client. env are variables that tus.mjs knows.
func (u user) runTusJS(t *testing.T, proxy *stack.Proxy, path string, env []string, meta ...string) sentReport {
	t.Helper()
	root, err := stack.RepoRoot()
	stack.Must(t, err)
	pairs := make(map[string]string)
	for i := 0; i < len(meta); i += 2 {
		pairs[meta[i]] = meta[i+1]
	}
	encoded, err := json.Marshal(pairs)
	stack.Must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := stack.Run(ctx, stack.ProcessConfig{
		Path: "/usr/bin/env",
		Args: []string{"node", filepath.Join(root, "test/e2e/tus.mjs"), filepath.Join(root, "web"), proxy.URL() + "/api/uploads", path},
		Env:  stack.CleanEnv(append(env, "TRAMO_TEST_TOKEN="+u.token, "TRAMO_TEST_METADATA="+string(encoded))...),
	})
	stack.Must(t, err)
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
	stack.Must(t, os.WriteFile(path, stack.Photo(stack.PhotoConfig{Seed: 1}), 0o600))
	args := []string{"-quiet", "-overwrite_original"}
	for _, tag := range fieldPhotoTags {
		args = append(args, "-"+tag)
	}
	if out, err := exec.CommandContext(stack.Context(t), "exiftool", append(args, path)...).CombinedOutput(); err != nil {
		t.Fatalf("exiftool: %v: %s", err, out)
	}
	return path
}

// fieldPhotoTags are what a phone writes on a site in Santiago de Chile, turned 90° clockwise. They are written
// as exiftool takes them.
var fieldPhotoTags = []string{
	"GPSLatitude=33.4489", "GPSLatitudeRef=S", "GPSLongitude=70.6693", "GPSLongitudeRef=W",
	"GPSAltitude=570", "GPSAltitudeRef=Above Sea Level",
	"Orientation#=6",
	"DateTimeOriginal=2026:03:14 16:20:05", "OffsetTimeOriginal=-03:00",
	"Make=Samsung", "Model=SM-A546E",
}

// What checkFacts expects of Tramo, exiftool reads too.
func TestFieldPhoto(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(stack.Context(t), "exiftool", "-n", "-json", fieldPhoto(t)).Output()
	stack.Must(t, err)
	var tags []struct {
		GPSLatitude, GPSLongitude, GPSAltitude            float64
		Orientation                                       int
		Make, Model, DateTimeOriginal, OffsetTimeOriginal string
	}
	stack.Must(t, json.Unmarshal(out, &tags))
	got := tags[0]
	if got.GPSLatitude > -33.44 || got.GPSLongitude > -70.66 || got.GPSAltitude != 570 || got.Orientation != 6 ||
		got.Model != "SM-A546E" || got.DateTimeOriginal != "2026:03:14 16:20:05" || got.OffsetTimeOriginal != "-03:00" {
		t.Errorf("tags read back: %+v", got)
	}
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
	stack.Must(t, err)
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
	stack.Must(t, err)
	return data
}

func fetch(t *testing.T, url string) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(stack.Context(t), http.MethodGet, url, http.NoBody)
	stack.Must(t, err)
	res, err := http.DefaultClient.Do(r)
	stack.Must(t, err)
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
