// Package sandbox reads untrusted files in confined processes: this program again, kept for several files of one tenant ([Box.Ask],
// [Serve]), or an external program, once ([Box.Run]). The processes hold no credentials, reach no network, and write no file; their
// resources are limited, and their answers are not trusted. It knows neither images nor uploads.
package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Argument is what makes a program a child by default. The program then calls [Serve] with the arguments after it.
const Argument = "examine"

// The limits that a LimitError names.
const (
	LimitMemory = "memory"
	LimitCPU    = "cpu"
	LimitTime   = "time"
	LimitOutput = "output"
)

// For errors.Is.
var (
	// ErrCrashed: the process died, or its answer was invalid.
	ErrCrashed = errors.New("the confined process crashed")
	// ErrClosed: the Box is closed, and starts no more processes.
	ErrClosed = errors.New("the sandbox is closed")
	// ErrNoProgram: the program is not installed.
	ErrNoProgram = errors.New("the program is not installed")
)

// LimitError means that a process exceeded a limit, because of the file or because the machine is busy.
type LimitError struct {
	Limit string // one of the Limit constants
	Cause string
}

func (e *LimitError) Error() string { return "hit the limit of " + e.Limit + ": " + e.Cause }

// Limits bound the work on one file; a zero field means its default.
type Limits struct {
	Wall   time.Duration `name:"child-timeout" help:"How long a child process may take for one file."`                                                                                            // 60 s
	CPU    time.Duration `name:"child-cpu-timeout" help:"How much CPU time a child process may use for one file, in whole seconds."`                                                              // 30 s
	Memory int64         `name:"child-memory" type:"bytes" help:"Memory that a child process, which reads the uploaded files, may allocate. The default is enough for a photo of 50 megapixels."` // (RLIMIT_DATA), 1 GiB
	Output int64         `kong:"-"`                                                                                                                                                               // bytes that it may answer, or write to one file, 32 MiB
}

// DefaultMemory is what a 50-megapixel progressive JPEG and a 48-megapixel HEIC need, with a reserve
// (docs/explanation/decisions/0018-confined-children.md has the figures).
const DefaultMemory = 1 << 30

// WithDefaults replaces zero fields with the defaults.
func (l Limits) WithDefaults() Limits {
	return Limits{
		Wall:   cmp.Or(l.Wall, time.Minute),
		CPU:    max(time.Second, cmp.Or(l.CPU, 30*time.Second).Truncate(time.Second)),
		Memory: cmp.Or(l.Memory, DefaultMemory),
		Output: cmp.Or(l.Output, 32<<20),
	}
}

// Config says how processes are kept. The zero value is usable.
type Config struct {
	// Command is the program that calls Serve, and its hidden argument. By default it is this program, as it was
	// when it started, with Argument.
	Command []string `kong:"-"`
	// Env is the whole environment of the children that Ask starts: it carries no secret.
	Env    []string `kong:"-"`
	Limits Limits   `embed:""` // of one file, for Ask
	// Confinement is Require or Prefer; "" means Require.
	Confinement string `name:"confinement" help:"What happens where the kernel lacks Landlock or seccomp, which keep the processes that read uploaded files from everything else: require, and the worker does not start, or prefer, and it works without, with a warning."`
	// Children is how many of them there are at most, a spare one aside; 0 means four a core, and eight at least.
	// As many files can be worked on at once.
	Children int           `name:"children" help:"How many child processes for reading files are kept at most, besides one that is started ahead. 0 for four a core, and at least eight. A child reads files of one tenant only: more children mean fewer restarts where many tenants upload at the same time."`
	Files    int           `name:"child-files" help:"How many files a child process reads before it is replaced."` // 0 means 200
	Idle     time.Duration `kong:"-"`                                                                              // how long a child is kept that serves none; 0 means a minute
	// Without names protections to leave out, for tests that show what each of them prevents.
	Without []string     `kong:"-"`
	Metrics *Metrics     `kong:"-"`
	Log     *slog.Logger `kong:"-"`
}

// DefaultConfig is used where nothing is set.
func DefaultConfig() Config {
	return Config{Limits: Limits{}.WithDefaults(), Confinement: Require, Files: defaultFiles}
}

