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

// A yard is one installation: a database, a bucket and a clamd of its own, a server, and two workers that reach S3 through a
// proxy that can be away.
type yard struct {
	*stack.Installation
	t       *testing.T
	s3      *stack.S3Proxy // counts
	away    *stack.Proxy   // before it
	temp    string         // where workers keep their files
	server  string         // its URL
	token   string
	workers []*worker
	photo   []byte
}

// A worker is one that is started again each time that it has been killed.
type worker struct {
	name    string
	process *stack.Process
	said    []string // by those before
}

// newYard starts an installation, with a Postgres of its own if a test kills that.
func newYard(t *testing.T, own bool) *yard {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stack.Patience)
	defer cancel()
	y := &yard{t: t, temp: t.TempDir(), photo: stack.Photo(stack.PhotoConfig{Width: 1800, Height: 1350, Seed: 1})}
	name := fmt.Sprintf("kill-%d", time.Now().UnixNano())
	in := stack.Installation{Database: name, Bucket: name}
	var err error
	if own {
		in.Postgres, err = stack.StartPostgres(ctx, stack.PostgresConfig{})
		y.must(err)
		t.Cleanup(func() { y.must(in.Postgres.Stop()) })
	}
	in.Clamd, err = stack.StartClamd(ctx, stack.ClamdConfig{Dir: t.TempDir()})
	y.must(err)
	t.Cleanup(func() { _ = in.Clamd.Stop() })
	y.Installation, err = ground.Install(ctx, in)
	y.must(err)
	y.holdable()
	y.s3, err = stack.NewS3Proxy(y.S3.Endpoint())
	y.must(err)
	t.Cleanup(y.s3.Stop)
	y.away, err = stack.NewProxy(y.s3.Endpoint())
	y.must(err)
	t.Cleanup(y.away.Close)
	y.tramo("tenant", "add", "yard", "--quota", "50GiB")
	y.token = y.tramo("token", "--tenant", "yard", "--user", "crew", "--role", "empleado")
	y.serve()
	for i := range 2 {
		w := &worker{name: fmt.Sprintf("worker-%d", i)}
		y.workers = append(y.workers, w)
		y.start(w)
		t.Cleanup(func() { w.process.Kill() })
	}
	t.Cleanup(y.explain)
	return y
}

func (y *yard) must(err error) {
	y.t.Helper()
	stack.Must(y.t, err)
}

// tramo runs a command with an operator's rights and returns what it printed.
func (y *yard) tramo(args ...string) string {
	y.t.Helper()
	out, err := y.Tramo(stack.Context(y.t), args...)
	y.must(err)
	return out
}

func (y *yard) serve() {
	y.t.Helper()
	r, err := y.Serve(stack.Context(y.t))
	y.must(err)
	y.t.Cleanup(r.Kill)
	y.server = r.URL
}

func (y *yard) config(w *worker) stack.ProcessConfig {
	c := y.Worker("TRAMO_S3_ENDPOINT="+y.away.URL(), "TRAMO_REPLICA="+w.name, "TRAMO_TEMP_DIR="+y.temp, "TRAMO_WORKERS=1",
		"TRAMO_RETRY_DELAY=300ms", "TRAMO_BUSY_DELAY=300ms", "TRAMO_LEASE_TTL=2s", "TRAMO_LOST_AFTER=2s")
	c.Name = w.name
	return c
}

func (y *yard) start(w *worker) {
	y.t.Helper()
	p, err := stack.Start(y.config(w))
	y.must(err)
	w.process = p
	ctx, cancel := context.WithTimeout(y.t.Context(), stack.Patience)
	defer cancel()
	y.must(p.WaitForLog(ctx, "msg=working"))
}

// kill ends a worker and starts it again.
func (y *yard) kill(w *worker) {
	w.process.Kill()
	w.said = append(w.said, w.process.Output())
}

// send uploads the photo and returns the upload's id.
func (y *yard) send() (id string) {
	y.t.Helper()
	return y.sendSome(y.photo)
}

// sendSome uploads content in one request, as often as it takes.
func (y *yard) sendSome(content []byte) (id string) {
	y.t.Helper()
	y.until("upload that is taken", func() bool {
		ctx, cancel := context.WithTimeout(y.t.Context(), stack.Patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, y.server+"/api/uploads", bytes.NewReader(content))
		y.must(err)
		for k, v := range map[string]string{
			"Tus-Resumable": "1.0.0", "Authorization": "Bearer " + y.token, "Upload-Length": strconv.Itoa(len(content)),
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
func ask[T any](y *yard, sql string, args ...any) (value T, err error) {
	ctx, cancel := context.WithTimeout(y.t.Context(), stack.Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, y.Postgres.URL("postgres", y.Database))
	if err != nil {
		return value, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, sql, args...).Scan(&value)
	return value, err
}

// await waits until sql yields true.
func (y *yard) await(sql string, args ...any) {
	y.t.Helper()
	y.until(sql, func() bool {
		yes, err := ask[bool](y, sql, args...)
		return err == nil && yes
	})
}

func (y *yard) until(what string, reached func() bool) {
	y.t.Helper()
	stack.Until(y.t, what, reached)
}

// workerOf returns who works on the upload.
func (y *yard) workerOf(id string) *worker {
	y.t.Helper()
	name, err := ask[string](y, `
		select h.replica from river_job j join lease_holders h on 'tramo-' || h.process = j.attempted_by[cardinality(j.attempted_by)]
		where j.args->>'upload_id' = $1 and j.state = 'running' limit 1`, id)
	y.must(err)
	for _, w := range y.workers {
		if w.name == name {
			return w
		}
	}
	y.t.Fatalf("%s works on it, who is none of ours", name)
	return nil
}

// explain shows what the workers said, if the test has failed.
func (y *yard) explain() {
	if !y.t.Failed() {
		return
	}
	for _, w := range y.workers {
		all := strings.Join(append(w.said, w.process.Output()), "--- killed ---\n")
		y.t.Logf("%s said:\n%s", w.name, all[max(0, len(all)-8000):])
	}
}

// tempFiles are what lies in the workers' directories.
func (y *yard) tempFiles() (found []string) {
	y.t.Helper()
	dirs, err := os.ReadDir(y.temp)
	y.must(err)
	for _, dir := range dirs {
		files, err := os.ReadDir(path.Join(y.temp, dir.Name()))
		if os.IsNotExist(err) {
			continue // swept meanwhile
		}
		y.must(err)
		for _, f := range files {
			found = append(found, path.Join(dir.Name(), f.Name()))
		}
	}
	return found
}
