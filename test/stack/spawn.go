package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Linux sends Pdeathsig when the thread that forked ends, not the process (prctl(2),
// PR_SET_PDEATHSIG), and the Go runtime ends threads as it likes. So one goroutine, locked to
// its thread for as long as the process lives, starts every child.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// child is a running program.
type child struct {
	name string
	cmd  *exec.Cmd
	out  *tail
	done chan struct{} // closed once the program has ended and its output is read
	err  error         // how it ended; read it after done
}

// spawn starts cmd so that it receives onDeath when this process dies. What it prints goes to
// log, which may be nil; a Stdout set by the caller stays. The child has its own process group: Ctrl-C on a terminal reaches only us, who
// then stop it in order.
func spawn(name string, cmd *exec.Cmd, onDeath syscall.Signal, log io.Writer) (*child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = onDeath
	cmd.SysProcAttr.Setpgid = true
	c := &child{name: name, cmd: cmd, out: &tail{next: log}, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = c.out
	}
	cmd.Stderr = c.out
	// A grandchild can keep the output open after a kill; do not wait for it for ever.
	cmd.WaitDelay = 2 * time.Second

	started := make(chan error)
	spawner() <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// run starts cmd, waits for its end and returns its output inside the error, if it ends badly.
func run(ctx context.Context, name string, cmd *exec.Cmd, log io.Writer) error {
	c, err := spawn(name, cmd, syscall.SIGKILL, log)
	if err != nil {
		return err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		c.kill()
		return fmt.Errorf("%s: %w", name, ctx.Err())
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w\n%s", name, c.err, c.out.lastWords())
	}
	return nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// stop sends sig and waits; after grace it kills, and says so.
func (c *child) stop(sig syscall.Signal, grace time.Duration) error {
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-timer.C:
		c.kill()
		return fmt.Errorf("stop %s: still running %s after %s, killed", c.name, grace, sig)
	}
}

// kill ends the program and its process group at once and waits until it has gone.
func (c *child) kill() {
	// Errors mean that it has gone already.
	_ = syscall.Kill(-c.pid(), syscall.SIGKILL)
	_ = c.cmd.Process.Kill()
	<-c.done
}

// await calls ready every few milliseconds until it returns nil. It gives up with ready's last error
// when ctx ends, and with the program's last words when the program ends first.
func (c *child) await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s ended while starting: %w\n%s", c.name, orExit0(c.err), c.out.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w\n%s", c.name, ctx.Err(), err, c.out.lastWords())
		case <-tick.C:
		}
	}
}

var errExit0 = errors.New("exit status 0")

func orExit0(err error) error {
	if err == nil {
		return errExit0
	}
	return err
}
