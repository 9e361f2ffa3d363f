package stack_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// Kill a process that runs Postgres, clamd and a program with -9: none of its children survives it.
func TestNoChildSurvivesKill(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	stack.Must(t, err)
	parent, err := stack.Start(stack.ProcessConfig{Path: self, Env: stack.CleanEnv(parentEnv+"=1", "TMPDIR="+t.TempDir())})
	stack.Must(t, err)
	t.Cleanup(parent.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stack.Must(t, parent.WaitForLog(ctx, "children started\n"))
	var children []int
	for line := range strings.Lines(parent.Output()) {
		var pid int
		if _, err := fmt.Sscanf(line, "child %d", &pid); err == nil {
			children = append(children, pid)
		}
	}
	if len(children) != 3 {
		t.Fatalf("%d children, want 3:\n%s", len(children), parent.Output())
	}

	stack.Must(t, parent.Signal(syscall.SIGKILL)) // and not its process group
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, pid := range children {
		for syscall.Kill(pid, 0) == nil && !zombie(pid) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("child %d survives", pid)
			}
		}
	}
}

// parentEnv makes the test binary the parent of TestNoChildSurvivesKill.
const parentEnv = "STACK_TEST_PARENT"

func parent() error {
	ctx := context.Background()
	pg, err := stack.StartPostgres(ctx, stack.PostgresConfig{})
	if err != nil {
		return err
	}
	clamd, err := stack.StartClamd(ctx, stack.ClamdConfig{})
	if err != nil {
		return err
	}
	sleep, err := stack.Start(stack.ProcessConfig{Path: "/bin/sleep", Args: []string{"600"}})
	if err != nil {
		return err
	}
	fmt.Printf("child %d\nchild %d\nchild %d\nchildren started\n", pg.Pid(), clamd.Pid(), sleep.Pid())
	select {}
}

// zombie tells a process that has ended, but that nobody has waited for yet.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestProcessStops(t *testing.T) {
	t.Parallel()
	p := sh(t, `trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.01; done`, time.Minute)
	stack.Must(t, p.WaitForLog(t.Context(), "ready\n"))
	err := p.Stop()
	var exit *osexec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("Stop = %v, want exit status 3", err)
	}
	if !strings.HasSuffix(p.Output(), "asked\n") {
		t.Errorf("output %q does not end with what the program said last", p.Output())
	}
}

func TestProcessIsKilledAfterItsGrace(t *testing.T) {
	t.Parallel()
	p := sh(t, `trap '' TERM; echo ready; while :; do sleep 0.01; done`, 50*time.Millisecond)
	stack.Must(t, p.WaitForLog(t.Context(), "ready\n"))
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Stop = %v, want that it had to be killed", err)
	}
	stack.Receive(t, "end of the program", p.Exited())
}

func TestRunReturnsOnlyStandardOutput(t *testing.T) {
	t.Parallel()
	run := func(script string) (string, error) {
		return stack.Run(t.Context(), stack.ProcessConfig{Path: "/bin/sh", Args: []string{"-c", script}})
	}
	out, err := run("echo a log line >&2; echo token")
	if out != "token\n" || err != nil {
		t.Errorf("Run = %q, %v; want the token alone", out, err)
	}
	if _, err = run("echo no such tenant >&2; exit 1"); err == nil || !strings.Contains(err.Error(), "no such tenant") {
		t.Errorf("Run = %v, want the program's last words", err)
	}
}

func TestWaitingForAProcessThatEnds(t *testing.T) {
	t.Parallel()
	p := sh(t, `echo no such database; exit 1`, time.Minute)
	err := p.WaitForURL(t.Context(), "http://127.0.0.1:1/readyz")
	if err == nil || !strings.Contains(err.Error(), "no such database") {
		t.Errorf("WaitForURL = %v, want the program's last words", err)
	}
}

func sh(t *testing.T, script string, grace time.Duration) *stack.Process {
	t.Helper()
	p, err := stack.Start(stack.ProcessConfig{Path: "/bin/sh", Args: []string{"-c", script}, Grace: grace})
	stack.Must(t, err)
	t.Cleanup(p.Kill)
	return p
}
