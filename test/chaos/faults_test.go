package chaos

import (
	"context"
	"errors"
	"os/exec"
	"sync"

	"github.com/tramo/tramo/test/stack"
)

// An injector injects the faults of a plan.
type injector struct {
	plan    plan
	site    *site
	lines   func(upload int) []*line // in use by an upload's clients
	steps   *saboteur
	journal *journal

	restarting sync.Mutex // Postgres

	counting sync.Mutex
	requests map[string]int // to S3, by kind
}

// run injects what the plan says and returns when it is over: replicas and Postgres run. S3's faults are counted and not timed;
// they go on until they are used up, because most uploads are completed late.
func (w *injector) run(ctx context.Context) {
	w.requests = map[string]int{}
	for i, r := range w.site.replicas {
		r.s3.SetLatency(w.plan.latency)
		r.s3.Fault(func(kind string, _ int) stack.Fault { return w.s3Fault(i, kind) })
	}
	var all sync.WaitGroup
	for _, f := range w.plan.faults {
		all.Go(func() {
			pause(ctx, f.at-w.journal.now())
			w.inject(ctx, f)
		})
	}
	all.Go(func() { pause(ctx, storm-w.journal.now()) })
	all.Wait()
	w.journal.fault("only S3 may still fail")
}

// s3Fault returns the fault of a replica's request to S3. Of those that a plan counts, the requests of all replicas are one
// sequence.
func (w *injector) s3Fault(replica int, kind string) stack.Fault {
	w.counting.Lock()
	w.requests[kind]++
	n := w.requests[kind]
	w.counting.Unlock()
	for _, s := range w.plan.s3 {
		if s.kind == kind && n >= s.first && n < s.first+s.count {
			w.journal.fault("S3 %s number %d: %+v", kind, n, s.fault)
			return s.fault
		}
	}
	return w.steps.atS3(replica, kind)
}

func (w *injector) inject(ctx context.Context, f faultPlan) {
	switch f.kind {
	case cutNow, cutLater, stall:
		w.disturb(ctx, f)
	case restartStore:
		w.restarting.Lock()
		defer w.restarting.Unlock()
		w.journal.fault("%s", f.kind)
		for _, r := range w.site.replicas {
			r.severed.Store(true)
		}
		if err := w.site.Postgres.Restart(ctx); err != nil {
			w.journal.violate("", "the harness cannot restart Postgres: %v", err)
		}
		w.journal.fault("%s: it is back", f.kind)
	case severStore, silenceStore:
		w.sever(ctx, f)
	default:
		w.hit(ctx, f)
	}
}

// sever cuts a replica's connections to Postgres, or lets them fall silent for a while.
func (w *injector) sever(ctx context.Context, f faultPlan) {
	r := w.site.replicas[f.target]
	w.journal.fault("%s of %s for %s", f.kind, r.name, f.length)
	r.severed.Store(true)
	if f.kind == severStore {
		r.toPostgres.cut()
		return
	}
	r.toPostgres.stall()
	pause(ctx, f.length)
	r.toPostgres.resume()
}

// disturb cuts or stalls the connections of an upload's clients.
func (w *injector) disturb(ctx context.Context, f faultPlan) {
	w.journal.fault("%s of upload-%d, %d bytes, %s", f.kind, f.target, f.bytes, f.length)
	lines := w.lines(f.target)
	for _, line := range lines {
		switch f.kind {
		case cutNow:
			line.cut()
		case cutLater:
			line.cutAfter(f.bytes)
		case stall:
			line.stall()
		}
	}
	if f.kind == stall {
		pause(ctx, f.length)
		for _, line := range lines {
			line.resume()
		}
	}
}

// hit does something to a replica. A second fault waits for the first to end.
func (w *injector) hit(ctx context.Context, f faultPlan) {
	r := w.site.replicas[f.target]
	r.mu.Lock()
	defer r.mu.Unlock()
	w.journal.fault("%s of %s for %s", f.kind, r.name, f.length)
	var err error
	switch f.kind {
	case freeze:
		err = r.freeze(ctx, f.length, func() {})
	case killReplica:
		r.kill()
		pause(ctx, f.length)
		err = r.start(ctx)
	case stopReplica:
		err = r.stop()
		var status *exec.ExitError
		if errors.As(err, &status) { // it may report that it could not write to Postgres, which is down
			w.journal.fault("%s after SIGTERM: %v", r.name, err)
		} else if err != nil {
			w.journal.violate("", "%s after SIGTERM: %v", r.name, err)
		}
		err = r.start(ctx)
	}
	if err != nil {
		w.journal.violate("", "%s of %s: %v", f.kind, r.name, err)
	}
	w.journal.fault("%s of %s: over", f.kind, r.name)
}
