//go:build linux

package sandbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/processing/sandbox"
)

// A child serves one tenant's files one after the other, and no other tenant's, ever.
func TestReuseIsForOneTenant(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{Children: 2})
	served := map[int]string{}
	last := map[string]said{}
	for round := range 4 {
		for _, tenant := range []string{"A", "B", "C"} { // one more than there may be children
			for range 2 {
				content := fmt.Sprint("file of ", tenant, " in round ", round)
				s := ask(t, box, tenant, order{Do: "echo"}, content)
				if s.Content != content {
					t.Errorf("%q, want %q", s.Content, content)
				}
				if owner, known := served[s.Pid]; known && owner != tenant {
					t.Fatalf("process %d served %s and %s", s.Pid, owner, tenant)
				}
				served[s.Pid] = tenant
				last[tenant] = s
			}
			if last[tenant].Files < 2 {
				t.Errorf("%s's second file got a fresh process", tenant)
			}
		}
	}
}

// A child that a file of A has taken over remembers its bytes, and answers them for A's next file. B never sees them.
func TestWhatATakenChildRemembersStaysWithItsTenant(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{Children: 1})
	ask(t, box, "A", order{Do: "remember"}, "secret of A")
	if s := ask(t, box, "A", order{Do: "remember"}, "another"); s.Content != "secret of A" {
		t.Errorf("the attack does not work: %q", s.Content)
	}
	if s := ask(t, box, "B", order{Do: "remember"}, "of B"); s.Content != "of B" {
		t.Errorf("B got %q", s.Content)
	}
	if s := ask(t, box, "A", order{Do: "remember"}, "of A"); s.Content != "of A" {
		t.Errorf("A got %q from a process that B's file came between", s.Content)
	}
}

// After so many files a child is replaced, and the spare one takes over.
func TestChildrenAreReplaced(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	box := open(t, sandbox.Config{Files: 3, Metrics: sandbox.NewMetrics(registry)})
	var before said
	for n := range 7 {
		s := ask(t, box, "A", order{Do: "echo"}, "x")
		if want := n%3 + 1; s.Files != want {
			t.Errorf("file %d was number %d of its process, want %d", n, s.Files, want)
		}
		if n%3 == 0 && s.Pid == before.Pid {
			t.Errorf("file %d was served by the process that should have been replaced", n)
		}
		before = s
	}
	if n := count(t, registry, "tramo_sandbox_replaced_total"); n != 2 {
		t.Errorf("%v replaced, want 2", n)
	}
}

func count(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	must(t, err)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			sum += metric.GetCounter().GetValue()
		}
	}
	return sum
}

// An idle child goes, and is not waited for.
func TestIdleChildrenEnd(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{Idle: time.Millisecond})
	s := ask(t, box, "A", order{Do: "echo"}, "x")
	gone(t, s.Pid)
}

