package kill

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tramo/tramo/test/stack"
)

// An installation has a database, a bucket and a clamd of its own, a server, and two workers that reach S3 through a proxy
// that can be stopped.
type installation struct {
	*stack.Installation
	t       *testing.T
	s3      *stack.S3Proxy // counts
	away    *stack.Proxy   // before it
	temp    string         // where workers keep their files
	server  string         // its URL
	token   string
	workers []*worker
	vars    []string // of workers
	photo   []byte
}

// A worker is one that is started again each time that it has been killed.
type worker struct {
	name     string
	postgres *stack.PostgresProxy // it reaches Postgres by way of this
	process  *stack.Process
	printed  []string // by the processes before
}

// newInstallation starts an installation, with a Postgres of its own if a test kills that, and with more in the environment of
// workers.
func newInstallation(t *testing.T, own bool, vars ...string) *installation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stack.Patience)
	defer cancel()
	inst := &installation{t: t, vars: vars, temp: t.TempDir(), photo: stack.Photo(stack.PhotoConfig{Width: 1800, Height: 1350, Seed: 1})}
	name := fmt.Sprintf("kill-%d", time.Now().UnixNano())
	in := stack.Installation{Database: name, Bucket: name}
	var err error
	if own {
		in.Postgres, err = stack.StartPostgres(ctx, stack.PostgresConfig{})
		inst.must(err)
		t.Cleanup(func() { inst.must(in.Postgres.Stop()) })
	}
	in.Clamd, err = stack.StartClamd(ctx, stack.ClamdConfig{Dir: t.TempDir()})
	inst.must(err)
	t.Cleanup(func() { _ = in.Clamd.Stop() })
	inst.Installation, err = ground.Install(ctx, in)
	inst.must(err)
	inst.holdable()
	inst.s3, err = stack.NewS3Proxy(inst.S3.Endpoint())
	inst.must(err)
	t.Cleanup(inst.s3.Stop)
	inst.away, err = stack.NewProxy(inst.s3.Endpoint())
	inst.must(err)
	t.Cleanup(inst.away.Close)
	inst.tramo("tenant", "add", "yard", "--quota", "50GiB")
	inst.token = inst.tramo("token", "--tenant", "yard", "--user", "crew", "--role", "empleado")
	inst.serve()
	for i := range 2 {
		w := &worker{name: fmt.Sprintf("worker-%d", i)}
		w.postgres, err = stack.NewPostgresProxy(inst.Postgres)
		inst.must(err)
		t.Cleanup(w.postgres.Stop)
		inst.workers = append(inst.workers, w)
		inst.start(w)
		t.Cleanup(func() { w.process.Kill() })
	}
	t.Cleanup(inst.explain)
	return inst
}

func (inst *installation) must(err error) {
	inst.t.Helper()
	stack.Must(inst.t, err)
}

// tramo runs a command with an operator's rights and returns what it printed.
func (inst *installation) tramo(args ...string) string {
	inst.t.Helper()
	out, err := inst.Tramo(stack.Context(inst.t), args...)
	inst.must(err)
	return out
}

func (inst *installation) serve() {
	inst.t.Helper()
	r, err := inst.Serve(stack.Context(inst.t))
	inst.must(err)
	inst.t.Cleanup(r.Kill)
	inst.server = r.URL
}

func (inst *installation) config(w *worker) stack.ProcessConfig {
	c := inst.Worker(append([]string{
		"TRAMO_DATABASE_URL=" + w.postgres.URL(w.postgres.Addr(), "tramo_worker", inst.Database),
		"TRAMO_S3_ENDPOINT=" + inst.away.URL(), "TRAMO_REPLICA=" + w.name, "TRAMO_TEMP_DIR=" + inst.temp, "TRAMO_WORKERS=1",
		"TRAMO_SAVE_AFTER=0", // so that there is something to be killed at
		"TRAMO_RETRY_DELAY=300ms", "TRAMO_BUSY_DELAY=300ms", "TRAMO_LEASE_TTL=2s", "TRAMO_LOST_AFTER=2s",
	}, inst.vars...)...)
	c.Name = w.name
	return c
}

