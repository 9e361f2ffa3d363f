package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// All that is wrong with the configuration is reported at once, each mistake with its variable.
func TestSettingsThatAreWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		binary  string
		args    []string
		env     []string // every variable is wrong
		missing []string
	}{
		"server": {"tramo", []string{"serve"}, []string{
			"TRAMO_MAX_UPLOAD_SIZE=lots", "TRAMO_PART_SIZE=1MiB", "TRAMO_JWT_SECRET=short", "TRAMO_S3_ENDPOINT=here", "TRAMO_ROLE_MAP=foreman=boss",
			"TRAMO_PUBLIC_URL=uploads", "TRAMO_LISTEN=8080", "TRAMO_LEASE_TTL=soon", "TRAMO_ALLOWED_TYPES=photos", "TRAMO_LOG_LEVEL=loud",
			"TRAMO_RECEIPT_KEY_FILE=/dev/null", "TRAMO_RECEIPT_RETIRED_KEYS_FILE=nowhere.pem", "TRAMO_UNFINISHED_RETENTION=5m",
			"TRAMO_TRUSTED_PROXIES=proxy", "TRAMO_TENANT_UPLOADS=-1", "TRAMO_RATE_IP=-1", "TRAMO_RATE_UPLOADS_BURST=9999999",
			"TRAMO_REDIS_URL=cache:6379", "TRAMO_REDIS_TIMEOUT=0s", "TRAMO_OPS_LISTEN=9090", "TRAMO_LOG_FORMAT=xml", "TRAMO_CORS_ORIGINS=everywhere",
			"TRAMO_NETWORK_TIMEOUT=0s", "TRAMO_DELETED_RETENTION=1s", "TRAMO_MAX_BATCH=0", "TRAMO_STALLED_AFTER=0s", "TRAMO_LISTENERS_PER_USER=0",
			"TRAMO_LISTENERS_PER_TENANT=0", "TRAMO_BUFFER_MEMORY=1", "TRAMO_CHECKPOINT_BYTES=1", "TRAMO_CHECKPOINT_INTERVAL=1ms", "TRAMO_WEBHOOK_KEY=short",
			"TRAMO_LINK_KEY=short", "TRAMO_RATE_USER_THUMBNAILS=-1",
			"TRAMO_TOKEN_MAX_LIFETIME=-1s", "TRAMO_ADMIN_TENANTS=acme",
		}, []string{"TRAMO_DATABASE_URL", "TRAMO_S3_BUCKET"}},
		"server without a secret": {"tramo", []string{"serve", "--jwks-url=http://127.0.0.1:9"}, nil, []string{"TRAMO_LINK_KEY"}},
		"worker": {"tramo-worker", nil, []string{
			"TRAMO_CLAMD=here", "TRAMO_WORKERS=-1", "TRAMO_RESCAN_WORKERS=-1", "TRAMO_SAVE_AFTER=-1s", "TRAMO_RETRY_DELAY=0s", "TRAMO_BUSY_DELAY=0s", "TRAMO_LOST_AFTER=1ms",
			"TRAMO_STOP_TIMEOUT=-1s", "TRAMO_CHILD_MEMORY=1MiB", "TRAMO_CHILD_TIMEOUT=1ms", "TRAMO_CHILD_CPU_TIMEOUT=1ms", "TRAMO_CHILD_FILES=0",
			"TRAMO_CHILDREN=-1", "TRAMO_CONFINEMENT=maybe", "TRAMO_SCAN_MAX=4GiB", "TRAMO_SCAN_OVERSIZE=keep", "TRAMO_TYPE_MISMATCH=maybe", "TRAMO_MAX_PIXELS=0",
			"TRAMO_TEMP_SPACE=0", "TRAMO_STUCK_GRACE=-1s", "TRAMO_ORPHAN_GRACE=-1s", "TRAMO_RECONCILE_INTERVAL=1ms", "TRAMO_INVENTORY_INTERVAL=0s",
			"TRAMO_ERASE_INTERVAL=0s", "TRAMO_WEBHOOK_TIMEOUT=1ms", "TRAMO_WEBHOOK_CONCURRENCY=1", "TRAMO_WEBHOOK_RETENTION=1h", "TRAMO_WEBHOOK_ALLOW=ours",
		}, []string{"TRAMO_DATABASE_URL", "TRAMO_S3_BUCKET"}},
		"migrate": {"tramo", []string{"migrate"}, nil, []string{"TRAMO_DATABASE_URL"}},
		"dev": {"tramo-dev", nil, []string{
			"TRAMO_LISTEN=8080", "TRAMO_DEV_S3_LISTEN=8081", "TRAMO_DATABASE_URL=mysql://",
			"TRAMO_JWT_SECRET=short", "TRAMO_JWKS_URL=http://127.0.0.1:9",
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := stack.Run(stack.Context(t), stack.ProcessConfig{Path: tramo.Programs.Path(c.binary), Args: c.args, Env: stack.CleanEnv(c.env...)})
			if err == nil {
				t.Fatal("it started")
			}
			wrong := c.missing
			for _, v := range c.env {
				variable, _, _ := strings.Cut(v, "=")
				wrong = append(wrong, variable)
			}
			for _, variable := range wrong {
				if !regexp.MustCompile(`\b` + variable + `[:,=]`).MatchString(err.Error()) {
					t.Errorf("%s is not named in:\n%v", variable, err)
				}
			}
			if strings.Contains(err.Error(), "short\n") {
				t.Errorf("a secret is told: %v", err)
			}
		})
	}
}

