package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tramo/tramo/test/stack"
)

type deadLetter struct {
	ID       string
	UploadID string `json:"upload_id"`
	State    string
	Step     string
	Error    string
	Attempts int
	TraceID  string `json:"trace_id"`
}

func (u user) deadLetters(at replica, query string) []deadLetter {
	u.t.Helper()
	return decode[struct{ Items []deadLetter }](u.t, u.do("GET", at.URL+"/api/admin/dead-letters"+query, nil), http.StatusOK).Items
}

// letters runs tramo dead-letters with the operator's login.
func (in *isolated) letters(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return stack.Run(stack.Context(t), stack.ProcessConfig{
		Path: in.Programs.Path("tramo"), Args: append([]string{"dead-letters"}, args...), Env: in.Env("tramo_worker"),
	})
}

// Objects in the bucket are overwritten: their uploads fail, each with a dead letter that only admins read. What is retried
// too early fails again. Once the objects are repaired the uploads are retried, one by the API and one by an
// operator's command, and completed; one is discarded. The metric follows.
func TestDeadLetterRetry(t *testing.T) {
	t.Parallel()
	in := newIsolated(t)
	u := in.user(t)
	root := in.adminOf(t, "operators", "root", "acme")
	photos := make(map[string][]byte) // by where they are kept
	var urls []string
	for i := range 3 {
		photo := stack.PNG(10+i, 10)
		url := u.send(in.server, photo, "filetype", "image/png")
		var key string
		stack.Must(t, in.sql.QueryRow(stack.Context(t), `select object_key from uploads where id = $1`, idOf(url)).Scan(&key))
		photos[key], urls = photo, append(urls, url)
		in.overwrite(t, key, append([]byte{^photo[0]}, photo[1:]...))
	}
	w := in.works(t, "TRAMO_RETRY_DELAY=10ms")
	byUpload := func(query string) map[string]deadLetter {
		found := make(map[string]deadLetter)
		for _, d := range root.deadLetters(in.server, query) {
			found[d.UploadID] = d
		}
		return found
	}
	for _, url := range urls {
		up, _ := u.await(url)
		if up.Status != "failed" || up.Failure.Reason != "dead_lettered" {
			t.Fatalf("got %+v", up)
		}
		d := byUpload("")[idOf(url)]
		if d.Step != "scan" || !strings.Contains(d.Error, "SHA-256") || d.Attempts != 3 || d.TraceID == "" {
			t.Errorf("got %+v", d)
		}
		for _, at := range []string{url, url + "/timeline"} {
			if a := u.do("GET", at, nil); a.status != http.StatusOK || bytes.Contains(a.body, []byte("SHA-256")) {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
	}
	w.awaitMetric(t, `tramo_dead_letters{step="scan"}`, 3)
	u.do("GET", in.server.URL+"/api/admin/dead-letters", nil).want(t, http.StatusForbidden, "")
	letters := byUpload("")
	at := func(url string) string { return in.server.URL + "/api/admin/dead-letters/" + letters[idOf(url)].ID }

	// Too early.
	root.do("POST", at(urls[0])+"/retry", nil).want(t, http.StatusOK, "")
	stack.Until(t, "a second letter", func() bool { return len(root.deadLetters(in.server, "?state=all")) == 4 })
	letters = byUpload("")
	stack.Until(t, "a fourth dead job", func() bool { // its letter comes first
		return in.count(t, `select count(*) from river_job where kind = 'process_upload' and state = 'discarded' and attempt = 3`) == 4
	})
	if len(letters) != 3 {
		t.Errorf("%d letters are open", len(letters))
	}

	for key, photo := range photos {
		in.overwrite(t, key, photo)
	}
	root.do("POST", at(urls[0])+"/retry", nil).want(t, http.StatusOK, "")
	u.arrives(urls[0], stack.PNG(10, 10))

	// The same by command.
	id := letters[idOf(urls[1])].ID
	out, err := in.letters(t, "list", "--step", "scan", "--since", "1h", "--tenant", "acme")
	stack.Must(t, err)
	wantLines(t, strings.Split(out, "\n"), "ID TENANT UPLOAD FAILED STATE STEP ATTEMPTS ERROR", id+" "+idOf(urls[1])+" open scan 3 SHA-256")
	out, err = in.letters(t, "list", "--json", "--step", "thumbnails")
	stack.Must(t, err)
	stack.Want(t, out, "", "letters of another step")
	out, err = in.letters(t, "retry", "--all", "--step", "scan", "--dry-run")
	stack.Must(t, err)
	wantLines(t, strings.Split(out, "\n"), id+": would retry upload "+idOf(urls[1]), "2 found, 0 retried, 0 failed")
	stack.Want(t, u.get(urls[1]).Status, "failed", "status after a dry run")
	out, err = in.letters(t, "retry", id)
	stack.Must(t, err)
	wantLines(t, strings.Split(out, "\n"), id+": retried upload "+idOf(urls[1]), "1 found, 1 retried, 0 failed")
	u.arrives(urls[1], stack.PNG(11, 10))
	for _, args := range [][]string{{"retry", id}, {"retry", "0199d6f8-0000-7000-8000-000000000000"}, {"retry"}, {"retry", "--all", id},
		{"retry", "--step", "scan"}, {"list", "--tenant", "nobody"}, {"discard", "x"}} {
		if out, err := in.letters(t, args...); err == nil {
			t.Errorf("tramo dead-letters %q succeeds: %s", args, out)
		}
	}

	out, err = in.letters(t, "discard", "--all", "--tenant", "acme")
	stack.Must(t, err)
	wantLines(t, strings.Split(out, "\n"), "discarded upload "+idOf(urls[2]), "1 found, 1 discarded, 0 failed")
	if left := root.deadLetters(in.server, ""); len(left) != 0 {
		t.Errorf("open are %+v", left)
	}
	stack.Want(t, u.get(urls[2]).Status, "failed", "status")
	stack.Until(t, "no open letter in the metrics", func() bool { return w.metric(t, `tramo_dead_letters{step="scan"}`) == 0 })
	if n := in.count(t, `select count(*) from audit where actor = 'operator' and role = 'admin' and (action, subject) in (values
		('dead_letter.retry', '`+idOf(urls[1])+`'), ('dead_letter.discard', '`+idOf(urls[2])+`'))`); n != 2 {
		t.Errorf("the audit log has %d entries of the operator's", n)
	}

	// The rest of the API, where nothing is left to do.
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", at(urls[1]), "", 200},
		{"DELETE", at(urls[2]), "", 204},
		{"POST", at(urls[1]) + "/retry", "", 409},
		{"POST", in.server.URL + "/api/admin/dead-letters/retry", fmt.Sprintf(`{"ids": [%q]}`, id), 200},
		{"POST", in.server.URL + "/api/admin/dead-letters/retry", `{"step": "scan", "since": "2026-01-01T00:00:00Z"}`, 200},
	} {
		root.do(c.method, c.path, strings.NewReader(c.body), "Content-Type", "application/json").want(t, c.status, "")
	}
}

// overwrite puts something else where an upload's bytes are kept.
func (in *isolated) overwrite(t *testing.T, key string, content []byte) {
	t.Helper()
	_, err := in.S3.Client("").PutObject(stack.Context(t), &s3.PutObjectInput{Bucket: &in.Bucket, Key: &key, Body: bytes.NewReader(content)})
	stack.Must(t, err)
}

// A command tells listeners of what it has changed before it ends.
func TestDeadLetterCommandNotifies(t *testing.T) {
	t.Parallel()
	in := newIsolated(t)
	u := in.user(t)
	id := idOf(u.send(in.server, stack.PNG(10, 10), "filetype", "image/png"))
	in.exec(t, `update uploads set status = 'failed', failure_reason = 'dead_lettered' where id = $1`, id)
	in.exec(t, `
		insert into dead_letters (tenant_id, id, upload_id, job_id, kind, step, error, attempts)
		select tenant_id, gen_random_uuid(), id, 1, 'process_upload', 'scan', 'x', 3 from uploads where id = $1`, id)
	stack.Must(t, in.server.Stop()) // only the command notifies
	in.exec(t, `listen tramo_changes`)
	out, err := in.letters(t, "retry", "--all")
	stack.Must(t, err)
	wantLines(t, strings.Split(out, "\n"), "1 found, 1 retried, 0 failed")
	_, err = in.sql.WaitForNotification(stack.Context(t))
	stack.Must(t, err)
}
