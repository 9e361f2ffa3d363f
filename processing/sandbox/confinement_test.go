//go:build linux

package sandbox_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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

// targets is what the attacks are about.
type targets struct {
	pid       string
	address   string
	secret    string // a file
	locked    string // one that only capabilities open
	directory string
}

// newTargets makes what the attacks are about: a process, a server, files.
func newTargets(t *testing.T) targets {
	t.Helper()
	victim := exec.Command("/bin/sleep", "600")
	victim.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	// Without capabilities: nobody may look into a process that has more than they do (ptrace(2), access mode checking).
	must(t, onThread(func() error {
		var none [2]unix.CapUserData
		return errors.Join(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
			unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]), victim.Start())
	}))
	t.Cleanup(func() {
		_ = victim.Process.Kill()
		_ = victim.Wait()
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	p := targets{pid: fmt.Sprint(victim.Process.Pid), address: listener.Addr().String(), directory: t.TempDir()}
	p.secret = filepath.Join(p.directory, "secret")
	must(t, os.WriteFile(p.secret, []byte("secret"), 0o666))
	p.locked = filepath.Join(p.directory, "locked")
	must(t, os.WriteFile(p.locked, []byte("secret"), 0))
	return p
}

// target is what an attack is about.
func (p targets) target(name string) string {
	switch name {
	case "connect":
		return p.address
	case "read a file", "overwrite a file", "remove a file":
		return p.secret
	case "read a locked file":
		return p.locked
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
var limited = []string{"write a file", "overwrite a file", "raise its limit", "read a locked file"}

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
	}, attackUnconfined)
}

// The same holds for a program of somebody else's that a file has taken over.
func TestToolIsConfined(t *testing.T) {
	t.Parallel()
	checkConfined(t, tryTool, tryTool)
}

func checkConfined(t *testing.T, attack, attackUnconfined func(*testing.T, *sandbox.Box, string, string) report) {
	t.Helper()
	needKernel(t)
	box := open(t, sandbox.Config{})
	unconfined := open(t, sandbox.Config{Without: unprotected})
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTargets(t)
			if r := attack(t, box, name, p.target(name)); r.Worked || !r.Refused {
				t.Errorf("confined: %+v", r)
			}
			if slices.Contains(never, name) || slices.Contains(limited, name) {
				return
			}
			if r := attackUnconfined(t, unconfined, name, p.target(name)); !r.Worked {
				t.Errorf("the attack does not work where nothing is confined: %+v", r)
			}
		})
	}
}

// attackUnconfined tries an attack in a child that is not confined.
func attackUnconfined(t *testing.T, unconfined *sandbox.Box, name, target string) report {
	t.Helper()
	if name == "become a shell" {
		var s said
		err := unconfined.Ask(t.Context(), name, order{name, target}, file(t, "x"), into(&s))
		return report{Worked: err != nil && !strings.Contains(err.Error(), "permitted"), Said: fmt.Sprint(err)}
	}
	return ask(t, unconfined, name, order{name, target}, "x").Attack
}

// confinement is what a Box logs of its first child.
type confinement struct {
	Landlock        int
	Seccomp         bool
	Cgroup, Missing string
}

// confined returns a Box whose first child has started, and what confines it.
func confined(t *testing.T, c sandbox.Config) (*sandbox.Box, confinement) {
	t.Helper()
	var log bytes.Buffer
	c.Log = slog.New(slog.NewJSONHandler(&log, nil))
	box := open(t, c)
	ask(t, box, "A", order{Do: "echo"}, "x")
	var logged confinement
	must(t, json.Unmarshal(log.Bytes(), &logged))
	return box, logged
}

