package e2e

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// curl runs curl and returns what it printed: the answer's body, and behind it its status.
func (u user) curl(args ...string) (body, status string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), patience)
	defer cancel()
	out, err := stack.Run(ctx, stack.ProcessConfig{
		Path: "/usr/bin/curl", Env: stack.CleanEnv(),
		Args: append([]string{"-sS", "-w", "\n%{http_code}", "-H", "Authorization: Bearer " + u.token}, args...),
	})
	stack.Must(u.t, err)
	end := strings.LastIndexByte(out, '\n')
	return out[:end], out[end+1:]
}

// A client that knows no tus sends a form with curl, gets the upload's state, and once it is completed gets the file
// back under its name, bytes for bytes, and its thumbnail.
func TestFormWithCurl(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	photo := fieldPhoto(t)
	data := read(t, photo)
	body, status := u.curl("-F", "project=torre", "-F", "sha256="+sumOf(data), "-F", "file=@"+photo+`;filename=día "1".jpg;type=image/jpeg`,
		tramo.replicas[0].URL+"/api/uploads")
	if status != "201" {
		t.Fatalf("%s %s", status, body)
	}
	var created upload
	stack.Must(t, json.Unmarshal([]byte(body), &created))
	if created.SHA256 != sumOf(data) || created.Filename != `día "1".jpg` || created.Project != "torre" || created.Size != len(data) {
		t.Errorf("%+v", created)
	}
	address := tramo.replicas[1].URL + "/api/uploads/" + created.ID
	if up, _ := u.await(address); up.Status != "completed" || len(up.Thumbnails) == 0 {
		t.Fatalf("%+v", up)
	}
	dir := t.TempDir()
	headers := filepath.Join(dir, "headers")
	back := filepath.Join(dir, "back")
	if _, status := u.curl("-L", "-D", headers, "-o", back, address+"/content"); status != "200" {
		t.Errorf("content: %s", status)
	}
	got, said := read(t, back), read(t, headers)
	if sumOf(got) != sumOf(data) || !strings.Contains(string(said), `filename*=UTF-8''d%C3%ADa%20%221%22.jpg`) {
		t.Errorf("%d bytes came back as\n%s", len(got), said)
	}
	if part, status := u.curl("-L", "-r", "1-3", "-o", back, address+"/content"); status != "206" {
		t.Errorf("a range: %s %s", status, part)
	}
	if _, status := u.curl("-L", "-o", back, address+"/thumbnails/160"); status != "200" {
		t.Errorf("thumbnail: %s", status)
	}
	if got = read(t, back); !strings.HasPrefix(string(got), "RIFF") {
		t.Errorf("the thumbnail begins with %q", got[:min(len(got), 12)])
	}
}

// What is infected is received by a form as by tus, and never given out.
func TestFormInfected(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	virus := filepath.Join(t.TempDir(), "eicar.com")
	write(t, virus, eicar())
	body, status := u.curl("-F", "file=@"+virus, tramo.replicas[0].URL+"/api/uploads")
	var created upload
	if status != "201" || json.Unmarshal([]byte(body), &created) != nil {
		t.Fatalf("%s %s", status, body)
	}
	address := tramo.replicas[0].URL + "/api/uploads/" + created.ID
	if up, _ := u.await(address); up.Failure == nil || up.Failure.Reason != "infected" {
		t.Errorf("%+v", up)
	}
	u.do("GET", address+"/content", nil).want(t, 409, "no-content")
}

// curl is killed in the middle of a form, on one replica; sent again to the other under the same client_id, the form
// goes on in the same upload, of which it is charged once.
func TestFormCutOffGoesOnAtTheOtherReplica(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	data := stack.Photo(stack.PhotoConfig{Seed: 7})
	path := filepath.Join(t.TempDir(), "photo.jpg")
	write(t, path, data)
	first, second := tramo.replicas[0].URL+"/api/uploads", tramo.replicas[1].URL+"/api/uploads"
	args := []string{"-sS", "-H", "Authorization: Bearer " + u.token, "-F", "client_id=one", "-F", "file=@" + path + ";type=image/jpeg"}
	cut := exec.CommandContext(t.Context(), "/usr/bin/curl", append(args, "--limit-rate", "300k", first)...)
	stack.Must(t, cut.Start())
	var listed struct{ Items []upload }
	stack.Until(t, "upload of the form that holds bytes", func() bool {
		stack.Must(t, json.Unmarshal(u.do("GET", first, nil).body, &listed))
		return len(listed.Items) == 1 && listed.Items[0].Offset > 0
	})
	stack.Must(t, cut.Process.Kill())
	_ = cut.Wait() // it was killed
	body, status := u.curl(append(args[3:], second)...)
	var again upload
	if status != "201" || json.Unmarshal([]byte(body), &again) != nil || again.ID != listed.Items[0].ID || again.SHA256 != sumOf(data) {
		t.Errorf("%s %s, want upload %s", status, body, listed.Items[0].ID)
	}
	u.completes(second + "/" + again.ID)
}
