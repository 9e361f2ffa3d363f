package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"go.opentelemetry.io/otel/trace"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
)

const (
	defaultTimeout     = 5 * time.Minute
	defaultStopTimeout = 20 * time.Second
	rescueMargin       = time.Minute     // River's own rescue requeues jobs that ran for so much longer than they may
	handBackTime       = 5 * time.Second // that jobs have to be handed back after the pool's StopTimeout
	fetchCooldown      = 20 * time.Millisecond
	keepDiscarded      = 90 * 24 * time.Hour // how long the jobs of dead letters are kept
)

// Config shapes a Pool.
type Config struct {
	RetryDelay  time.Duration `name:"retry-delay" help:"How long a failed job waits before its second attempt. The third waits six times as long."`
	BusyDelay   time.Duration `name:"busy-delay" help:"How long a job waits before it is tried again when clamd or S3 does not answer. This costs no attempt."`
	LostAfter   time.Duration `name:"lost-after" help:"How long after TRAMO_LEASE_TTL a worker must be silent before its jobs are requeued for other workers."`
	Timeout     time.Duration `kong:"-"` // of an attempt; 5 min by default
	StopTimeout time.Duration `name:"stop-timeout" help:"How long running jobs may continue when the worker is told to stop. Then they are handed back for other workers."`
}

// DefaultConfig is used where nothing is set.
func DefaultConfig() Config {
	return Config{RetryDelay: 5 * time.Second, BusyDelay: 15 * time.Second, LostAfter: 15 * time.Second, StopTimeout: defaultStopTimeout}
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if c.RetryDelay <= 0 {
		errs = append(errs, fmt.Errorf("TRAMO_RETRY_DELAY: %s is not more than 0", c.RetryDelay))
	}
	if c.BusyDelay <= 0 {
		errs = append(errs, fmt.Errorf("TRAMO_BUSY_DELAY: %s is not more than 0", c.BusyDelay))
	}
	if c.LostAfter < time.Second {
		errs = append(errs, fmt.Errorf("TRAMO_LOST_AFTER: %s is less than 1s", c.LostAfter))
	}
	if c.StopTimeout < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_STOP_TIMEOUT: %s is less than 0", c.StopTimeout))
	}
	return errors.Join(errs...)
}

// Options say how a pool works the jobs of a kind.
type Options struct {
	Workers int           // jobs at a time in this process; 0 for none
	Timeout time.Duration // of an attempt; [Config.Timeout] by default
	Every   time.Duration // how often River's leader enqueues one for all processes; 0 for never. At least a second
}

// A Pool works jobs until it is told to stop.
type Pool struct {
	conf     Config
	workers  map[Kind]*registration
	stopping context.Context // Run's
	db       *storage.DB
	leases   *lease.Manager
	metrics  *Metrics
	tracer   trace.Tracer
	log      *slog.Logger
}

// NewPool makes a pool that takes its jobs from db. The heartbeat of the leases tells other pools that this process lives.
func NewPool(c Config, db *storage.DB, leases *lease.Manager, m *Metrics, tracers trace.TracerProvider, log *slog.Logger) *Pool {
	return &Pool{
		conf: c, workers: make(map[Kind]*registration), db: db, leases: leases, metrics: m,
		tracer: tracers.Tracer("github.com/tramo/tramo/processing/queue"), log: log,
	}
}

// Register has the pool give the jobs of a kind to a worker. It must come before Run.
func (p *Pool) Register(kind Kind, w Worker, o Options) {
	if kind == ProcessUpload {
		p.metrics.workers.Set(float64(o.Workers))
	}
	p.workers[kind] = &registration{pool: p, kind: kind, worker: w, Options: o}
}