// needKernel fails where Landlock and seccomp cannot be tested: Linux 5.13 has both, unless it was built or booted without.
func needKernel(t *testing.T) {
	t.Helper()
	if _, c := confined(t, sandbox.Config{}); c.Landlock == 0 || !c.Seccomp {
		t.Fatalf("this kernel has only %+v: the sandbox is tested where there are Landlock and seccomp", c)
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
		box := open(t, sandbox.Config{Without: []string{c.without}})
		for _, name := range c.refused {
			t.Run(name+" without "+c.without, func(t *testing.T) {
				t.Parallel()
				p := newTargets(t)
				if r := ask(t, box, name, order{name, p.target(name)}, "x").Attack; r.Worked || !r.Refused {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

// The limits that every kernel has hold without anything else: no core, no file, few descriptors, an empty environment,
// no capability.
func TestChildHoldsNothing(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret") // and so not parallel
	t.Setenv("DATABASE_URL", "secret")
	box := open(t, sandbox.Config{Without: unprotected, Env: []string{"LANG=C"}})
	var seen surroundings
	must(t, json.Unmarshal([]byte(ask(t, box, "A", order{Do: "look"}, "x").Content), &seen))
	if slices.Sort(seen.Environment); !slices.Equal(seen.Environment, []string{"LANG=C", "TRAMO_CONFINED=1"}) {
		t.Errorf("the child has %q", seen.Environment)
	}
	if seen.Core != 0 || seen.Fsize != 0 || seen.NoNewPrivs != 1 || seen.Dumpable != 0 {
		t.Errorf("%+v", seen)
	}
	seen.wantOwnDescriptors(t, 1, 2)
	seen.wantNoRights(t)
	for name, want := range map[string]error{
		"write a file": unix.EFBIG, "overwrite a file": unix.EFBIG, "raise its limit": unix.EPERM, "read a locked file": unix.EACCES,
	} {
		p := newTargets(t)
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
	box := open(t, sandbox.Config{Without: unprotected})
	for range 3 {
		if s := ask(t, box, "A", order{Do: "input is gone"}, "content"); s.Content != "1" {
			t.Errorf("%s files are mapped, want this one", s.Content)
		}
	}
}

// Where a group can be made, it holds the child, counts what is no private memory, and goes with it.
func TestCgroup(t *testing.T) {
	t.Parallel()
	box, c := confined(t, sandbox.Config{Without: unprotected, Limits: sandbox.Limits{Memory: 512 << 20}})
	if c.Cgroup == "" {
		if where := writableCgroup(t); where != "" {
			t.Errorf("a group can be made in %s, and the child has none", where)
		}
		wantNoCgroup(t, box, c)
		return
	}
	s := ask(t, box, "A", order{Do: "groups"}, "x")
	if !strings.Contains(s.Content, fmt.Sprintf("/tramo-%d-", os.Getpid())) {
		t.Errorf("cgroup %s holds the child in %s", c.Cgroup, s.Content)
	}
	wantMemoryLimit(t, box, "share")
	for line := range strings.Lines(s.Content) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if left, _ := filepath.Glob("/sys/fs/cgroup/" + strings.TrimSuffix("*"+fields[2], "/")); strings.Contains(line, "/tramo-") && len(left) > 0 {
			t.Errorf("%q are left", left)
		}
	}
}

// Without a group, as in most containers, a child has its limit of memory all the same, and the operator is told.
func TestNoCgroup(t *testing.T) {
	t.Parallel()
	box, c := confined(t, sandbox.Config{Without: append([]string{"cgroup"}, unprotected...), Limits: sandbox.Limits{Memory: 512 << 20}})
	wantNoCgroup(t, box, c)
}

func wantNoCgroup(t *testing.T, box *sandbox.Box, c confinement) {
	t.Helper()
	if c.Cgroup != "" || !strings.Contains(c.Missing, "a writable cgroup") {
		t.Errorf("logged is %+v", c)
	}
	wantMemoryLimit(t, box, "hoard")
}

// wantMemoryLimit wants a child to be ended for its memory.
func wantMemoryLimit(t *testing.T, box *sandbox.Box, do string) {
	t.Helper()
	var limit *sandbox.LimitError
	if err := box.Ask(t.Context(), "A", order{Do: do}, file(t, "x"), into(new(said))); !errors.As(err, &limit) || limit.Limit != sandbox.LimitMemory {
		t.Errorf("%s: %v, want the limit of memory", do, err)
	}
}

// writableCgroup is where this process can make a group with a limit of memory, in the usual place, or "".
func writableCgroup(t *testing.T) string {
	t.Helper()
	groups, err := os.ReadFile("/proc/self/cgroup")
	must(t, err)
	for line := range strings.Lines(string(groups)) {
		path := strings.SplitN(strings.TrimSpace(line), ":", 3)[2]
		for _, limit := range []string{"/sys/fs/cgroup" + path + "/memory.max", "/sys/fs/cgroup/memory" + path + "/memory.limit_in_bytes"} {
			group, err := os.MkdirTemp(filepath.Dir(limit), "probe-")
			if err != nil {
				continue
			}
			probe, err := os.OpenFile(filepath.Join(group, filepath.Base(limit)), os.O_WRONLY, 0)
			_, _ = probe.Close(), os.Remove(group)
			if err == nil {
				return filepath.Dir(limit)
			}
		}
	}
	return ""
}
