package processing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/storage/storagetest"
	"github.com/tramo/tramo/test/stack"
)

// A fixture is a pool with a database of the test's own. What a test changes in it, it changes before run.
type fixture struct {
	*storagetest.Database
	ctx      context.Context // acts for the tenant
	keys     object.Keys     // of the tenant
	registry *prometheus.Registry
	conf     queue.Config
	workers  int // how many uploads a pool processes at a time
	metrics  *queue.Metrics
	pipeline *Pipeline
	queue    *queue.Queue
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	p := &fixture{
		Database: ground.NewDatabase(t), registry: prometheus.NewRegistry(),
		conf: queue.Config{RetryDelay: 5 * time.Millisecond, BusyDelay: 50 * time.Millisecond, LostAfter: 15 * time.Second}, workers: 2,
	}
	p.ctx = p.NewTenant(t, 1<<30)
	p.keys = object.Keys{Tenant: storagetest.TenantOf(t, p.ctx), Project: object.DefaultProject}
	log := stack.Log(t, slog.LevelWarn)
	types, err := mediatype.ParsePolicy(mediatype.Accepted)
	stack.Must(t, err)
	p.metrics = queue.NewMetrics(p.registry)
	p.queue, err = queue.New(p.API, log)
	stack.Must(t, err)
	p.pipeline = &Pipeline{
		DB: p.Worker, Scanner: newScanner(t, stack.Get(t, ground.Clamd).Address()), Types: types, Scans: ScanPolicy{Max: 512 << 20},
		// The race detector's own memory counts against the child's.
		Examiner: &examine.Examiner{Box: sandbox.New(sandbox.Config{Limits: sandbox.Limits{Memory: 4 << 30}, Env: examine.Environment()})},
		TempDir:  t.TempDir(), Metrics: NewMetrics(p.registry), Log: log,
	}
	p.reach(t, stack.Get(t, ground.S3).Endpoint())
	return p
}

// reach points the pipeline at another address of S3.
func (p *fixture) reach(t *testing.T, endpoint string) {
	t.Helper()
	var err error
	p.pipeline.Bucket, err = object.OpenBucket(t.Context(), object.BucketConfig{Endpoint: endpoint, Name: stack.Get(t, ground.S3).Bucket()})
	stack.Must(t, err)
}

// receive makes an upload of which received came in and stored is in S3, with so many jobs.
func (p *fixture) receive(t *testing.T, received, stored []byte, jobs int) uuid.UUID {
	t.Helper()
	n := storagetest.NewUpload(int64(len(received)))
	n.Project = object.DefaultProject
	key := p.keysOf(n.ID).Original(1)
	_, err := stack.Get(t, ground.S3).Client("").PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String(stack.Get(t, ground.S3).Bucket()), Key: &key, Body: bytes.NewReader(stored),
	})
	stack.Must(t, err)
	sum := sha256.Sum256(received)
	p.Must(t, p.ctx, func(tx storage.Tx) error {
		if err := tx.CreateUpload(p.ctx, n); err != nil {
			return err
		}
		if _, err := tx.MarkUploaded(p.ctx, n.ID, key, sum[:]); err != nil {
			return err
		}
		for range jobs {
			if err := p.queue.Enqueue(p.ctx, tx, n.ID); err != nil {
				return err
			}
		}
		return nil
	})
	return n.ID
}

func (p *fixture) keysOf(id uuid.UUID) object.Keys {
	keys := p.keys
	keys.Upload = id
	return keys
}

// run starts the pool and returns what stops it, once running jobs have ended.
func (p *fixture) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	pipeline := *p.pipeline
	pipeline.Leases = lease.NewManager(p.Worker, "worker", 5*time.Second, pipeline.Log)
	pool := queue.NewPool(p.conf, p.Worker, pipeline.Leases, p.metrics, sdktrace.NewTracerProvider(), p.pipeline.Log)
	pool.Register(queue.ProcessUpload, &pipeline, queue.Options{Workers: p.workers})
	pool.Register(queue.RescanUpload, Rescanner{&pipeline}, queue.Options{Workers: 1})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := pipeline.Leases.During(ctx, pool.Run); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		stack.Receive(t, "end of the pool", ended)
	}
	t.Cleanup(stop)
	return stop
}

