package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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
}

// Process is a running program. It is killed when the process that started it dies.
type Process struct {
	child *child
	grace time.Duration
}

// Start runs a program in a process group of its own.
func Start(cfg ProcessConfig) (*Process, error) {
	cfg.setDefaults()
	child, err := spawn(cfg.Name, cfg.command(), syscall.SIGKILL, cfg.Log)
	if err != nil {
		return nil, err
	}
	return &Process{child: child, grace: cfg.Grace}, nil
}

// Run runs a program to its end and returns what it printed on its standard output. If it ends badly, the error
// quotes its standard error.
func Run(ctx context.Context, cfg ProcessConfig) (stdout string, err error) {
	cfg.setDefaults()
	var out bytes.Buffer
	cmd := cfg.command()
	cmd.Stdout = &out
	err = run(ctx, cfg.Name, cmd, cfg.Log)
	return out.String(), err
}

func (cfg *ProcessConfig) setDefaults() {
	if cfg.Name == "" {
		cfg.Name = filepath.Base(cfg.Path)
	}
	if cfg.Dir == "" {
		cfg.Dir = startDir
	}
	if cfg.Env == nil {
		cfg.Env = CleanEnv()
	}
	if cfg.Grace == 0 {
		cfg.Grace = 30 * time.Second
	}
}

func (cfg *ProcessConfig) command() *exec.Cmd {
	cmd := exec.Command(cfg.Path, cfg.Args...)
	cmd.Dir, cmd.Env = cfg.Dir, cfg.Env
	return cmd
}

// CleanEnv returns our environment with extra added and without the TRAMO_ and AWS_ variables of whoever runs the
// tests.
func CleanEnv(extra ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "TRAMO_") || strings.HasPrefix(v, "AWS_")
	})
	return append(env, extra...)
}

// NoRateLimits returns the variables with which a server lets clients ask as often, and send as much at a time, as they
// like, as tests and benchmarks do, whose clients are few users at one address.
func NoRateLimits() []string {
	return []string{
		"TRAMO_RATE_IP=0", "TRAMO_RATE_IP_TRANSFERS=0", "TRAMO_RATE_USER=0", "TRAMO_RATE_UPLOADS=0", "TRAMO_RATE_USER_TRANSFERS=0",
		"TRAMO_TENANT_UPLOADS=0",
	}
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.child.pid() }

// Output returns the last megabyte of what the program has printed on both its outputs.
func (p *Process) Output() string { return p.child.out.String() }

// Exited is closed when the program has ended and its output is complete.
func (p *Process) Exited() <-chan struct{} { return p.child.done }

// Wait waits for the end. An exit status other than 0 is an *exec.ExitError.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.child.done:
		return p.child.err
	case <-ctx.Done():
		return fmt.Errorf("wait for %s to end: %w", p.child.name, ctx.Err())
	}
}

// Signal sends sig, such as SIGSTOP and SIGCONT.
func (p *Process) Signal(sig os.Signal) error { return p.child.cmd.Process.Signal(sig) }

// Stop sends SIGTERM and waits. It is an error if the program has to be killed in the end, or exits with a
// status other than 0. It may be called twice.
func (p *Process) Stop() error {
	if err := p.child.stop(syscall.SIGTERM, p.grace); err != nil {
		return err
	}
	if p.child.err != nil {
		return fmt.Errorf("%s: %w", p.child.name, p.child.err)
	}
	return nil
}

// Kill ends the program and its process group with -9.
func (p *Process) Kill() { p.child.kill() }

// WaitForLog returns once the program has printed text.
func (p *Process) WaitForLog(ctx context.Context, text string) error {
	return p.child.await(ctx, func(context.Context) error {
		if !strings.Contains(p.Output(), text) {
			return fmt.Errorf("it has not printed %q", text)
		}
		return nil
	})
}

// WaitForURL returns once a GET of url answers 200.
func (p *Process) WaitForURL(ctx context.Context, url string) error {
	return p.child.await(ctx, func(ctx context.Context) error { return Probe(ctx, url) })
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
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", url, res.Status, strings.TrimSpace(string(body)))
	}
	return nil
}

// Binaries are built programs of this repository.
type Binaries struct {
	dir  string
	temp bool
}

// startDir is remembered because StartS3 moves the working directory.
var startDir, startDirErr = os.Getwd()

// Build makes sure of the programs below cmd/ with these names. If TRAMO_BIN names a directory, as make test does,
// they must be there; else they are built into a temporary directory, which Remove removes.
func Build(ctx context.Context, names ...string) (*Binaries, error) {
	if dir := os.Getenv("TRAMO_BIN"); dir != "" {
		b := &Binaries{dir: dir}
		for _, name := range names {
			if _, err := os.Stat(b.Path(name)); err != nil {
				return nil, fmt.Errorf("find %s in TRAMO_BIN: %w", name, err)
			}
		}
		return b, nil
	}
	root, err := RepoRoot()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tramo-bin-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the programs: %w", err)
	}
	b := &Binaries{dir: dir, temp: true}
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	if err := run(ctx, "go build", cmd, nil); err != nil {
		return nil, errors.Join(err, b.Remove())
	}
	return b, nil
}

// Path returns the program's absolute path.
func (b *Binaries) Path(name string) string { return filepath.Join(b.dir, name) }

// Remove removes what Build has built.
func (b *Binaries) Remove() error {
	if !b.temp {
		return nil
	}
	return os.RemoveAll(b.dir)
}

// RepoRoot returns the directory of go.mod, above the directory in which this process started.
func RepoRoot() (string, error) {
	if startDirErr != nil {
		return "", fmt.Errorf("find go.mod: %w", startDirErr)
	}
	for dir := startDir; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find go.mod: none in %s or above", startDir)
		}
	}
}

// Chromium returns the path of a Chromium or Chrome that tests can drive. Those from snap are passed over: they cannot read
// a test's temporary files.
func Chromium() (string, error) {
	for _, name := range []string{"google-chrome-stable", "google-chrome", "chromium", "chromium-browser"} {
		path, err := exec.LookPath(name)
		if err != nil || strings.HasPrefix(path, "/snap/") {
			continue
		}
		if start, err := os.ReadFile(path); err == nil && bytes.HasPrefix(start, []byte("#!")) && bytes.Contains(start, []byte("/snap/")) {
			continue
		}
		return path, nil
	}
	return "", errors.New("find Chromium: no chromium or google-chrome in PATH but a snap; make setup says what to install")
}