func (inst *installation) start(w *worker) {
	inst.t.Helper()
	p, err := stack.Start(inst.config(w))
	inst.must(err)
	w.process = p
	ctx, cancel := context.WithTimeout(inst.t.Context(), stack.Patience)
	defer cancel()
	inst.must(p.WaitForLog(ctx, "msg=working"))
}

// kill ends a worker and starts it again.
func (inst *installation) kill(w *worker) {
	w.process.Kill()
	w.printed = append(w.printed, w.process.Output())
}

// send uploads the photo and returns the upload's id.
func (inst *installation) send() (id string) {
	inst.t.Helper()
	return inst.sendSome(inst.photo)
}

// sendSome uploads content in one request, as often as it takes.
func (inst *installation) sendSome(content []byte) (id string) {
	inst.t.Helper()
	inst.until("upload that is taken", func() bool {
		ctx, cancel := context.WithTimeout(inst.t.Context(), stack.Patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, inst.server+"/api/uploads", bytes.NewReader(content))
		inst.must(err)
		for k, v := range map[string]string{
			"Tus-Resumable": "1.0.0", "Authorization": "Bearer " + inst.token, "Upload-Length": strconv.Itoa(len(content)),
			"Content-Type":    "application/offset+octet-stream",
			"Upload-Metadata": "filename " + base64.StdEncoding.EncodeToString([]byte("site")),
		} {
			r.Header.Set(k, v)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return false
		}
		res.Body.Close()
		id = path.Base(res.Header.Get("Location"))
		return res.StatusCode == http.StatusCreated
	})
	return id
}

// ask reads one value with a superuser's rights. While Postgres is away it is an error.
func ask[T any](inst *installation, sql string, args ...any) (value T, err error) {
	ctx, cancel := context.WithTimeout(inst.t.Context(), stack.Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, inst.Postgres.URL("postgres", inst.Database))
	if err != nil {
		return value, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, sql, args...).Scan(&value)
	return value, err
}

// await waits until sql yields true.
func (inst *installation) await(sql string, args ...any) {
	inst.t.Helper()
	inst.until(sql, func() bool {
		yes, err := ask[bool](inst, sql, args...)
		return err == nil && yes
	})
}

func (inst *installation) until(what string, reached func() bool) {
	inst.t.Helper()
	stack.Until(inst.t, what, reached)
}

// workerOf returns who works on the upload.
func (inst *installation) workerOf(id string) *worker {
	inst.t.Helper()
	name, err := ask[string](inst, `
		select h.replica from river_job j join lease_holders h on 'tramo-' || h.process = j.attempted_by[cardinality(j.attempted_by)]
		where j.args->>'upload_id' = $1 and j.state = 'running' limit 1`, id)
	inst.must(err)
	for _, w := range inst.workers {
		if w.name == name {
			return w
		}
	}
	inst.t.Fatalf("%s works on it, who is none of ours", name)
	return nil
}

// explain shows what the workers printed, if the test has failed.
func (inst *installation) explain() {
	if !inst.t.Failed() {
		return
	}
	for _, w := range inst.workers {
		all := strings.Join(append(w.printed, w.process.Output()), "--- killed ---\n")
		inst.t.Logf("%s said:\n%s", w.name, all[max(0, len(all)-8000):])
	}
}

// tempFiles are what lies in the workers' directories.
func (inst *installation) tempFiles() (found []string) {
	inst.t.Helper()
	dirs, err := os.ReadDir(inst.temp)
	inst.must(err)
	for _, dir := range dirs {
		files, err := os.ReadDir(path.Join(inst.temp, dir.Name()))
		if os.IsNotExist(err) {
			continue // swept meanwhile
		}
		inst.must(err)
		for _, f := range files {
			found = append(found, path.Join(dir.Name(), f.Name()))
		}
	}
	return found
}
