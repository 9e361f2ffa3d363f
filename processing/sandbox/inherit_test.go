//go:build linux

package sandbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tramo/tramo/processing/sandbox"
)

// surroundings are what a process sees.
type surroundings struct {
	Environment []string
	Descriptors []string
	Core, Fsize uint64
	NoNewPrivs  int
	Dumpable    int
	OwnSession  bool
	Rights      []string // the sets of capabilities of all threads (proc_pid_status(5))
}

func lookAround() string {
	seen := surroundings{Environment: os.Environ()}
	open, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range open {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil { // the directory itself is closed again
			seen.Descriptors = append(seen.Descriptors, name)
		}
	}
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_CORE, &limit)
	seen.Core = limit.Max
	_ = unix.Getrlimit(unix.RLIMIT_FSIZE, &limit)
	seen.Fsize = limit.Max
	seen.NoNewPrivs, _ = unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	seen.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	session, _ := unix.Getsid(0)
	seen.OwnSession = session == os.Getpid()
	threads, _ := filepath.Glob("/proc/self/task/*/status")
	for _, thread := range threads {
		status, _ := os.ReadFile(thread)
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "Cap") {
				seen.Rights = append(seen.Rights, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	slices.Sort(seen.Rights)
	seen.Rights = slices.Compact(seen.Rights)
	text, _ := json.Marshal(seen)
	return string(text)
}

// wantOwnDescriptors wants nothing to be open but so many sockets and pipes, nothing, and the Go runtime's.
func (s surroundings) wantOwnDescriptors(t *testing.T, sockets, pipes int) {
	t.Helper()
	kinds := map[string]int{}
	for _, open := range s.Descriptors {
		kind, _, _ := strings.Cut(open, ":")
		kinds[kind]++
	}
	if kinds["socket"] != sockets || kinds["pipe"] != pipes {
		t.Errorf("open: %q", s.Descriptors)
	}
	for kind := range kinds {
		if !slices.Contains([]string{"socket", "pipe", "anon_inode", "/dev/null"}, kind) && !strings.HasPrefix(kind, "/sys/fs/cgroup/") {
			t.Errorf("%s is open", kind)
		}
	}
}

// wantNoRights wants no thread to have a capability. The bounding set, which a user cannot empty who may not drop from
// it, only counts when a program is run that would gain something, and no_new_privs refuses that (capabilities(7)).
func (s surroundings) wantNoRights(t *testing.T) {
	t.Helper()
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		if want := set + ": 0000000000000000"; !slices.Contains(s.Rights, want) || slices.ContainsFunc(s.Rights, func(line string) bool {
			return strings.HasPrefix(line, set) && line != want
		}) {
			t.Errorf("%q, want %s", s.Rights, want)
		}
	}
	if s.NoNewPrivs != 1 {
		t.Error("it may gain privileges")
	}
}

// An heir is a worker with what it inherits from whoever starts it.
type heir struct {
	credential *syscall.Credential // nil: this process's
	ambient    []uintptr           // its capabilities, if it is no root
	without    uintptr             // the one that not even root has, or 0
	bounds     bool                // it may drop from the bounding set
}

// heirs are all that this process can start.
func heirs() map[string]heir {
	if os.Geteuid() != 0 {
		return map[string]heir{"user": {}}
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	return map[string]heir{
		"root":                   {bounds: true},
		"root who may not drop":  {without: unix.CAP_SETPCAP},
		"user":                   {credential: nobody},
		"user with a capability": {credential: nobody, ambient: []uintptr{unix.CAP_DAC_READ_SEARCH}},
		"user with several":      {credential: nobody, ambient: []uintptr{unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE}, bounds: true},
	}
}

// start starts a command as this heir.
func (h heir) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: h.credential, AmbientCaps: h.ambient}
	return onThread(func() error {
		if h.without != 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, h.without, 0, 0, 0); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
}

