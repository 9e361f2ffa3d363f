//go:build linux

package sandbox_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tramo/tramo/processing/sandbox"
)

// worker is the life of a program that uses a Box, at work and with an idle child and a spare one, until it is killed.
func worker(protections string) {
	box := sandbox.New(sandbox.Config{Limits: roomy, Confinement: sandbox.Prefer, Without: strings.Split(protections, ",")})
	ctx := context.Background()
	input, err := os.Open("/proc/self/cmdline")
	if err != nil {
		panic(err)
	}
	var s said
	if err := box.Ask(ctx, "idle", order{Do: "echo"}, input, into(&s)); err != nil {
		panic(err)
	}
	at := make(chan struct{})
	go func() {
		_ = box.Ask(ctx, "busy", order{Do: "answer then hang"}, input, func(r io.Reader, _ bool) error {
			_ = json.NewDecoder(r).Decode(&s)
			at <- struct{}{}
			_, err := io.ReadAll(r)
			return err
		})
	}()
	go func() { _ = box.Run(ctx, self("hang"), input, roomy, signal{at}) }()
	<-at
	<-at
	fmt.Println("at work")
	select {}
}

// signal tells of the first bytes written to it.
type signal struct{ to chan struct{} }

func (s signal) Write(p []byte) (int, error) {
	s.to <- struct{}{}
	return len(p), nil
}

// descendants are the processes that a process has started.
func descendants(t *testing.T, pid int) (all []int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	must(t, err)
	for _, file := range files {
		content, _ := os.ReadFile(file) // the thread may have ended
		for _, field := range strings.Fields(string(content)) {
			child, err := strconv.Atoi(field)
			must(t, err)
			all = append(append(all, child), descendants(t, child)...)
		}
	}
	return all
}

// Kill the worker with -9 while a child works, one is idle, one is a spare and a tool runs: none of them survives it, and
// no file of theirs does.
func TestNothingSurvivesTheWorker(t *testing.T) {
	t.Parallel()
	for _, protections := range []string{"", "landlock,seccomp"} {
		t.Run("without "+protections, func(t *testing.T) {
			t.Parallel()
			directory := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			cmd := exec.CommandContext(ctx, "/proc/self/exe", "worker", protections+",")
			cmd.WaitDelay = soon
			cmd.Env = append(os.Environ(), "TMPDIR="+directory)
			var said bytes.Buffer
			cmd.Stderr = &said
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "at work\n" {
				t.Fatalf("%q, %v: %s", line, err, said.String())
			}
			pids := descendants(t, cmd.Process.Pid)
			if len(pids) < 3 {
				t.Errorf("it has only %d processes", len(pids))
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			for _, pid := range pids {
				gone(t, pid)
			}
			if left, err := os.ReadDir(directory); err != nil || len(left) > 0 {
				t.Errorf("%v is left, %v", left, err)
			}
		})
	}
}

// Kill the child with -9 at any moment: idle, the spare, at work. The next file is answered for.
func TestChildrenAreKilled(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{})
	for range 3 {
		idle := ask(t, box, "A", order{Do: "echo"}, "x").Pid
		kill(t, idle)
		if s := ask(t, box, "A", order{Do: "echo"}, "y"); s.Pid == idle || s.Content != "y" {
			t.Errorf("%+v after process %d was killed", s, idle)
		}
	}
	// At work, in a child that had served before: a fresh one does it.
	before := ask(t, box, "A", order{Do: "echo"}, "x").Pid
	var s said
	err := box.Ask(t.Context(), "A", order{Do: "answer then hang when reused"}, file(t, "z"), func(r io.Reader, _ bool) error {
		decoder := json.NewDecoder(r)
		if err := decoder.Decode(&s); err != nil {
			return err
		}
		if s.Pid == before {
			kill(t, s.Pid)
			return io.ErrUnexpectedEOF
		}
		_, err := io.ReadAll(r)
		return err
	})
	if err != nil || s.Pid == before || s.Content != "z" {
		t.Errorf("%v, %+v", err, s)
	}
}

// What a child starts, where nothing keeps it from that, ends with it, however that ends.
func TestNothingSurvivesTheChild(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{Without: unprotected})
	s := ask(t, box, "A", order{Do: "leave children"}, "x")
	left, err := strconv.Atoi(s.Content)
	if err != nil {
		t.Fatalf("%q", s.Content)
	}
	if !alive(left) {
		t.Errorf("the attack does not work: process %d has gone", left)
	}
	kill(t, s.Pid) // it alone, not its group
	gone(t, left)
}
