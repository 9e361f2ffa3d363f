package stack_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// Kill a process that runs Postgres, clamd and a program with -9: none of its children survives it.
func TestNoChildSurvivesKill(t *testing.T) {
	t.Parallel()
	parent := startParent(t, "daemons", t.TempDir())
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
	for _, pid := range children {
		stack.Until(t, fmt.Sprintf("the end of child %d", pid), func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
	}
}

// Kill a process with -9: the next one that starts something removes the directories that it has left, and nothing of a
// process that lives.
func TestAbandonedDirectoriesAreRemoved(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	directories := func() []string {
		found, err := filepath.Glob(filepath.Join(temp, "*"))
		stack.Must(t, err)
		for _, dir := range found {
			hourAgo := time.Now().Add(-time.Hour)
			stack.Must(t, os.Chtimes(dir, hourAgo, hourAgo)) // younger ones are left alone
		}
		return found
	}
	killed := startParent(t, "redis", temp)
	abandoned := directories()
	startParent(t, "redis", temp)
	if found := directories(); len(abandoned) != 1 || len(found) != 2 || !slices.Contains(found, abandoned[0]) {
		t.Fatalf("directories of two processes: %q, of the first one: %q", found, abandoned)
	}
	killed.Kill()
	startParent(t, "redis", temp)
	if found := directories(); len(found) != 2 || slices.Contains(found, abandoned[0]) {
		t.Errorf("directories %q, with that of a killed process: %q", found, abandoned)
	}
}

// parentEnv makes the test binary a process that starts others.
const parentEnv = "STACK_TEST_PARENT"

func startParent(t *testing.T, of, temp string) *stack.Process {
	t.Helper()
	self, err := os.Executable()
	stack.Must(t, err)
	parent, err := stack.Start(stack.ProcessConfig{Path: self, Env: stack.CleanEnv(parentEnv+"="+of, "TMPDIR="+temp)})
	stack.Must(t, err)
	t.Cleanup(parent.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), stack.Patience)
	defer cancel()
	stack.Must(t, parent.WaitForLog(ctx, "children started\n"))
	return parent
}

func parent() error {
	ctx := context.Background()
	if os.Getenv(parentEnv) == "redis" {
		if _, err := stack.StartRedis(ctx); err != nil {
			return err
		}
		fmt.Println("children started")
		select {}
	}
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

// zombie reports whether a process has ended and has not been waited for.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestProcessStops(t *testing.T) {
	t.Parallel()
	p := sh(t, `trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.01; done`, time.Minute)
	stack.Must(t, p.WaitForLog(stack.Context(t), "ready\n"))
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
	stack.Must(t, p.WaitForLog(stack.Context(t), "ready\n"))
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Stop = %v, want that it had to be killed", err)
	}
	stack.Receive(t, "end of the program", p.Exited())
}

func TestRunReturnsOnlyStandardOutput(t *testing.T) {
	t.Parallel()
	run := func(script string) (string, error) {
		return stack.Run(stack.Context(t), stack.ProcessConfig{Path: "/bin/sh", Args: []string{"-c", script}})
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
	err := p.WaitForURL(stack.Context(t), "http://127.0.0.1:1/readyz")
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