// await waits until sql, which yields a boolean, is true.
func (p *fixture) await(t *testing.T, sql string, args ...any) {
	t.Helper()
	stack.Until(t, sql, func() (yes bool) {
		stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), sql, args...).Scan(&yes))
		return yes
	})
}

// wantMetric reports a metric that has counted more or less, see metric.
func (p *fixture) wantMetric(t *testing.T, name, label string, want int) {
	t.Helper()
	stack.Want(t, p.metric(t, name, label), want, "%s{%s}", name, label)
}

const (
	allJobs    = `select bool_and(state::text = $1) from river_job`
	jobsErrors = `select coalesce(array_to_string(errors, ' '), '') from river_job`
)

// job checks the attempts that the one job has used up, and returns what went wrong with them.
func (p *fixture) job(t *testing.T, attempts, failed int) (errs string) {
	t.Helper()
	var attempt, errors int
	stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), `select attempt, coalesce(cardinality(errors), 0), coalesce(array_to_string(errors, ' '), '')
		from river_job`).Scan(&attempt, &errors, &errs))
	if attempt != attempts || errors != failed {
		t.Errorf("the job is at attempt %d with %d errors, want %d and %d: %s", attempt, errors, attempts, failed, errs)
	}
	return errs
}

// want checks an upload's status, why it failed, its thumbnails, and that its timeline tells of its end as
// often as given.
func (p *fixture) want(t *testing.T, id uuid.UUID, status storage.Status, reason string, thumbnails, ends int) {
	t.Helper()
	p.Must(t, p.ctx, func(tx storage.Tx) error {
		u, err := tx.Upload(p.ctx, id)
		if err != nil {
			return err
		}
		if u.Status != status || aws.ToString(u.FailureReason) != reason {
			t.Errorf("the upload is %s (%s), want %s (%s)", u.Status, aws.ToString(u.FailureReason), status, reason)
		}
		drawn, err := tx.Thumbnails(p.ctx, id)
		stack.Want(t, len(drawn), thumbnails, "number of thumbnails in the row")
		return err
	})
	p.WantCount(t, ends, `select count(*) from timeline where upload_id = $1 and event in ('completed', 'failed')`, id)
	if n := p.Count(t, `select count(*) from timeline where upload_id = $1 and event = 'processing' and detail = '{"attempt": 1}'`, id); n < 1 || n > max(1, ends) {
		t.Errorf("its timeline tells of %d beginnings, want one for each time it was processed", n)
	}
}

// drawn returns how many thumbnails of an upload S3 holds.
func (p *fixture) drawn(t *testing.T, id uuid.UUID) (n int) {
	t.Helper()
	for _, size := range thumbnailSizes {
		switch _, err := p.pipeline.Bucket.Size(t.Context(), p.keysOf(id).Thumbnail(size)); {
		case err == nil:
			n++
		case !errors.Is(err, object.ErrNoObject):
			t.Fatal(err)
		}
	}
	return n
}

