package processing

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tramo/tramo/processing/queue"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/test/stack"
)

// A peer is a second worker beside the fixture's: a process of its own, as far as Postgres can tell.
type peer struct {
	*fixture
	leases *lease.Manager
	log    *logText
	stop   func()
	freeze func() // stops the heartbeat: the process is frozen, or cut off from Postgres
}

// A logText is a log that a test can wait for.
type logText struct {
	mu  sync.Mutex
	log bytes.Buffer
}

func (s *logText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *logText) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.log.String(), text)
}

// startPeer runs a worker that heartbeats and looks after others, with S3 at an address.
func (p *fixture) startPeer(t *testing.T, endpoint string) *peer {
	t.Helper()
	own, pipeline := *p, *p.pipeline
	m := &peer{fixture: &own, log: &logText{}}
	log := slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), m.log), &slog.HandlerOptions{Level: slog.LevelWarn}))
	m.registry, m.pipeline = prometheus.NewRegistry(), &pipeline
	m.metrics = queue.NewMetrics(m.registry)
	m.pipeline.Metrics, m.pipeline.Log = NewMetrics(m.registry), log
	m.reach(t, endpoint)
	m.leases = lease.NewManager(p.Worker, "peer", 3*time.Second, log)
	beating, die := context.WithCancel(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = m.leases.Run(beating) })
	pool := queue.NewPool(p.conf, p.Worker, m.leases, m.metrics, sdktrace.NewTracerProvider(), log)
	pool.Register(queue.ProcessUpload, m.pipeline, queue.Options{Workers: p.workers})
	all.Go(func() {
		if err := pool.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	m.freeze = die
	m.stop = func() {
		cancel()
		die()
		stack.Wait(t, "end of the worker", &all)
	}
	t.Cleanup(m.stop)
	stack.Must(t, m.leases.Registered(t.Context()))
	return m
}

// A worker freezes in the middle of a job: another is given it, and completes it. The frozen one wakes, while the other works
// or after it: it neither ends the upload nor the job, nor puts the job back.
func TestFrozenWorker(t *testing.T) {
	t.Parallel()
	for _, during := range []bool{true, false} {
		t.Run(fmt.Sprintf("wakes during the next attempt %t", during), func(t *testing.T) {
			t.Parallel()
			p := newFixture(t)
			p.conf.LostAfter, p.workers = 2*time.Second, 1 // the frozen one takes no other job
			first, second := newGate(t, 0), newGate(t, 0)
			frozen := p.startPeer(t, first.url)
			id := p.receive(t, smallPhoto(), smallPhoto(), 1)
			first.await(t)
			frozen.freeze()
			next := p.startPeer(t, second.url)
			second.await(t) // the next has it
			if during {
				close(first.open)
				stack.Until(t, "attempt that was superseded", func() bool { return frozen.log.has("was superseded") })
				close(second.open)
			} else {
				close(second.open)
				p.await(t, allJobs, "completed")
				close(first.open)
			}
			p.await(t, allJobs, "completed")
			frozen.stop()
			p.want(t, id, storage.Completed, "", len(thumbnailSizes), 1)
			if errs := p.job(t, 2, 1); !strings.Contains(errs, "worker lost") {
				t.Errorf("the first attempt failed of %s", errs)
			}
			frozen.wantMetric(t, outcomes, "", 0)
			frozen.wantMetric(t, stepTimes, "thumbnails", 0)
			next.wantMetric(t, requeues, "worker_lost", 1)
		})
	}
}

// leaveBehind makes the one job look as if its worker had died long ago.
func (p *fixture) leaveBehind(t *testing.T, attempt int) {
	t.Helper()
	// Long enough ago for ours to be sure, and not for River's own rescue, which writes no dead letters.
	p.Exec(t, fmt.Sprintf(`update river_job set state = 'running', attempt = %d, attempted_at = now() - interval '20 seconds',
		attempted_by = array['tramo-%s']`, attempt, uuid.New()))
}

// What kills worker after worker is a dead letter after three.
func TestWorkerKillerIsADeadLetter(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.conf.LostAfter = 2 * time.Second
	id := p.receive(t, note, note, 1)
	p.leaveBehind(t, queue.MaxAttempts)
	m := p.startPeer(t, stack.Get(t, ground.S3).Endpoint())
	p.await(t, allJobs, "discarded")
	p.await(t, `select status = 'failed' from uploads where id = $1`, id)
	p.tells(t, id, deadLettered)
	if errs := p.job(t, queue.MaxAttempts, 1); !strings.Contains(errs, "worker lost") {
		t.Errorf("it failed of %s", errs)
	}
	stack.Until(t, "outcome counted", func() bool { return m.metric(t, outcomes, string(storage.Failed)) == 1 })
}

// A worker dies between two steps: the next attempt goes on where it was, and the timeline tells of each step once.
func TestWorkerDiesBetweenSteps(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	p.conf.LostAfter = 2 * time.Second
	id := p.receive(t, smallPhoto(), smallPhoto(), 1)
	p.leaveBehind(t, 1)
	kept, err := json.Marshal(storage.Results{DetectedType: "image/jpeg"})
	stack.Must(t, err)
	p.Exec(t, fmt.Sprintf(`insert into step_results select tenant_id, id, '{scan,type}', '%s' from uploads`, kept))
	m := p.startPeer(t, stack.Get(t, ground.S3).Endpoint())
	p.await(t, allJobs, "completed")
	p.tells(t, id, "retry attempt=1 reason=worker_lost", "processing attempt=2", "thumbnails attempt=2", "facts attempt=2", "completed thumbnails=3")
	m.wantMetric(t, stepTimes, "scan", 0)
	p.job(t, 2, 1)
}