// A server whose database role would see every tenant does not start, nor a worker whose role would not.
func TestDatabaseRolesAreChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ binary, role, advice string }{
		"server as superuser": {"tramo", "postgres", "connect as tramo_api"},
		"server as worker":    {"tramo", "tramo_worker", "connect as tramo_api"},
		"worker as server":    {"tramo-worker", "tramo_api", "connect as tramo_worker"},
	} {
		args := []string{}
		if c.binary == "tramo" {
			args = append(args, "serve")
		}
		_, err := stack.Run(stack.Context(t), stack.ProcessConfig{Path: tramo.Programs.Path(c.binary), Args: args, Env: tramo.Env(c.role)})
		if err == nil || !strings.Contains(err.Error(), c.advice) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Eight processes migrate one empty database at once: all succeed, and once more changes nothing.
func TestMigrateCommandEightTimesAtOnce(t *testing.T) {
	t.Parallel()
	env := tramo.Env("postgres", "TRAMO_DATABASE_URL="+tramo.Postgres.URL("postgres", emptyDatabase(t)))
	migrate := func() error {
		_, err := stack.Run(stack.Context(t), stack.ProcessConfig{Path: tramo.Programs.Path("tramo"), Args: []string{"migrate"}, Env: env})
		return err
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := migrate(); err != nil {
				t.Error(err)
			}
		})
	}
	stack.Wait(t, "end of the migrations", &all)
	stack.Must(t, migrate())
}

// Readiness names the dependency that is down; liveness does not depend on any.
func TestReadiness(t *testing.T) {
	t.Parallel()
	proxy, err := stack.NewProxy(tramo.S3.Endpoint())
	stack.Must(t, err)
	defer proxy.Close()
	r := tramo.serves(t, "TRAMO_S3_ENDPOINT="+proxy.URL())
	nobody := user{t: t}
	if a := nobody.do("GET", r.Ops+"/readyz", nil); a.status != http.StatusOK || !strings.Contains(string(a.body), `"postgres":"ok"`) {
		t.Errorf("ready: %d %s", a.status, a.body)
	}
	proxy.Down()
	a := nobody.do("GET", r.Ops+"/readyz", nil)
	if a.status != http.StatusServiceUnavailable || strings.Contains(string(a.body), `"s3":"ok"`) || !strings.Contains(string(a.body), `"postgres":"ok"`) {
		t.Errorf("without S3: %d %s", a.status, a.body)
	}
	nobody.do("GET", r.Ops+"/livez", nil).want(t, http.StatusOK, "")
	stack.Must(t, proxy.Up())
	stack.Must(t, r.WaitForURL(stack.Context(t), r.Ops+"/readyz"))
}

// Every program reports the same version and revision, by --version, /livez and a metric.
func TestVersion(t *testing.T) {
	t.Parallel()
	var builds []string
	for _, name := range []string{"tramo", "tramo-worker", "tramo-dev"} {
		out, err := stack.Run(stack.Context(t), stack.ProcessConfig{Path: tramo.Programs.Path(name), Args: []string{"--version"}, Env: stack.CleanEnv()})
		stack.Must(t, err)
		program, build, _ := strings.Cut(strings.TrimSpace(out), " ")
		if program != name || !regexp.MustCompile(`^\d+\.\d+\.\d+ \(revision \S+, go\S+\)$`).MatchString(build) {
			t.Errorf("%s --version prints %q", name, out)
		}
		builds = append(builds, build)
	}
	if len(slices.Compact(builds)) != 1 {
		t.Errorf("the programs were built from different sources: %q", builds)
	}
	for name, ops := range map[string]string{"server": tramo.replicas[0].Ops, "worker": tramo.worker.Ops} {
		nobody := user{t: t}
		var live struct {
			Status, Version, Revision string
			Go                        string `json:"go_version"`
		}
		stack.Must(t, json.Unmarshal(nobody.do("GET", ops+"/livez", nil).body, &live))
		if got := fmt.Sprintf("%s (revision %s, %s)", live.Version, live.Revision, live.Go); live.Status != "ok" || got != builds[0] {
			t.Errorf("%s: /livez says %s, %s", name, live.Status, got)
		}
		want := fmt.Sprintf("tramo_build_info{go_version=%q,revision=%q,version=%q} 1", live.Go, live.Revision, live.Version)
		if metrics := string(nobody.do("GET", ops+"/metrics", nil).body); !strings.Contains(metrics, want) {
			t.Errorf("%s: no %s in its metrics", name, want)
		}
	}
}