const (
	defaultFiles = 200
	leastMemory  = 128 << 20 // with less, a child does not start
)

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if c.Limits.Memory < leastMemory {
		errs = append(errs, fmt.Errorf("TRAMO_CHILD_MEMORY: %d bytes are less than a process needs to start; at least 128MiB", c.Limits.Memory))
	}
	if c.Limits.CPU < time.Second {
		errs = append(errs, fmt.Errorf("TRAMO_CHILD_CPU_TIMEOUT: %s is less than 1s", c.Limits.CPU))
	}
	if c.Limits.Wall < time.Second {
		errs = append(errs, fmt.Errorf("TRAMO_CHILD_TIMEOUT: %s is less than 1s", c.Limits.Wall))
	}
	if c.Confinement != Require && c.Confinement != Prefer {
		errs = append(errs, fmt.Errorf("TRAMO_CONFINEMENT: %q is neither require nor prefer", c.Confinement))
	}
	if c.Files < 1 {
		errs = append(errs, fmt.Errorf("TRAMO_CHILD_FILES: %d is less than 1", c.Files))
	}
	if c.Children < 0 {
		errs = append(errs, fmt.Errorf("TRAMO_CHILDREN: %d is less than 0", c.Children))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if len(c.Command) == 0 {
		c.Command = []string{"/proc/self/exe", Argument}
	}
	c.Limits = c.Limits.WithDefaults()
	c.Confinement = cmp.Or(c.Confinement, Require)
	c.Children = cmp.Or(c.Children, max(8, 4*runtime.GOMAXPROCS(0)))
	c.Files = cmp.Or(c.Files, defaultFiles)
	c.Idle = cmp.Or(c.Idle, time.Minute)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// A Box starts confined processes, keeps them and ends them. It may be used by several goroutines at once.
type Box struct {
	config  Config
	cgroups *cgroups
	closing chan struct{} // closed when all processes are to end
	running sync.WaitGroup
	tell    sync.Once
	working chan struct{} // a token for each file that is worked on

	mu        sync.Mutex
	closed    bool
	idle      []*child // the least recently used first
	spare     *child   // has served no file
	warming   bool     // a spare one is being started
	count     int      // children that serve or served files
	processes map[*process]struct{}
}

// marker in the environment says that a process is confined, so that a program that forgets to call Serve does not start
// itself for ever.
const marker = "TRAMO_CONFINED=1"

// New returns a Box, which has no processes yet.
func New(c Config) *Box {
	c = c.withDefaults()
	return &Box{
		config: c, cgroups: findCgroups(c.Without), closing: make(chan struct{}),
		working: make(chan struct{}, c.Children), processes: make(map[*process]struct{}),
	}
}

// Limits are those of one file, for Ask.
func (b *Box) Limits() Limits { return b.config.Limits }

// Close ends all processes and waits for that. Calls that wait for an answer return ErrClosed.
func (b *Box) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.closing)
	}
	for p := range b.processes {
		p.kill()
	}
	unused := b.idle
	if b.spare != nil {
		unused = append(unused, b.spare)
	}
	b.idle, b.spare = nil, nil
	b.mu.Unlock()
	for _, c := range unused {
		c.retire()
	}
	b.running.Wait()
	return nil
}

// begin counts something that Close waits for, unless the Box is closed.
func (b *Box) begin() error {
	if os.Getenv("TRAMO_CONFINED") != "" {
		return errors.New("a confined process starts no others: its program must call sandbox.Serve")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	b.running.Add(1)
	return nil
}

// know registers a process for Close; one that was started while Close ran is ended here.
func (b *Box) know(p *process) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.processes[p] = struct{}{}
	if b.closed {
		p.kill()
	}
}

func (b *Box) forget(p *process) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.processes, p)
}

// crashed is the error of a process that ended without a better reason.
func crashed(cause error, said string) error {
	if speaksOfMemory(said) {
		return &LimitError{LimitMemory, said}
	}
	return fmt.Errorf("%w: %w: %s", ErrCrashed, cause, said)
}

// speaksOfMemory recognizes out-of-memory messages of Go, GLib, glibc and C++.
func speaksOfMemory(said string) bool {
	said = strings.ToLower(said)
	for _, words := range []string{"out of memory", "cannot allocate memory", "failed to allocate", "resource temporarily unavailable", "bad_alloc"} {
		if strings.Contains(said, words) {
			return true
		}
	}
	return false
}
