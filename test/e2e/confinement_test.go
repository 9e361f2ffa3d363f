package e2e

import (
	"bytes"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"github.com/tramo/tramo/test/stack"
)

// On a kernel without Landlock a worker does not begin, before it connects to anything, and says what is missing and what to do. With
// TRAMO_CONFINEMENT=prefer it warns and goes on.
func TestConfinementIsRequired(t *testing.T) {
	t.Parallel()
	database, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and ends them
	stack.Must(t, err)
	defer database.Close() // nothing is lost with it
	connected := make(chan struct{}, 1)
	go func() {
		for {
			conn, err := database.Accept()
			if err != nil {
				return
			}
			select {
			case connected <- struct{}{}:
			default:
			}
			_ = conn.Close()
		}
	}()
	url := "TRAMO_DATABASE_URL=postgres://tramo_worker:secret@" + database.Addr().String() + "/tramo"
	for _, c := range []struct {
		name      string
		env       []string
		goesOn    bool
		log, hint string
	}{
		{"by default", nil, false, "it lacks Landlock (function not implemented)", "TRAMO_CONFINEMENT=prefer"},
		{"required", []string{"TRAMO_CONFINEMENT=require"}, false, "it lacks Landlock (function not implemented)", "TRAMO_CONFINEMENT=prefer"},
		{"preferred", []string{"TRAMO_CONFINEMENT=prefer"}, true, `"level":"WARN"`, "cannot confine"},
	} {
		var said bytes.Buffer
		worker := exec.CommandContext(stack.Context(t), tramo.Programs.Path("tramo-worker"))
		worker.Env = tramo.Env("", append(c.env, url, "TRAMO_OPS_LISTEN=127.0.0.1:0", "TRAMO_LOG_FORMAT=json")...)
		worker.Stdout, worker.Stderr = &said, &said
		stack.Must(t, startWithout(worker, "landlock_create_ruleset"))
		if err := worker.Wait(); err == nil {
			t.Errorf("%s: it ended without an error", c.name)
		}
		if !strings.Contains(said.String(), c.log) || !strings.Contains(said.String(), c.hint) {
			t.Errorf("%s: %s", c.name, said.String())
		}
		goesOn := false
		select {
		case <-connected:
			goesOn = true
		default:
		}
		if goesOn != c.goesOn {
			t.Errorf("%s: it connected to the database: %t", c.name, goesOn)
		}
	}
}

// startWithout starts a program on a kernel that lacks a call. The thread that does it ends, because its filter stays.
func startWithout(cmd *exec.Cmd, call string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		lacks := seccomp.SyscallGroup{Names: []string{call}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)}
		err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{lacks},
		}})
		if err == nil {
			err = cmd.Start()
		}
		done <- err
	}()
	return <-done
}