// A server that gets SIGTERM in the middle of a PATCH saves what has arrived, answers, and ends well; the
// upload goes on elsewhere from exactly there.
func TestStopKeepsWhatHasArrived(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := tramo.serves(t)
	photo := stack.Photo(stack.PhotoConfig{Seed: 11})
	url := u.create(r, len(photo), "filetype", "image/jpeg")
	const arrived = 1_500_000
	sending := u.stall(url, 0, photo[:arrived])
	r.awaitMetric(t, "tramo_upload_received_bytes_total", arrived)
	stack.Must(t, r.Stop())
	sending.answer().want(t, http.StatusServiceUnavailable, "")
	other := tramo.replicas[0].URL + "/api/uploads/" + idOf(url)
	u.wantOffset(other, arrived)
	u.patch(other, arrived, photo[arrived:])
	u.arrives(other, photo)
}

// Kill -9 the server in the middle of a PATCH: nothing acknowledged is lost, and within the lease's time to
// live the other replica takes the upload over and finishes it.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := tramo.serves(t)
	photo := stack.Photo(stack.PhotoConfig{Seed: 12})
	url := u.create(r, len(photo), "filetype", "image/jpeg")
	const acknowledged = 1_000_000
	u.patch(url, 0, photo[:acknowledged])
	sending := u.stall(url, acknowledged, photo[acknowledged:acknowledged+500_000])
	r.awaitMetric(t, "tramo_upload_received_bytes_total", acknowledged+500_000)
	r.Kill()
	sending.hangUp() // Go's client would wait for its body
	stack.Want(t, sending.answer().status, 0, "status that a killed server answered")
	other := tramo.replicas[0].URL + "/api/uploads/" + idOf(url)
	got := u.offset(other)
	if got < acknowledged {
		t.Fatalf("offset %d; %d was acknowledged", got, acknowledged)
	}
	u.patch(other, got, photo[got:]).want(t, http.StatusNoContent, "")
	u.arrives(other, photo)
}

// An upload whose object is gone before a worker comes to it is tried three times, becomes a dead letter, and
// fails with a sentence for a person; no other upload waits for it.
func TestDeadLetter(t *testing.T) {
	t.Parallel()
	in := install(t, stack.Installation{})
	r := in.serves(t)
	u := in.user(t)
	url := u.send(r, stack.PNG(10, 10), "filetype", "image/png")
	for _, path := range objectsOf(t, idOf(url)) {
		stack.Must(t, os.Remove(path))
	}
	w := in.works(t, "TRAMO_RETRY_DELAY=10ms")
	up, _ := u.await(url)
	if up.Status != "failed" || up.Failure.Reason != "dead_lettered" || up.Failure.Detail == "" {
		t.Errorf("%s %+v", up.Status, up.Failure)
	}
	w.awaitMetric(t, `tramo_jobs{state="discarded"}`, 1)
	stack.Want(t, strings.Count(w.Output(), "exhausted=false"), 2, "retries")
	u.completes(u.send(r, stack.PNG(12, 12), "filetype", "image/png"))
}

// While clamd is down nothing is called clean and nothing fails: uploads wait, and are processed once it is
// back.
func TestClamdDown(t *testing.T) {
	t.Parallel()
	in := install(t, stack.Installation{})
	clamd, err := stack.StartClamd(t.Context(), stack.ClamdConfig{})
	stack.Must(t, err)
	defer clamd.Stop() //nolint:errcheck // the test has spoken
	w := in.works(t, "TRAMO_CLAMD="+clamd.Address(), "TRAMO_BUSY_DELAY=100ms")
	r := in.serves(t)
	u := in.user(t)
	clamd.Kill()
	url := u.send(r, stack.PNG(10, 10), "filetype", "image/png")
	stack.Must(t, w.WaitForLog(stack.Context(t), "a dependency is unavailable"))
	if got := u.get(url).Status; got != "processing" && got != "uploaded" {
		t.Errorf("status %s", got)
	}
	stack.Must(t, clamd.Restart(t.Context()))
	u.completes(url)
}