// metric adds up a counter's, or a histogram's count, over what carries the label's value, "" for all.
func (p *fixture) metric(t *testing.T, name, label string) (total int) {
	t.Helper()
	families, err := p.registry.Gather()
	stack.Must(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				total += int(m.GetCounter().GetValue()) + int(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return total
}

const (
	outcomes  = "tramo_processing_outcomes_total"
	requeues  = "tramo_processing_requeued_total"
	chunk     = 64 << 10 // what clamd is sent at a time
	stepTimes = "tramo_processing_step_duration_seconds"
)

// A gate is a way to S3 that holds every answer up behind its first bytes, until it is opened.
type gate struct {
	url  string
	held chan struct{} // told of each connection that is held up
	open chan struct{} // close it
}

func newGate(t *testing.T, after int64) *gate {
	t.Helper()
	g := &gate{held: make(chan struct{}, 100), open: make(chan struct{})}
	backend := strings.TrimPrefix(stack.Get(t, ground.S3).Endpoint(), "http://")
	address := stack.Listen(t, func(conn net.Conn) {
		up, err := net.Dial("tcp", backend)
		if err != nil {
			return
		}
		defer up.Close()
		defer context.AfterFunc(t.Context(), func() { _ = up.Close() })()
		go func() { _, _ = io.Copy(up, conn) }()
		_, _ = io.CopyN(conn, up, after)
		if !g.isOpen() {
			g.held <- struct{}{}
		}
		select {
		case <-g.open:
			_, _ = io.Copy(conn, up)
		case <-t.Context().Done():
		}
	})
	g.url = "http://" + address
	return g
}

// await waits until a connection is held up.
func (g *gate) await(t *testing.T) {
	t.Helper()
	stack.Receive(t, "connection to S3 that is held up", g.held)
}

func (g *gate) isOpen() bool {
	select {
	case <-g.open:
		return true
	default:
		return false
	}
}

// note is a text, of which no thumbnails are drawn.
var note = []byte("hormigón\n")

func smallPhoto() []byte { return stack.Photo(stack.PhotoConfig{Width: 320, Height: 240, Seed: 1}) }

// damaged is a photo of the same size, which does not have the SHA-256 of what was received.
func damaged() []byte {
	content := smallPhoto()
	content[len(content)/2] ^= 1
	return content
}

// An infected photo is moved into quarantine in S3, tagged, and failed, and no process ever decodes it.
func TestInfected(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	id := p.receive(t, infectedPhoto(), infectedPhoto(), 1)
	p.run(t)
	p.await(t, allJobs, "completed")
	p.want(t, id, storage.Failed, storage.ReasonInfected, 0, 1)
	p.job(t, 1, 0)
	if p.drawn(t, id) != 0 || p.metric(t, stepTimes, "thumbnails") != 0 || p.metric(t, stepTimes, "scan") != 1 {
		t.Error("it was examined")
	}
	p.wantPlace(t, id, true, "infected")
}

// An upload has two jobs, one behind the other or both at once: it is completed once.
func TestWorkTwice(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			t.Parallel()
			p := newFixture(t)
			g := newGate(t, 0)
			p.workers = workers
			p.reach(t, g.url)
			id := p.receive(t, smallPhoto(), smallPhoto(), 2)
			p.run(t)
			for range workers {
				g.await(t)
			}
			close(g.open)
			p.await(t, allJobs, "completed")
			p.want(t, id, storage.Completed, "", len(thumbnailSizes), 1)
			p.wantMetric(t, stepTimes, "scan", workers)
			p.wantMetric(t, outcomes, "", 1)
			stack.Want(t, p.drawn(t, id), len(thumbnailSizes), "number of thumbnails in S3")
		})
	}
}

// An attempt that somebody else has taken over while it was held up neither completes its upload nor fails
// it.
func TestSupersededAttempt(t *testing.T) {
	t.Parallel()
	const newer = `update river_job set attempt = attempt + 1`
	for _, c := range []struct {
		name, overtake string
		attempts       int
		stored         []byte
		drawn          int
		err            string // what River is told, if the row still takes it
	}{
		{"by a newer attempt", newer, 3, smallPhoto(), 0, "superseded"},
		{"by a rescue", `update river_job set state = 'retryable', scheduled_at = now() + '1h'`, 3, smallPhoto(), 0, ""},
		{"on its last attempt", newer, 1, damaged(), 0, "record dead letter: attempt 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newFixture(t)
			g := newGate(t, 0)
			p.conf.RetryDelay = time.Hour
			p.reach(t, g.url)
			id := p.receive(t, smallPhoto(), c.stored, 1)
			p.Exec(t, fmt.Sprintf(`update river_job set max_attempts = %d`, c.attempts))
			stop := p.run(t)
			g.await(t)
			p.Exec(t, c.overtake)
			close(g.open)
			stop()
			p.want(t, id, storage.Processing, "", 0, 0)
			stack.Want(t, p.drawn(t, id), c.drawn, "number of thumbnails in S3")
			p.wantMetric(t, outcomes, "", 0)
			var errs string
			stack.Must(t, p.Worker.Pool().QueryRow(t.Context(), jobsErrors).Scan(&errs))
			if !strings.Contains(errs, c.err) {
				t.Errorf("River was told %q, want %q", errs, c.err)
			}
		})
	}
}

// The object is not what was received: it is never completed, and a dead letter after three attempts.
func TestDamagedObject(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	id := p.receive(t, smallPhoto(), damaged(), 1)
	p.run(t)
	p.await(t, allJobs, "discarded")
	p.want(t, id, storage.Failed, storage.ReasonDeadLettered, 0, 1)
	if errs := p.job(t, queue.MaxAttempts, queue.MaxAttempts); strings.Count(errs, "SHA-256") != queue.MaxAttempts {
		t.Errorf("the attempts failed of %s", errs)
	}
	if p.drawn(t, id) != 0 || p.metric(t, stepTimes, "thumbnails") != 0 {
		t.Error("it was examined")
	}
	p.tells(t, id, "processing attempt=1", "scan attempt=1", "retry attempt=1 reason=scan_failed",
		"processing attempt=2", "scan attempt=2", "retry attempt=2 reason=scan_failed",
		"processing attempt=3", "scan attempt=3", deadLettered)
}

