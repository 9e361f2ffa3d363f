package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// A batchAnswer is the JSON of a batch, and of its manifest's entries.
type batchAnswer struct {
	ID     string
	State  string
	Counts map[string]int
	Bytes  struct{ Expected, Received, Safe int }
	Failed struct {
		Items []struct {
			ID      string
			Failure struct{ Reason string }
		}
	}
	CompletedAt *string `json:"completed_at"`
}

type filedAnswer struct {
	Batch   batchAnswer
	Uploads []struct {
		ClientID string `json:"client_id"`
		URL      string
		Status   string
		Existing bool
	}
}

func (u user) postJSON(url string, v any, headers ...string) answer {
	u.t.Helper()
	body, err := json.Marshal(v)
	stack.Must(u.t, err)
	return u.do("POST", url, bytes.NewReader(body), append([]string{"Content-Type", "application/json"}, headers...)...)
}

func decode[T any](t *testing.T, a answer, status int) (v T) {
	t.Helper()
	if a.status != status {
		t.Fatalf("%d %s, want %d", a.status, a.body, status)
	}
	stack.Must(t, json.Unmarshal(a.body, &v))
	return v
}

// awaitBatch waits until the batch is in the state and has ended since.
func (u user) awaitBatch(at, state string, since *string) (b batchAnswer) {
	u.t.Helper()
	stack.Until(u.t, "batch that is "+state, func() bool {
		b = decode[batchAnswer](u.t, u.do("GET", at, nil), 200)
		return b.State == state && (since == nil || b.CompletedAt != nil && *b.CompletedAt != *since)
	})
	return b
}

// A crew makes its manifest where there is no network. One photo went up before; the answer to the manifest is lost, and it
// is made again, at another replica; an unmodified tus-js-client sends what is missing to the addresses in the answer. One photo is
// none, but a program in an archive: a manager has it processed again, in vain, and the crew sends the photo.
func TestBatchOfACrew(t *testing.T) {
	t.Parallel()
	name, crew := newTenant(t, "1GiB")
	manager := tramo.userOf(t, name, "boss", "constructora")
	here, there := tramo.replicas[0], tramo.replicas[1]
	photos := make([][]byte, 3)
	var entries []map[string]any
	for i := range photos {
		photos[i] = stack.Photo(stack.PhotoConfig{Seed: uint64(i + 10)})
		entries = append(entries, map[string]any{
			"client_id": fmt.Sprintf("photo-%d", i), "filename": fmt.Sprintf("IMG_%d.jpg", i), "size": len(photos[i]), "type": "image/jpeg",
		})
	}
	whole := photos[2]
	photos[2] = stack.Zip(stack.ZipFile{Name: "META-INF/MANIFEST.MF", Content: "Main-Class: A\n"})
	entries[2]["size"], entries[2]["type"] = len(photos[2]), "application/zip"
	entries[1]["sha256"] = sumOf(photos[1])
	early := crew.send(here, photos[0], "client_id", "photo-0", "filename", "IMG_0.jpg", "filetype", "image/jpeg", "project", "torre")

	manifest := map[string]any{"project": "torre", "name": "Torre, lunes", "client_id": "lunes", "uploads": entries}
	lost := crew.postJSON(here.URL+"/api/batches", manifest, "Idempotency-Key", "lunes")
	told := crew.postJSON(there.URL+"/api/batches", manifest, "Idempotency-Key", "lunes")
	if lost.status != told.status || strings.ReplaceAll(string(lost.body), here.URL, there.URL) != string(told.body) {
		t.Fatalf("answered %d\n%s\nand then %d\n%s", lost.status, lost.body, told.status, told.body)
	}
	f := decode[filedAnswer](t, told, 201)
	if !f.Uploads[0].Existing || idOf(f.Uploads[0].URL) != idOf(early) || f.Uploads[1].Existing {
		t.Errorf("got %+v", f)
	}
	at := there.URL + "/api/batches/" + f.Batch.ID
	for i := 1; i < len(photos); i++ {
		sent := crew.sendTo(t, there, f.Uploads[i].URL, photos[i])
		stack.Want(t, sent.URL, f.Uploads[i].URL, "address of the upload")
	}
	b := crew.awaitBatch(at, "failed", nil)
	if b.Counts["completed"] != 2 || b.Counts["failed"] != 1 || b.Failed.Items[0].Failure.Reason != "type_not_allowed" {
		t.Fatalf("got %+v", b)
	}
	retried := decode[struct{ Retried []string }](t, manager.do("POST", at+"/retry", nil), 200)
	if len(retried.Retried) != 1 || retried.Retried[0] != idOf(f.Uploads[2].URL) {
		t.Errorf("got %+v", retried)
	}
	crew.awaitBatch(at, "failed", b.CompletedAt)

	entries[2]["size"], entries[2]["type"] = len(whole), "image/jpeg"
	again := decode[filedAnswer](t, crew.postJSON(at+"/uploads", map[string]any{"uploads": entries[2:]}), 200)
	crew.sendTo(t, there, again.Uploads[0].URL, whole)
	b = crew.awaitBatch(at, "completed", nil)
	if b.Counts["total"] != 3 || b.Counts["completed"] != 3 || b.Bytes.Safe != len(photos[0])+len(photos[1])+len(whole) {
		t.Errorf("got %+v", b)
	}
	investor := tramo.userOf(t, name, "fund", "inversionista")
	if b := decode[batchAnswer](t, investor.do("GET", at, nil), 200); b.Counts["completed"] != 3 {
		t.Errorf("an investor is told %+v", b)
	}
}

// sendTo sends data with an unmodified tus-js-client to an upload that is there.
func (u user) sendTo(t *testing.T, at replica, url string, data []byte) sentReport {
	t.Helper()
	proxy, err := stack.NewProxy(at.URL)
	stack.Must(t, err)
	t.Cleanup(proxy.Close)
	path := filepath.Join(t.TempDir(), "photo.jpg")
	stack.Must(t, os.WriteFile(path, data, 0o600))
	return u.runTusJS(t, proxy, path, []string{"TRAMO_TEST_UPLOAD_URL=" + url})
}

// A batch is cancelled at one replica while another receives one of its photos: that request ends soon, and its client hears
// that the upload is gone.
func TestBatchCancelledAtAnotherReplica(t *testing.T) {
	t.Parallel()
	name, crew := newTenant(t, "1GiB")
	manager := tramo.userOf(t, name, "boss", "constructora")
	here, there := tramo.replicas[0], tramo.replicas[1]
	f := decode[filedAnswer](t, crew.postJSON(here.URL+"/api/batches", map[string]any{"name": "x", "uploads": []map[string]any{
		{"client_id": "a", "filename": "a.jpg", "size": 10 << 20}, {"client_id": "b", "filename": "b.jpg", "size": 10},
	}}), 201)
	sending := crew.stall(f.Uploads[0].URL, 0, make([]byte, 2048))
	arrived(t, crew, f.Uploads[0].URL)
	b := decode[batchAnswer](t, manager.do("POST", there.URL+"/api/batches/"+f.Batch.ID+"/cancel", nil), 200)
	if b.State != "cancelled" || b.Counts["cancelled"] != 2 {
		t.Errorf("got %+v", b)
	}
	if a := sending.answer(); a.status != 423 && a.status != 410 {
		t.Errorf("the running request was answered %d %s", a.status, a.body)
	}
	crew.do("HEAD", f.Uploads[0].URL, nil).want(t, 410, "")
}