// What an operator watches is there, by name.
func TestMetrics(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	r := tramo.replicas[0]
	u.await(u.send(r, stack.PNG(10, 10), "filetype", "image/png"))
	served := string(fetch(t, r.Ops+"/metrics"))
	for _, name := range []string{
		`tramo_http_request_duration_seconds_bucket{code="201",method="POST",route="/api/uploads"`,
		"tramo_upload_received_bytes_total", `tramo_upload_transitions_total{status="uploaded"}`,
	} {
		if !strings.Contains(served, name) {
			t.Errorf("the server does not tell %s", name)
		}
	}
	if lost := r.metric(t, "tramo_upload_offsets_lost_total"); lost != 0 || !strings.Contains(served, "tramo_upload_offsets_lost_total 0") {
		t.Errorf("offsets lost: %v", lost)
	}
	worked := string(fetch(t, tramo.worker.Ops+"/metrics"))
	for _, name := range []string{
		`tramo_jobs{state="available"}`, `tramo_jobs{state="discarded"}`, `tramo_uploads{status="processing"}`,
		`tramo_processing_step_duration_seconds_bucket{step="scan"`, `tramo_processing_step_duration_seconds_bucket{step="thumbnails"`,
		`tramo_processing_outcomes_total{status="completed"}`,
	} {
		if !strings.Contains(worked, name) {
			t.Errorf("the worker does not tell %s", name)
		}
	}
	for _, id := range []string{"tenant_id", "upload_id", "user"} {
		if strings.Contains(served+worked, id+"=") {
			t.Errorf("a metric has the label %s", id)
		}
	}
}

// Logs never carry names of files, tokens or places.
func TestLogsKeepSecrets(t *testing.T) {
	t.Parallel()
	u := newUser(t)
	path := fieldPhoto(t)
	r := tramo.serves(t, "TRAMO_LOG_LEVEL=debug")
	name := "plano-secreto-" + filepath.Base(t.TempDir()) + ".jpg"
	url := u.send(r, read(t, path), "filename", name, "filetype", "image/jpeg")
	u.await(url)
	u.do("GET", url, nil, "Authorization", "Bearer "+u.token+"x")
	said := r.Output() + tramo.worker.Output()
	for what, secret := range map[string]string{"file name": name, "token": u.token[len(u.token)-20:], "latitude": "33.4489"} {
		if strings.Contains(said, secret) {
			t.Errorf("the log tells a %s", what)
		}
	}
}

// emptyDatabase makes a database without any tables and returns its name.
func emptyDatabase(t *testing.T) string {
	t.Helper()
	name := newName()
	stack.Must(t, tramo.Postgres.CreateDatabase(stack.Context(t), name, "template0"))
	return name
}

// user makes a tenant and one of its crew.
func (in installation) user(t *testing.T) user {
	t.Helper()
	_, err := in.Tramo(stack.Context(t), "tenant", "add", "acme")
	stack.Must(t, err)
	return in.userOf(t, "acme", "crew", "empleado")
}

// What decodes strangers' files runs as the worker's user and must not read its credentials: to another
// process of that user the worker's environment is closed.
func TestWorkerEnvironmentIsClosed(t *testing.T) {
	t.Parallel()
	binary := tramo.Programs.Path("tramo-worker")
	var asUser []string
	if os.Getuid() == 0 { // root may read everything, so that another user plays the worker
		asUser = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
		binary = publicCopy(t, binary)
	}
	database, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and sends nothing
	stack.Must(t, err)
	defer database.Close() // nothing is lost with it
	p, err := stack.Start(stack.ProcessConfig{
		Path: "/usr/bin/env", Args: append(slices.Clone(asUser), binary),
		Env: tramo.Env("", "TRAMO_OPS_LISTEN=127.0.0.1:0", "TRAMO_DATABASE_URL=postgres://tramo_worker:very-secret@"+database.Addr().String()+"/tramo"),
	})
	stack.Must(t, err)
	defer p.Kill()
	waiting, err := database.Accept() // it is past its beginning
	stack.Must(t, err)
	defer waiting.Close() // nothing is lost with it
	spy := append(slices.Clone(asUser), "cat", fmt.Sprintf("/proc/%d/environ", p.Pid()))
	out, err := stack.Run(stack.Context(t), stack.ProcessConfig{Path: "/usr/bin/env", Args: spy})
	if err == nil || !strings.Contains(err.Error(), "ermission denied") {
		t.Errorf("its environment can be read: %d bytes, %v", len(out), err)
	}
}

// publicCopy copies a program to where every user may run it.
func publicCopy(t *testing.T, program string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tramo-public-")
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, os.RemoveAll(dir)) })
	stack.Must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, filepath.Base(program))
	stack.Must(t, os.WriteFile(path, read(t, program), 0o600))
	stack.Must(t, os.Chmod(path, 0o755))
	return path
}