// The outcome cannot be recorded: the upload does not stay in processing for ever.
func TestOutcomeThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.Exec(t, `alter table uploads add constraint never check (status <> 'completed')`)
	id := p.receive(t, note, note, 1)
	p.run(t)
	p.await(t, allJobs, "discarded")
	p.want(t, id, storage.Failed, storage.ReasonDeadLettered, 0, 1)
	p.job(t, queue.MaxAttempts, queue.MaxAttempts)
	p.WantCount(t, queue.MaxAttempts-1, `select count(*) from timeline where event = 'retry' and detail->>'reason' = 'record_failed'`)
}

// While clamd is away the job waits, for longer than it has attempts; then its first attempt succeeds.
func TestClamdAway(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	clamd, _ := startClamd(t)
	p.pipeline.Scanner = newScanner(t, clamd.Address())
	clamd.Kill()
	id := p.receive(t, note, note, 1)
	p.run(t)
	stack.Until(t, "job that waited", func() bool { return p.metric(t, requeues, "dependency_unavailable") > queue.MaxAttempts })
	p.want(t, id, storage.Processing, "", 0, 0)
	stack.Must(t, clamd.Restart(t.Context()))
	p.await(t, allJobs, "completed")
	p.want(t, id, storage.Completed, "", 0, 1)
	p.tells(t, id, "processing attempt=1", "waiting attempt=1 reason=scanner_unavailable",
		"scan attempt=1", "type attempt=1", "thumbnails attempt=1", "facts attempt=1", "completed thumbnails=0")
	p.job(t, 1, 0)
}

// clamd dies while it reads a file. It may have died of that file, which costs an attempt; that it is away
// afterwards costs none.
func TestClamdDiesInTheMiddle(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	clamd, dir := startClamd(t)
	p.pipeline.Scanner = newScanner(t, clamd.Address())
	g := newGate(t, 4*chunk)
	p.reach(t, g.url)
	photo := stack.Photo(stack.PhotoConfig{Width: 1600, Height: 1200, Seed: 1})
	if len(photo) < 6*chunk {
		t.Fatalf("a photo of %d bytes is not held up in its middle", len(photo))
	}
	id := p.receive(t, photo, photo, 1)
	p.run(t)
	g.await(t)
	stack.Until(t, "file that clamd is reading", func() bool { return bytesBelow(t, filepath.Join(dir, "tmp")) > 0 })
	clamd.Kill()
	close(g.open)
	stack.Until(t, "job that waited", func() bool { return p.metric(t, requeues, "dependency_unavailable") > queue.MaxAttempts })
	p.want(t, id, storage.Processing, "", 0, 0)
	stack.Must(t, clamd.Restart(t.Context()))
	p.await(t, allJobs, "completed")
	p.want(t, id, storage.Completed, "", len(thumbnailSizes), 1)
	p.job(t, 2, 1)
}

func bytesBelow(t *testing.T, dir string) (total int64) {
	t.Helper()
	stack.Must(t, filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	}))
	return total
}

// The pipeline panics each time: the last attempt makes the upload a dead letter as an error would.
func TestPanic(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.pipeline.Examiner = nil
	id := p.receive(t, smallPhoto(), smallPhoto(), 1)
	p.run(t)
	p.await(t, allJobs, "discarded")
	p.want(t, id, storage.Failed, storage.ReasonDeadLettered, 0, 1)
	if errs := p.job(t, queue.MaxAttempts, queue.MaxAttempts); strings.Count(errs, "nil pointer") < queue.MaxAttempts {
		t.Errorf("the attempts failed of %s", errs)
	}
	p.wantMetric(t, outcomes, string(storage.Failed), 1)
	p.tells(t, id, "processing attempt=1", "scan attempt=1", "type attempt=1", "retry attempt=1 reason=worker_failed",
		"processing attempt=2", "retry attempt=2 reason=worker_failed", "processing attempt=3", deadLettered)
}
