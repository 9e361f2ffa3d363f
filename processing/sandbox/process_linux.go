package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one confined process, a child or a tool, from its start until it has been reaped.
type process struct {
	cmd    *exec.Cmd
	stderr words
	group  *cgroup
	ended  chan struct{} // closed when it has ended, and is not yet reaped
	exited chan struct{} // closed when it and its group have ended
	err    error         // of cmd.Wait, once it has exited

	mu     sync.Mutex
	reaped bool // another process may have its number
}

// start starts the program of the Box again, with an order, in a session of its own. The process has no privileges and gains none, and
// ends with this one. The Box waits for it when it is closed.
func (b *Box) start(cmd *exec.Cmd, order childOrder) (*process, error) {
	order.Confinement, order.Without = b.config.Confinement, b.config.Without
	argument, err := json.Marshal(order)
	if err != nil {
		return nil, fmt.Errorf("write the order of a confined process: %w", err)
	}
	if err := b.begin(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, ended: make(chan struct{}), exited: make(chan struct{})}
	cmd.Path, cmd.Args = b.config.Command[0], append(slices.Clone(b.config.Command), string(argument))
	cmd.Dir, cmd.Env, cmd.Stderr = "/", append([]string{marker}, b.config.Env...), &p.stderr
	// A session of its own has no terminal, and is a process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	started := make(chan error, 1)
	go func() {
		// Pdeathsig fires when the thread that started the child ends, not the process: this goroutine
		// keeps its thread as long as the child lives. It never gives it back, because what startConfined
		// did to it cannot be undone; the runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		err := startConfined(cmd)
		started <- err
		if err == nil {
			awaitExit(cmd.Process.Pid)
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		b.running.Done()
		return nil, fmt.Errorf("start a confined process: %w", err)
	}
	b.know(p)
	p.group = b.cgroups.hold(cmd.Process.Pid, order.Limits.Memory)
	go func() {
		defer b.running.Done()
		defer b.forget(p)
		p.outlive()
	}()
	return p, nil
}

// outlive waits for the end of a process, and ends the processes that it has started.
func (p *process) outlive() {
	defer close(p.exited)
	<-p.ended
	p.kill() // ended but not yet reaped: its number still names its own group
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	p.err = p.cmd.Wait()
	p.group.remove()
}

// kill ends a process with its group.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // no process left is no error
	}
}

// end kills a process with its group and waits for their end.
func (p *process) end() {
	p.kill()
	<-p.exited
}

// cpuTime is what a process has used so far, all of its threads, by its clock (clock_getcpuclockid(3)).
func (p *process) cpuTime() time.Duration {
	const schedClock = 2 // CPUCLOCK_SCHED, of the process
	var now unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|schedClock), &now); err != nil {
		return 0 // it is gone
	}
	return time.Duration(now.Nano())
}

// usedUp reports whether the kernel ended a process for its CPU time, and how much that was. The kernel enforces the limit by ticks but
// reports the exact time, which can be much less on a machine that shares its cores.
func usedUp(state *os.ProcessState, limit time.Duration) (time.Duration, bool) {
	status, _ := state.Sys().(syscall.WaitStatus)
	killed := status.Signaled() && (status.Signal() == syscall.SIGKILL || status.Signal() == syscall.SIGXCPU)
	used := state.UserTime() + state.SystemTime()
	return used, killed && used >= limit/2
}

// awaitExit waits until a child has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// reopen opens a file again, read-only and at offset 0, even one that has no name any more.
func reopen(file *os.File) (*os.File, error) {
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open the file for the confined process: %w", err)
	}
	return again, nil
}
