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
	journal *journal

	restarting sync.Mutex // Postgres
}

// run injects what the plan says and returns when it is over: replicas and Postgres run. S3's faults are counted and not timed;
// they go on until they are used up, because most uploads are completed late.
func (w *injector) run(ctx context.Context) {
	w.site.s3.SetLatency(w.plan.latency)
	w.site.s3.Fault(w.s3Fault)
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

// s3Fault returns the fault of the n-th request of a kind to S3.
func (w *injector) s3Fault(kind string, n int) stack.Fault {
	for _, s := range w.plan.s3 {
		if s.kind == kind && n >= s.first && n < s.first+s.count {
			w.journal.fault("S3 %s number %d: %+v", kind, n, s.fault)
			return s.fault
		}
	}
	return stack.Fault{}
}

func (w *injector) inject(ctx context.Context, f faultPlan) {
	switch f.kind {
	case cutNow, cutLater, stall:
		w.disturb(ctx, f)
	case restartStore:
		w.restarting.Lock()
		defer w.restarting.Unlock()
		w.journal.fault("%s", f.kind)
		if err := w.site.Postgres.Restart(ctx); err != nil {
			w.journal.violate("", "the harness cannot restart Postgres: %v", err)
		}
		w.journal.fault("%s: it is back", f.kind)
	default:
		w.hit(ctx, f)
	}
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
		err = r.freeze(ctx, f.length)
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
