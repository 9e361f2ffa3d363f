//go:build linux

package sandbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tramo/tramo/processing/sandbox"
)

// prey is what the attacks are about.
type prey struct {
	pid       string
	address   string
	secret    string // a file
	directory string
}

// setOut sets out what attacks are about: a process, a server, files.
func setOut(t *testing.T) prey {
	t.Helper()
	victim := exec.Command("/bin/sleep", "600")
	victim.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	must(t, victim.Start())
	t.Cleanup(func() {
		_ = victim.Process.Kill()
		_ = victim.Wait()
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	p := prey{pid: fmt.Sprint(victim.Process.Pid), address: listener.Addr().String(), directory: t.TempDir()}
	p.secret = filepath.Join(p.directory, "secret")
	must(t, os.WriteFile(p.secret, []byte("secret"), 0o666))
	return p
}

// target is what an attack is about.
func (p prey) target(name string) string {
	switch name {
	case "connect":
		return p.address
	case "read a file", "overwrite a file", "remove a file":
		return p.secret
	case "list a directory":
		return p.directory
	case "write a file":
		return filepath.Join(p.directory, "new")
	}
	return p.pid
}

// unprotected leaves everything out that a kernel may lack.
var unprotected = []string{"landlock", "seccomp"}

// limited are the attacks that limits alone refuse, which hold on every kernel.
var limited = []string{"write a file", "overwrite a file"}

// never are those that may be refused without our doing: by the kernel's own settings, or because a process leads its group.
var never = []string{"set up io_uring", "leave the group", "enter a user namespace", "write the input"}

// names are those of all attacks.
func names() []string {
	var all []string
	for name := range attacks {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// What a file does that has taken a child over is refused by the kernel, each attack by itself; and each works, as the same
// program with the same limits, where nothing is refused.
func TestChildIsConfined(t *testing.T) {
	t.Parallel()
	checkConfined(t, func(t *testing.T, box *sandbox.Box, name, target string) report {
		return ask(t, box, name, order{name, target}, "x").Attack
	}, attackWide)
}

// The same holds for a program of somebody else's that a file has taken over.
func TestToolIsConfined(t *testing.T) {
	t.Parallel()
	checkConfined(t, tryTool, tryTool)
}

func checkConfined(t *testing.T, attack, attackWide func(*testing.T, *sandbox.Box, string, string) report) {
	t.Helper()
	needKernel(t)
	box := open(t, sandbox.Config{})
	wide := open(t, sandbox.Config{TooWide: unprotected})
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setOut(t)
			if r := attack(t, box, name, p.target(name)); r.Worked || !r.Refused {
				t.Errorf("confined: %+v", r)
			}
			if slices.Contains(never, name) || slices.Contains(limited, name) {
				return
			}
			if r := attackWide(t, wide, name, p.target(name)); !r.Worked {
				t.Errorf("the attack does not work where nothing is confined: %+v", r)
			}
		})
	}
}

// attackWide tries an attack in a child that is not confined.
func attackWide(t *testing.T, wide *sandbox.Box, name, target string) report {
	t.Helper()
	if name == "become a shell" {
		var s said
		err := wide.Ask(t.Context(), name, order{name, target}, file(t, "x"), into(&s))
		return report{Worked: err != nil && !strings.Contains(err.Error(), "permitted"), Said: fmt.Sprint(err)}
	}
	return ask(t, wide, name, order{name, target}, "x").Attack
}

// needKernel fails where the walls cannot be shown to hold: Linux 5.13 has both, unless it was built or booted without.
func needKernel(t *testing.T) {
	t.Helper()
	box := open(t, sandbox.Config{})
	ask(t, box, "A", order{Do: "echo"}, "x")
	if c := box.Confinement(); c.Landlock == 0 || !c.Seccomp {
		t.Fatalf("this kernel has only %s: the sandbox is tested where there are Landlock and seccomp", c)
	}
}

// Landlock and seccomp hold each by itself what each can: a kernel without the other one is no open door.
func TestEachProtectionHoldsAlone(t *testing.T) {
	t.Parallel()
	needKernel(t)
	for _, c := range []struct {
		without string
		refused []string
	}{
		{"seccomp", []string{"read a file", "list a directory", "write a file", "overwrite a file", "remove a file", "read an environ",
			"ptrace", "read another's memory", "signal", "connect", "run a shell", "become a shell"}},
		{"landlock", []string{"open a socket", "connect", "write a file", "overwrite a file", "remove a file", "make a memfd", "ptrace", "read another's memory",
			"signal", "signal a thread", "limit another", "run a shell", "become a shell", "fork", "fork without a signal", "outlive the parent"}},
	} {
		box := open(t, sandbox.Config{TooWide: []string{c.without}})
		for _, name := range c.refused {
			t.Run(name+" without "+c.without, func(t *testing.T) {
				t.Parallel()
				p := setOut(t)
				if r := ask(t, box, name, order{name, p.target(name)}, "x").Attack; r.Worked || !r.Refused {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

// The limits that every kernel has hold without anything else: no core, no file, few descriptors, an empty environment.
func TestChildHoldsNothing(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret") // and so not parallel
	t.Setenv("DATABASE_URL", "secret")
	box := open(t, sandbox.Config{TooWide: unprotected, Env: []string{"LANG=C"}})
	var seen surroundings
	must(t, json.Unmarshal([]byte(ask(t, box, "A", order{Do: "look"}, "x").Content), &seen))
	if slices.Sort(seen.Environment); !slices.Equal(seen.Environment, []string{"LANG=C", "TRAMO_CONFINED=1"}) {
		t.Errorf("the child has %q", seen.Environment)
	}
	if seen.Core != 0 || seen.Fsize != 0 || seen.NoNewPrivs != 1 || seen.Dumpable != 0 {
		t.Errorf("%+v", seen)
	}
	// Its socket, its words, the answer's pipe; nothing, and the Go runtime's.
	kinds := map[string]int{}
	for _, open := range seen.Descriptors {
		kind, _, _ := strings.Cut(open, ":")
		kinds[kind]++
	}
	if kinds["socket"] != 1 || kinds["pipe"] != 2 {
		t.Errorf("open: %q", seen.Descriptors)
	}
	for kind := range kinds {
		if !slices.Contains([]string{"socket", "pipe", "anon_inode", "/dev/null"}, kind) && !strings.HasPrefix(kind, "/sys/fs/cgroup/") {
			t.Errorf("%s is open", kind)
		}
	}
	for name, want := range map[string]error{"write a file": unix.EFBIG, "overwrite a file": unix.EFBIG} {
		p := setOut(t)
		if r := ask(t, box, "A", order{name, p.target(name)}, "x").Attack; r.Worked || !strings.Contains(r.Said, want.Error()) {
			t.Errorf("%s: %+v, want %v", name, r, want)
		}
	}
}

// Descriptors run out for the child, not for the worker.
func TestDescriptorsAreLimited(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{})
	var n int
	var full bool
	if _, err := fmt.Sscan(ask(t, box, "A", order{Do: "descriptors"}, "x").Content, &n, &full); err != nil || n > 64 || !full {
		t.Errorf("%d could be opened, EMFILE %t, %v", n, full, err)
	}
}

// The file before is not mapped any more when the next one comes. Without Landlock, so that the child can look.
func TestEarlierFilesAreUnmapped(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{TooWide: unprotected})
	for range 3 {
		if s := ask(t, box, "A", order{Do: "input is gone"}, "content"); s.Content != "1" {
			t.Errorf("%s files are mapped, want this one", s.Content)
		}
	}
}

// Where a group can be made, it holds the child, counts what is no private memory, and goes with it.
func TestCgroup(t *testing.T) {
	t.Parallel()
	box := open(t, sandbox.Config{TooWide: unprotected, Limits: sandbox.Limits{Memory: 512 << 20}})
	s := ask(t, box, "A", order{Do: "groups"}, "x")
	version := box.Confinement().Cgroup
	if version == "" {
		t.Skip("no cgroup can be made here")
	}
	if !strings.Contains(s.Content, fmt.Sprintf("/tramo-%d-", os.Getpid())) {
		t.Errorf("cgroup %s holds the child in %s", version, s.Content)
	}
	var answer said
	err := box.Ask(t.Context(), "A", order{Do: "share"}, file(t, "x"), into(&answer))
	var limit *sandbox.LimitError
	if !errors.As(err, &limit) || limit.Limit != sandbox.LimitMemory {
		t.Errorf("%v, want the limit of memory", err)
	}
	for line := range strings.Lines(s.Content) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if left, _ := filepath.Glob("/sys/fs/cgroup/" + strings.TrimSuffix("*"+fields[2], "/")); strings.Contains(line, "/tramo-") && len(left) > 0 {
			t.Errorf("%q are left", left)
		}
	}
}