// Whatever a child does that was taken over, its parent gets an error that names it, and within its limits.
func TestMisbehavingChildren(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		do     string
		limits sandbox.Limits
		want   string // a limit, or "" for a crash
	}{
		{"hang", sandbox.Limits{Wall: time.Second}, sandbox.LimitTime},
		{"spin", sandbox.Limits{CPU: time.Second}, sandbox.LimitCPU},
		{"hoard", sandbox.Limits{Memory: 256 << 20}, sandbox.LimitMemory},
		{"flood", sandbox.Limits{Output: 1 << 20}, sandbox.LimitOutput},
		{"keep the pipe", sandbox.Limits{Wall: time.Second}, sandbox.LimitTime},
		{"answer twice", sandbox.Limits{}, ""},
		{"answer half", sandbox.Limits{}, ""},
		{"die", sandbox.Limits{}, ""},
	} {
		t.Run(c.do, func(t *testing.T) {
			t.Parallel()
			registry := prometheus.NewRegistry()
			box := open(t, sandbox.Config{Limits: c.limits, Metrics: sandbox.NewMetrics(registry)})
			var s said
			err := box.Ask(t.Context(), "A", order{Do: c.do}, file(t, "x"), into(&s))
			var limit *sandbox.LimitError
			switch {
			case c.want == "" && !errors.Is(err, sandbox.ErrCrashed):
				t.Errorf("%v, want ErrCrashed", err)
			case c.want != "" && (!errors.As(err, &limit) || limit.Limit != c.want):
				t.Errorf("%v, want the limit of %s", err, c.want)
			}
			if n := count(t, registry, "tramo_sandbox_limits_total"); n != 1 {
				t.Errorf("%v limits counted", n)
			}
			// The next good file is answered for.
			if s := ask(t, box, "A", order{Do: "echo"}, "good"); s.Content != "good" || s.Files != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A child that fails on a file after it has served others may have been broken by them: a fresh one is asked, once.
func TestAFreshChildIsAskedAgain(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{})
	first := ask(t, box, "A", order{Do: "die when reused"}, "x")
	second := ask(t, box, "A", order{Do: "die when reused"}, "y")
	if second.Pid == first.Pid || second.Files != 1 || second.Content != "y" {
		t.Errorf("first %+v, second %+v", first, second)
	}
	// And one that has died behind its parent's back costs nobody anything.
	ask(t, box, "B", order{Do: "die afterwards"}, "x")
	if s := ask(t, box, "B", order{Do: "echo"}, "y"); s.Content != "y" {
		t.Errorf("%+v", s)
	}
}

// CPU time is counted for each file anew.
func TestCPUIsCountedForEachFile(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{Limits: sandbox.Limits{CPU: 2 * time.Second}})
	first := ask(t, box, "A", order{Do: "work"}, "x")
	for range 3 {
		if s := ask(t, box, "A", order{Do: "work"}, "x"); s.Pid != first.Pid {
			t.Errorf("process %d, want %d", s.Pid, first.Pid)
		}
	}
}

// An answer that is no good is the child's end, also when it came in time and whole.
func TestAnswersAreJudgedByTheReader(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{})
	nonsense := errors.New("nonsense")
	var s said
	reads := 0
	err := box.Ask(t.Context(), "A", order{Do: "echo"}, file(t, "x"), func(r io.Reader, _ bool) error {
		reads++
		if err := into(&s)(r, false); err != nil {
			return err
		}
		return nonsense
	})
	if !errors.Is(err, sandbox.ErrCrashed) || !errors.Is(err, nonsense) || reads != 1 {
		t.Errorf("%v after %d reads", err, reads)
	}
	gone(t, s.Pid)
}

// Whoever stops waiting gets the context's error, and the child is gone.
func TestAskIsCancelled(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{})
	pid := ask(t, box, "A", order{Do: "echo"}, "x").Pid
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var s said
	if err := box.Ask(ctx, "A", order{Do: "hang"}, file(t, "x"), into(&s)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's error", err)
	}
	gone(t, pid)
}

// Closing ends the idle, the spare and the busy, and whoever waits is told.
func TestClose(t *testing.T) {
	t.Parallel()
	box := sandbox.New(sandbox.Config{Limits: roomy})
	idle := ask(t, box, "A", order{Do: "echo"}, "x").Pid
	waiting := make(chan error)
	pids := make(chan int, 1)
	go func() {
		var s said
		err := box.Ask(t.Context(), "B", order{Do: "answer then hang"}, file(t, "x"), func(r io.Reader, _ bool) error {
			if err := json.NewDecoder(r).Decode(&s); err != nil {
				return err
			}
			pids <- s.Pid
			_, err := io.ReadAll(r)
			return err
		})
		waiting <- err
	}()
	busy := receive(t, "answer of the busy child", pids)
	if err := box.Close(); err != nil {
		t.Error(err)
	}
	if err := receive(t, "end of the question", waiting); !errors.Is(err, sandbox.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	for _, pid := range []int{idle, busy} {
		if alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	var s said
	if err := box.Ask(t.Context(), "A", order{Do: "echo"}, file(t, "x"), into(&s)); !errors.Is(err, sandbox.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	if err := box.Run(t.Context(), self("hang"), file(t, ""), roomy, io.Discard); !errors.Is(err, sandbox.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

// As many files are worked on at once as there may be children, and not one more; the others wait.
func TestChildrenAreBounded(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{Children: 2})
	var working, most atomic.Int32
	done := make(chan error)
	for n := range 12 {
		go func() {
			var s said
			done <- box.Ask(t.Context(), fmt.Sprint("tenant ", n%3), order{Do: "echo"}, file(t, "x"), func(r io.Reader, _ bool) error {
				now := working.Add(1)
				defer working.Add(-1)
				for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
				}
				return into(&s)(r, false)
			})
		}()
	}
	for range 12 {
		if err := receive(t, "answer", done); err != nil {
			t.Error(err)
		}
	}
	if most.Load() > 2 {
		t.Errorf("%d at once, want 2 at most", most.Load())
	}
	// And whoever gives up waiting is told so.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var s said
	if err := box.Ask(ctx, "A", order{Do: "hang"}, file(t, "x"), into(&s)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
}
