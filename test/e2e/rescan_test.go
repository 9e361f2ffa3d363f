package e2e

import (
	"crypto/md5"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// A photo was found clean, and is completed. Then clamd learns of it, and an operator has what came since today scanned again:
// the photo is in quarantine and served no more, another one is untouched. An admin lets it out, and it is what it was.
func TestRescanCommand(t *testing.T) {
	t.Parallel()
	database := t.TempDir()
	stack.Must(t, os.WriteFile(filepath.Join(database, "eicar.hdb"), []byte("44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test-HDB\n"), 0o600))
	clamd, err := stack.StartClamd(t.Context(), stack.ClamdConfig{Dir: t.TempDir(), Database: database})
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, clamd.Stop()) })
	in := newIsolated(t)
	u := in.user(t)
	worker, err := in.work(stack.Context(t), "TRAMO_CLAMD="+clamd.Address())
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, worker.Stop()) })
	bad := stack.PNG(31, 17)
	url, other := u.send(in.server, bad, "filetype", "image/png"), u.send(in.server, stack.PNG(32, 17), "filetype", "image/png")
	for _, sent := range []string{url, other} {
		u.completes(sent)
	}

	line := fmt.Sprintf("%x:%d:Late-Find\n", md5.Sum(bad), len(bad))
	stack.Must(t, os.WriteFile(filepath.Join(database, "late.hdb"), []byte(line), 0o600))
	stack.Must(t, clamd.Restart(t.Context()))
	today := time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)
	rescan := func(args ...string) string {
		t.Helper()
		out, err := in.Tramo(stack.Context(t), append([]string{"rescan"}, args...)...)
		stack.Must(t, err)
		return strings.TrimSpace(out)
	}
	stack.Want(t, rescan("--since", "2036-01-01"), "0 uploads wait to be scanned again.", "rescan of the future")
	stack.Want(t, rescan("--since", today, "--dry-run"), "tenant acme: 2\n2 uploads would be scanned again.", "dry run")
	stack.Want(t, rescan("--since", today, "--tenant", "acme", "--signatures-before", "99999"), "tenant acme: 2\n2 uploads wait to be scanned again.", "rescan")
	for _, args := range [][]string{{}, {"--since", "yesterday"}, {"--since", today, "--tenant", "nobody"}, {"--since", "2026-11-02", "--until", "2026-11-01"}} {
		if out, err := in.Tramo(stack.Context(t), append([]string{"rescan"}, args...)...); err == nil {
			t.Errorf("%v: %s", args, out)
		}
	}
	state := func(of string) (s struct {
		Status     string
		Failure    *struct{ Reason, Detail string }
		Scan       struct{ Verdict, Signature string }
		Thumbnails []any
	}) {
		t.Helper()
		stack.Must(t, json.Unmarshal(u.do("GET", of, nil).body, &s))
		return s
	}
	stack.Until(t, "what the rescan found", func() bool { return state(url).Status == "failed" })
	if got := state(url); got.Failure.Reason != "infected" || got.Scan.Signature != "Late-Find.UNOFFICIAL" || len(got.Thumbnails) != 0 {
		t.Errorf("the upload is %+v", got)
	}
	u.do("GET", url+"/content", nil).want(t, http.StatusConflict, "")
	stack.Until(t, "the end of all rescans", func() bool {
		return in.count(t, `select count(*) from river_job where kind = 'rescan_upload' and state <> 'completed'`) == 0
	})
	if got := state(other); got.Status != "completed" || len(got.Thumbnails) == 0 {
		t.Errorf("the other upload is %+v", got)
	}

	olga := in.adminOf(t, "operators", "olga", "acme")
	at := in.server.URL + "/api/admin/quarantine"
	if a := olga.do("GET", at, nil); !strings.Contains(string(a.body), idOf(url)) || strings.Contains(string(a.body), idOf(other)) {
		t.Errorf("in quarantine: %d %s", a.status, a.body)
	}
	olga.do("POST", at+"/"+idOf(url)+"/release", strings.NewReader(`{"reason": "a false alarm"}`)).want(t, http.StatusAccepted, "")
	stack.Until(t, "the released upload", func() bool { return state(url).Status == "completed" })
	if got := state(url); len(got.Thumbnails) == 0 || got.Scan.Verdict != "infected" {
		t.Errorf("the upload is %+v", got)
	}
}
