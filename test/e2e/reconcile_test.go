package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// An isolated is an installation with a database and a bucket of its own, without a worker.
type isolated struct {
	installation
	server replica
	sql    *pgx.Conn
}

func newIsolated(t *testing.T, vars ...string) *isolated {
	t.Helper()
	in := &isolated{installation: installation{install(t, stack.Installation{Bucket: newName()}).With(vars...)}}
	var err error
	in.installation, err = in.withOperators(stack.Context(t))
	stack.Must(t, err)
	in.server, err = in.serve(stack.Context(t))
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, in.server.Stop()) })
	in.sql = in.admin(t)
	return in
}

func (in *isolated) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := in.sql.Exec(stack.Context(t), sql, args...)
	stack.Must(t, err)
}

func (in *isolated) count(t *testing.T, sql string) (n int) {
	t.Helper()
	stack.Must(t, in.sql.QueryRow(stack.Context(t), sql).Scan(&n))
	return n
}

func (in *isolated) wantCount(t *testing.T, want int, sql string) {
	t.Helper()
	stack.Want(t, in.count(t, sql), want, "%s", sql)
}

// reconcile runs the command and returns its lines.
func (in *isolated) reconcile(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := stack.Run(stack.Context(t), stack.ProcessConfig{
		Path: in.Programs.Path("tramo"), Args: append([]string{"reconcile", "--grace", "0s"}, args...),
		Env: in.Env("tramo_worker"),
	})
	stack.Must(t, err)
	return strings.Split(strings.TrimSpace(out), "\n")
}

// path is where the S3 server keeps the object under the key.
func (in *isolated) path(key string) string { return filepath.Join(in.S3.Dir(), in.Bucket, key) }

func (in *isolated) put(t *testing.T, key string) {
	t.Helper()
	_, err := in.S3.Client("").PutObject(stack.Context(t), &s3.PutObjectInput{Bucket: &in.Bucket, Key: &key, Body: strings.NewReader("late")})
	stack.Must(t, err)
}

// An admin looks first, and nothing changes; then repairs, and gets a list of what only an admin can decide; then decides.
func TestReconcileCommand(t *testing.T) {
	t.Parallel()
	in := newIsolated(t)
	u := in.user(t)
	id := idOf(u.send(in.server, stack.PNG(10, 10), "filetype", "image/png"))
	u.send(in.server, stack.PNG(12, 12), "filetype", "image/png")
	in.exec(t, `delete from river_job where args->>'upload_id' = $1`, id)
	in.exec(t, `update tenants set charged_bytes = charged_bytes + 1000`)
	var key string
	stack.Must(t, in.sql.QueryRow(stack.Context(t), `select object_key from uploads where id = $1`, id).Scan(&key))
	late := filepath.Dir(key) + "/original-999999"
	unknown := strings.ReplaceAll(late, id, "0199d6f8-0000-7000-8000-000000000000")
	in.put(t, late)
	in.put(t, unknown)

	wantLines(t, in.reconcile(t, "--dry-run"), "missing_job upload "+id+" would enqueue", "quota_drift would charge", "orphaned_object key "+late+" would delete",
		"unknown_object key "+unknown+" left: --delete-unknown", "missing_job 1 found, 0 repaired, 1 to repair", "unknown_object 1 found, 1 left")
	in.wantCount(t, 1, `select count(*) from river_job where kind = 'process_upload'`)
	if _, err := os.Stat(in.path(late)); err != nil {
		t.Error(err)
	}

	wantLines(t, in.reconcile(t), "missing_job upload "+id+" repaired", "quota_drift repaired", "orphaned_object key "+late+" repaired",
		"unknown_object key "+unknown+" left: --delete-unknown", "missing_job 1 found, 1 repaired", "unknown_object 1 found, 0 repaired")
	in.wantCount(t, 2, `select count(*) from river_job where kind = 'process_upload'`)
	in.wantCount(t, 0, `select count(*) from tenants t where charged_bytes <> (select coalesce(sum(size), 0) from uploads where tenant_id = t.id)`)
	if _, err := os.Stat(in.path(late)); !os.IsNotExist(err) {
		t.Errorf("the object that was nobody's: %v", err)
	}

	var line struct{ Kind, Outcome, Key string }
	stack.Must(t, json.Unmarshal([]byte(in.reconcile(t, "--json", "--delete-unknown")[0]), &line))
	if line.Kind != "unknown_object" || line.Outcome != "repaired" || line.Key != unknown {
		t.Errorf("got %+v", line)
	}
	wantLines(t, in.reconcile(t), "Nothing to repair.")
}

// wantLines looks, for each of the wanted, for a line that has all of its words in their order.
func wantLines(t *testing.T, lines []string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		found := false
		for _, line := range lines {
			rest, all := line, true
			for word := range strings.FieldsSeq(want) {
				_, after, ok := strings.Cut(rest, word)
				rest, all = after, all && ok
			}
			found = found || all
		}
		if !found {
			t.Errorf("no line says %q:\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

// The server could not finish an upload that has all its bytes, and its client never comes back: a worker finishes it, and
// it goes all the way.
func TestReconcileFinishesWhatWasCutOff(t *testing.T) {
	t.Parallel()
	in := newIsolated(t)
	u := in.user(t)
	photo := stack.PNG(10, 10)
	url := u.create(in.server, len(photo), "filetype", "image/png")
	in.exec(t, `revoke insert on river_job from tramo_api`)
	if a := u.patch(url, 0, photo); a.status < http.StatusBadRequest {
		t.Fatalf("the PATCH was answered %d", a.status)
	}
	if up := u.get(url); up.Status != "uploading" {
		t.Fatalf("it is %s", up.Status)
	}
	w := in.works(t, "TRAMO_RECONCILE_INTERVAL=1s", "TRAMO_STUCK_GRACE=0s")
	u.arrives(url, photo)
	w.awaitMetric(t, `tramo_reconcile_repaired_total{kind="interrupted_finish"}`, 1)
	w.awaitMetric(t, `tramo_reconcile_last_success_timestamp_seconds{pass="quick"}`, 1)
	w.awaitMetric(t, `tramo_reconcile_last_success_timestamp_seconds{pass="inventory"}`, 1)
	in.wantCount(t, 1, `select count(*) from timeline where event = 'repaired' and detail->>'kind' = 'interrupted_finish'`)
	if served := string(fetch(t, w.Ops+"/metrics")); !strings.Contains(served, `tramo_reconcile_found_total{kind="lost_object"} 0`) {
		t.Error("a kind that was never found is not told as 0")
	}
}
