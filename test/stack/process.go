package stack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ProcessConfig describes a program to run.
type ProcessConfig struct {
	// Path is the executable, Name what messages call it: by default the last element of Path.
	Path, Name string
	Args       []string
	// Dir is the working directory; by default the one in which this process was started.
	Dir string
	// Env is the whole environment. Nil means CleanEnv().
	Env []string
	// Log receives what the program prints, for Run only on its standard error. Nil discards it.
	Log io.Writer
	// Grace is how long Stop waits before it kills; 30 s by default.
	Grace time.Duration

	stdout        io.Writer      // by default with standard error
	stop, onDeath syscall.Signal // what Stop sends, and what the program gets when this process dies; by default SIGTERM and SIGKILL
	as            *account       // nil: run as ourselves
}

// Process is a running program. It is killed when the process that started it dies.
type Process struct {
	name  string
	cmd   *exec.Cmd
	out   *tail
	stop  syscall.Signal
	grace time.Duration
	done  chan struct{} // closed once the program has ended and its output is read
	err   error         // how it ended; read it after done
}

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

// Start runs a program in a process group of its own: Ctrl-C on a terminal reaches only us, who then stop it in order.
func Start(cfg ProcessConfig) (*Process, error) {
	p := &Process{
		name: cmp.Or(cfg.Name, filepath.Base(cfg.Path)), cmd: exec.Command(cfg.Path, cfg.Args...), out: &tail{next: cfg.Log},
		stop: cmp.Or(cfg.stop, syscall.SIGTERM), grace: cmp.Or(cfg.Grace, 30*time.Second), done: make(chan struct{}),
	}
	p.cmd.Dir, p.cmd.Env = cmp.Or(cfg.Dir, startDir), cfg.Env
	if cfg.Env == nil {
		p.cmd.Env = CleanEnv()
	}
	p.cmd.Stdout, p.cmd.Stderr = cfg.stdout, p.out
	if cfg.stdout == nil {
		p.cmd.Stdout = p.out
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: cmp.Or(cfg.onDeath, syscall.SIGKILL), Setpgid: true}
	if cfg.as != nil {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: cfg.as.uid, Gid: cfg.as.gid}
		p.cmd.SysProcAttr.AmbientCaps = cfg.as.caps
	}
	// A grandchild can keep the output open after a kill; do not wait for it for ever.
	p.cmd.WaitDelay = 2 * time.Second

	started := make(chan error)
	spawner() <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Run runs a program to its end and returns what it printed on its standard output. If it ends badly, the error
// quotes its standard error.
func Run(ctx context.Context, cfg ProcessConfig) (stdout string, err error) {
	var out bytes.Buffer
	cfg.stdout = &out
	p, err := Start(cfg)
	if err != nil {
		return "", err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		return out.String(), fmt.Errorf("%s: %w", p.name, ctx.Err())
	}
	if p.err != nil {
		err = fmt.Errorf("%s: %w\n%s", p.name, p.err, p.LastOutput())
	}
	return out.String(), err
}

// CleanEnv returns our environment with extra added and without the TRAMO_ and AWS_ variables of whoever runs the
// tests.
func CleanEnv(extra ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "TRAMO_") || strings.HasPrefix(v, "AWS_")
	})
	return append(env, extra...)
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Output returns the last megabyte of what the program has printed on both its outputs.
func (p *Process) Output() string { return p.out.String() }

// LastOutput returns what of the program's output fits an error or a failed test's log.
func (p *Process) LastOutput() string {
	out := strings.TrimSpace(p.Output())
	return out[max(0, len(out)-8000):]
}

// Exited is closed when the program has ended and its output is complete.
func (p *Process) Exited() <-chan struct{} { return p.done }

// Wait waits for the end. An exit status other than 0 is an *exec.ExitError.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("wait for %s to end: %w", p.name, ctx.Err())
	}
}

// Signal sends sig, such as SIGSTOP and SIGCONT.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Stop sends SIGTERM and waits. It is an error if the program has to be killed in the end, or exits with a
// status other than 0. It may be called twice.
func (p *Process) Stop() error {
	if err := p.halt(); err != nil {
		return err
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w", p.name, p.err)
	}
	return nil
}

// halt is Stop without a look at the exit status.
func (p *Process) halt() error {
	if err := p.Signal(p.stop); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(p.grace):
		p.Kill()
		return fmt.Errorf("stop %s: still running %s after %s, killed", p.name, p.grace, p.stop)
	}
}

// Kill ends the program and its process group with -9, and waits until it has gone.
func (p *Process) Kill() {
	// Errors mean that it has gone already.
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	_ = p.cmd.Process.Kill()
	<-p.done
}

// WaitForLog returns once the program has printed text.
func (p *Process) WaitForLog(ctx context.Context, text string) error {
	return p.await(ctx, func(context.Context) error {
		if !strings.Contains(p.Output(), text) {
			return fmt.Errorf("it has not printed %q", text)
		}
		return nil
	})
}

// WaitForLine returns the rest of the line in which the program prints text.
func (p *Process) WaitForLine(ctx context.Context, text string) (rest string, err error) {
	err = p.await(ctx, func(context.Context) error {
		_, after, _ := strings.Cut(p.Output(), text)
		var found bool
		if rest, _, found = strings.Cut(after, "\n"); !found {
			return fmt.Errorf("it has not printed a line with %q", text)
		}
		return nil
	})
	return rest, err
}

// WaitForURL returns once a GET of url answers 200.
func (p *Process) WaitForURL(ctx context.Context, url string) error {
	return p.await(ctx, func(ctx context.Context) error { return Probe(ctx, url) })
}

// await waits until ready returns nil, and else quotes what the program printed last.
func (p *Process) await(ctx context.Context, ready func(context.Context) error) error {
	err := await(ctx, p.name, p.done, &p.err, ready)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, p.LastOutput())
	}
	return err
}

var errExit0 = errors.New("exit status 0")

// await calls ready every few milliseconds until it returns nil. It gives up with ready's last error when ctx ends, and
// with ended, which is read after done, when done is closed first.
func await(ctx context.Context, name string, done <-chan struct{}, ended *error, ready func(context.Context) error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("%s ended while starting: %w", name, cmp.Or(*ended, errExit0))
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", name, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Probe returns nil if a GET of url answers 200 within five seconds, else an error that quotes the answer.
func Probe(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %s", url, res.Status, bytes.TrimSpace(body))
	}
	return err
}