// onThread calls f on a thread that ends afterwards, because what is dropped from it does not come back.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// inherit is the life of an heir, which also opens a socket that its children would inherit. It says what they have.
func inherit() {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(socket), unix.F_DUPFD, 300) // beyond the limit of a child
	}
	if err != nil {
		panic(err)
	}
	input, err := os.Open("/dev/null")
	if err != nil {
		panic(err)
	}
	box := sandbox.New(sandbox.Config{Limits: roomy, Confinement: sandbox.Prefer, Without: unprotected})
	confined := sandbox.New(sandbox.Config{Limits: roomy})
	var child said
	var tool bytes.Buffer
	err = errors.Join(confined.Prepare(context.Background()), confined.Close())
	err = errors.Join(err, box.Ask(context.Background(), "A", order{Do: "look"}, input, into(&child)))
	if err := errors.Join(err, box.Run(context.Background(), self("look"), input, roomy, &tool), box.Close()); err != nil {
		panic(err)
	}
	fmt.Printf("[%s,%s]", child.Content, tool.String())
}

// reachable is a copy of the test program that any user may run.
func reachable(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "tramo-sandbox-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	must(t, os.Chmod(directory, 0o755))
	program, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	path := filepath.Join(directory, "sandbox.test")
	must(t, os.WriteFile(path, program, 0o600))
	must(t, os.Chmod(path, 0o755))
	return path
}

// Start the worker with a socket that is not its own and with capabilities: as root, as a user, and as those in between.
// Neither a child nor a tool has any of it, and each of these workers gets the confinement that it requires.
func TestNothingIsInherited(t *testing.T) {
	t.Parallel()
	program := reachable(t)
	for name, h := range heirs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			must(t, err)
			leaked, other := os.NewFile(uintptr(sockets[0]), "leaked"), os.NewFile(uintptr(sockets[1]), "other")
			defer func() { _ = errors.Join(leaked.Close(), other.Close()) }()
			var out, words bytes.Buffer
			cmd := &exec.Cmd{
				Path: program, Args: []string{program, "heir", ""}, Dir: "/",
				ExtraFiles: []*os.File{leaked, other}, Stdout: &out, Stderr: &words,
			}
			must(t, h.start(cmd))
			if err := cmd.Wait(); err != nil {
				t.Fatalf("%v: %s", err, words.String())
			}
			var seen []surroundings
			must(t, json.Unmarshal(out.Bytes(), &seen))
			for i, kind := range []string{"child", "tool"} {
				t.Run(kind, func(t *testing.T) {
					seen[i].wantNoRights(t)
					if !seen[i].OwnSession {
						t.Error("it is in the session of whoever started the worker, with its terminal")
					}
					seen[i].wantOwnDescriptors(t, 1-i, 2)
					if h.bounds && !slices.Contains(seen[i].Rights, "CapBnd: 0000000000000000") {
						t.Errorf("%q, want no bounding set", seen[i].Rights)
					}
				})
			}
		})
	}
}

// What another thread opens between the worker's look at its descriptors and the start of a child reaches the child, as what a
// shell opens here does, which is closed before a file is read.
func TestWhatIsLeakedIsClosed(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	must(t, err)
	box := open(t, sandbox.Config{
		Command: []string{"/bin/sh", "-c", `exec 7</etc/passwd 9</etc/group; exec "$@"`, "sh", program, sandbox.Argument},
		Without: unprotected,
	})
	var child, tool surroundings
	must(t, json.Unmarshal([]byte(ask(t, box, "A", order{Do: "look"}, "x").Content), &child))
	child.wantOwnDescriptors(t, 1, 2)
	var out bytes.Buffer
	must(t, box.Run(t.Context(), self("look"), file(t, "x"), roomy, &out))
	must(t, json.Unmarshal(out.Bytes(), &tool))
	for _, open := range append(child.Descriptors, tool.Descriptors...) {
		if strings.HasPrefix(open, "/etc/") {
			t.Errorf("%s is open", open)
		}
	}
}