// Run works jobs until ctx is done, then gives running ones StopTimeout to finish; those that do not are handed back, and worked
// again by another process.
func (p *Pool) Run(ctx context.Context) error {
	p.stopping = ctx
	if err := p.leases.Registered(ctx); err != nil {
		return nil // told to stop before anything began
	}
	timeout, stopTimeout := cmp.Or(p.conf.Timeout, defaultTimeout), cmp.Or(p.conf.StopTimeout, defaultStopTimeout)
	config := &river.Config{
		ID:                          workerName(p.leases),
		Queues:                      make(map[string]river.QueueConfig),
		Workers:                     river.NewWorkers(),
		Logger:                      p.log,
		JobTimeout:                  timeout,
		RescueStuckJobsAfter:        timeout + rescueMargin,
		FetchCooldown:               fetchCooldown,
		DiscardedJobRetentionPeriod: keepDiscarded,
		RetryPolicy:                 retryPolicy{p.conf.RetryDelay},
		SoftStopTimeout:             stopTimeout,
	}
	for _, r := range p.workers {
		r.join(config)
	}
	client, err := river.NewClient(riverpgxv5.New(p.db.Pool()), config)
	if err != nil {
		return fmt.Errorf("open the job queue: %w", err)
	}
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start the worker pool: %w", err)
	}
	p.log.InfoContext(ctx, "working")
	var chores sync.WaitGroup
	chores.Go(func() { p.rescue(ctx) })
	p.rank(ctx)
	chores.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout+handBackTime)
	defer cancel()
	if err := client.Stop(last); err != nil {
		return fmt.Errorf("stop the worker pool: %w", err)
	}
	return nil
}

// join adds the registration to River's configuration.
func (r *registration) join(c *river.Config) {
	if r.Workers == 0 {
		return
	}
	k := kinds[r.kind]
	river.AddWorkerArgs(c.Workers, riverArgs{kind: r.kind}, r)
	c.Queues[k.queue] = river.QueueConfig{MaxWorkers: r.Workers, FetchPollInterval: k.poll}
	if r.Every == 0 {
		return
	}
	c.PeriodicJobs = append(c.PeriodicJobs, river.NewPeriodicJob(river.PeriodicInterval(r.Every), func() (river.JobArgs, *river.InsertOpts) {
		p := params(r.kind, Args{})
		if r.kind == TakeInventory {
			// Each new leader enqueues one at its start; one within an interval is enough.
			p.InsertOpts.UniqueOpts = river.UniqueOpts{ByPeriod: r.Every}
		}
		return p.Args, p.InsertOpts
	}, &river.PeriodicJobOpts{RunOnStart: true}))
}

// retryPolicy spaces attempts so that jobs survive a short fault of a dependency.
type retryPolicy struct{ first time.Duration }

// NextRetry implements [river.ClientRetryPolicy].
func (r retryPolicy) NextRetry(job *rivertype.JobRow) time.Time {
	return time.Now().Add(time.Duration(float64(r.first) * math.Pow(6, float64(job.Attempt-1))))
}

// Why a job was requeued without an attempt of it having failed.
const (
	requeuedLost        = "worker_lost"
	requeuedStop        = "stop"
	requeuedUnavailable = "dependency_unavailable"
)

// Metrics count workers and requeued jobs.
type Metrics struct {
	requeued *prometheus.CounterVec
	workers  prometheus.Gauge
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	m := &Metrics{
		requeued: f.NewCounterVec(prometheus.CounterOpts{
			Name: "tramo_processing_requeued_total",
			Help: "Jobs that this process requeued: those of dead workers (worker_lost), its own that it handed back when it stopped (stop), and its own that wait for clamd, S3 or disk space (dependency_unavailable).",
		}, []string{"reason"}),
		workers: f.NewGauge(prometheus.GaugeOpts{
			Name: "tramo_processing_workers",
			Help: "Uploads that this process processes at a time, at most.",
		}),
	}
	for _, reason := range []string{requeuedLost, requeuedStop, requeuedUnavailable} {
		m.requeued.WithLabelValues(reason)
	}
	return m
}
