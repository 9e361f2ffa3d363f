// Package examine decodes what strangers sent, in child processes that hold no credentials: it draws pictures and reads
// facts. [Examiner] is the parent's side, [ServeChild] the child's. Nothing that a child says is believed unchecked.
package examine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/facts"
)

// What the errors are, for errors.Is. Asking again changes nothing about the first.
var (
	// ErrUnreadable: the file's own fault; the error is an *UnreadableError.
	ErrUnreadable = errors.New("the picture cannot be read")
	// ErrChildCrashed: the examining process died, or answered nonsense.
	ErrChildCrashed = errors.New("the examining process crashed")
)

// UnreadableError says why a file is no picture that can be drawn.
type UnreadableError struct {
	Sentence string // for the person who sent it: what to do
	Cause    string // for the log
}

func (e *UnreadableError) Error() string { return ErrUnreadable.Error() + ": " + e.Cause }

// Is makes an UnreadableError an ErrUnreadable.
func (e *UnreadableError) Is(target error) bool { return target == ErrUnreadable }

// The limits that a LimitError names.
const (
	LimitMemory = "memory"
	LimitCPU    = "cpu"
	LimitTime   = "time"
	LimitOutput = "output"
)

// Why there is no picture of a file that is not to blame.
const (
	ProblemTooLarge    = "too_large" // more pixels than are decoded
	ProblemMemory      = "memory"    // drawing it takes more memory than it may
	ProblemCPU         = "cpu"       // and so on
	ProblemTime        = "time"
	ProblemOutput      = "output"
	ProblemUnsupported = "unsupported"  // a sound file, perhaps, in a flavour that cannot be drawn
	ProblemProtected   = "protected"    // a password is needed to look inside
	ProblemToolMissing = "tool_missing" // the program that draws such files is not installed
)

// LimitError means that examining a file took more than is allowed. It may be the file's fault or the
// machine's.
type LimitError struct {
	Limit string // one of the constants above
	Cause string
}

func (e *LimitError) Error() string {
	return "examining the picture hit the limit of " + e.Limit + ": " + e.Cause
}

// A DrawRequest says what to draw of a file.
type DrawRequest struct {
	ContentType string `json:"content_type"` // what it is taken for; the child looks for itself
	Sizes       []int  `json:"sizes"`        // pixels of the long side
	MaxPixels   int    `json:"max_pixels"`   // of the original; 0 means the renderer's default
}

// A Drawing is what was drawn of a file. Width and Height are the original's in pixels, upright.
type Drawing struct {
	Width, Height int
	Pictures      []Picture // none, if there is a Problem
	Partial       bool      // the pictures show a part of it: the rest is missing or damaged
	Placeholder   string    // ThumbHash, base64
	Problem       string    // why there are no pictures: one of the Problem constants, or ""
}

// Limits bound one examination; a zero field means its default.
type Limits struct {
	Wall     time.Duration `json:"-"`         // 60 s
	CPU      time.Duration `json:"cpu"`       // 30 s, in whole seconds
	Memory   int64         `json:"memory"`    // bytes of RLIMIT_DATA, 512 MiB
	TempFile int64         `json:"temp_file"` // bytes of the largest temporary file, 1 GiB
	Output   int64         `json:"-"`         // bytes of answer and pictures, 32 MiB
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Wall:     cmp.Or(l.Wall, time.Minute),
		CPU:      max(time.Second, cmp.Or(l.CPU, 30*time.Second).Truncate(time.Second)),
		Memory:   cmp.Or(l.Memory, 512<<20),
		TempFile: cmp.Or(l.TempFile, 1<<30),
		Output:   cmp.Or(l.Output, 32<<20),
	}
}

// Examiner decodes strangers' files in child processes that hold no credentials. Each file gets its own
// child. It may be used by several goroutines at once.
type Examiner struct {
	Limits Limits
	// Command is the program that calls ServeChild, and its hidden argument. By default it is this
	// program, as it was when it started, with "examine".
	Command []string
	// TempDir is where the child's own directory is made; "" for the system's.
	TempDir string
}

// Draw draws a file of the tenant, whose offset and mode do not matter: the child gets a read-only descriptor
// of its own. A type that cannot be drawn gives an empty Drawing, one that could be but is not gives its Problem. When it
// returns with ErrUnreadable, that is the file's own fault.
func (e *Examiner) Draw(ctx context.Context, tenant uuid.UUID, file *os.File, r DrawRequest) (Drawing, error) {
	if !Drawable(r.ContentType) {
		return Drawing{}, nil
	}
	run, err := e.ask(ctx, tenant, file, childRequest{Draw: &r})
	if err != nil {
		return Drawing{}, err
	}
	return run.answer.drawing(run.pictures)
}

// ReadFacts reads what a file of the tenant says of itself. Damaged metadata costs nothing but itself.
func (e *Examiner) ReadFacts(ctx context.Context, tenant uuid.UUID, file *os.File, contentType string) (facts.Facts, error) {
	if !facts.Readable(contentType) {
		return facts.Facts{}, nil
	}
	run, err := e.ask(ctx, tenant, file, childRequest{FactsOf: contentType})
	if err != nil {
		return facts.Facts{}, err
	}
	return run.answer.Facts, nil
}

// ask has a child answer one request. When it returns, no process is left.
func (e *Examiner) ask(ctx context.Context, _ uuid.UUID, file *os.File, request childRequest) (*childRun, error) {
	input, err := reopen(file)
	if err != nil {
		return nil, fmt.Errorf("open the file for the child: %w", err)
	}
	defer func() { _ = input.Close() }()
	temporary, err := os.MkdirTemp(e.TempDir, "examine-")
	if err != nil {
		return nil, fmt.Errorf("make the child's directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(temporary) }()

	run := &childRun{request: request, limits: e.Limits.withDefaults()}
	command, err := e.command(run, temporary)
	if err != nil {
		return nil, err
	}
	command.Stdin, command.Stderr = input, &run.stderr

	done := make(chan error, 1)
	go func() {
		// Pdeathsig fires when the thread that started the child ends, not the process: this goroutine
		// keeps its thread as long as the child lives. It never gives it back, because what startConfined
		// did to it cannot be undone; the runtime ends the thread with the goroutine.
		runtime.LockOSThread()
		done <- run.do(ctx, command)
	}()
	return run, <-done
}

func (e *Examiner) command(run *childRun, temporary string) (*exec.Cmd, error) {
	order, err := json.Marshal(childOrder{run.request, run.limits})
	if err != nil {
		return nil, fmt.Errorf("write the child's order: %w", err)
	}
	program := e.Command
	if len(program) == 0 {
		program = []string{"/proc/self/exe", "examine"}
	}
	command := exec.Command(program[0], append(program[1:len(program):len(program)], string(order))...)
	command.Dir = temporary
	command.SysProcAttr = childAttributes()
	command.WaitDelay = time.Second
	command.Env = []string{
		"TMPDIR=" + temporary,
		"VIPS_CONCURRENCY=1", "VIPS_BLOCK_UNTRUSTED=1", "VIPS_WARNING=0", "MALLOC_ARENA_MAX=2",
		"GOMAXPROCS=2", "GOMEMLIMIT=128MiB", "GOTRACEBACK=single",
	}
	return command, nil
}

// childRun is one child from start to end.
type childRun struct {
	request  childRequest
	limits   Limits
	stderr   cappedBuffer
	answer   childAnswer
	pictures []Picture
}

// do starts the child, reads its answer, and ends it with whatever it started.
func (r *childRun) do(ctx context.Context, command *exec.Cmd) error {
	output, childEnd, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make the child's pipe: %w", err)
	}
	defer func() { _ = output.Close() }()
	command.Stdout = childEnd
	err = startConfined(command)
	_ = childEnd.Close()
	if err != nil {
		return fmt.Errorf("start the examining process: %w", err)
	}

	limited, cancel := context.WithTimeout(ctx, r.limits.Wall)
	defer cancel()
	killed := make(chan struct{})
	stop := context.AfterFunc(limited, func() {
		defer close(killed)
		killGroup(command.Process.Pid)
		// What left the group keeps the pipe open; it does not keep us.
		_ = output.SetReadDeadline(time.Now().Add(time.Second))
	})
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		awaitExit(command.Process.Pid)
		// Dead but not yet reaped: its number still names its own group, and whom it left there.
		killGroup(command.Process.Pid)
	}()
	var readErr error
	r.answer, r.pictures, readErr = readAnswer(output, r.request, r.limits.Output)
	if readErr != nil {
		killGroup(command.Process.Pid) // it may still be writing
	}
	<-exited
	timedOut := !stop()
	if timedOut {
		<-killed
	}
	waitErr := command.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("examine: %w", context.Cause(ctx))
	}
	if timedOut && (readErr != nil || waitErr != nil) {
		return &LimitError{LimitTime, fmt.Sprintf("not done after %s", r.limits.Wall)}
	}
	return r.judge(readErr, waitErr, command.ProcessState)
}

// judge names what went wrong with a child that was not out of time.
func (r *childRun) judge(readErr, waitErr error, state *os.ProcessState) error {
	if readErr == nil && waitErr == nil {
		return nil
	}
	said := r.stderr.String()
	status, _ := state.Sys().(syscall.WaitStatus)
	killed := status.Signaled() && (status.Signal() == syscall.SIGKILL || status.Signal() == syscall.SIGXCPU)
	switch {
	case errors.Is(readErr, errLongAnswer):
		return &LimitError{LimitOutput, fmt.Sprintf("%v (at most %d bytes)", readErr, r.limits.Output)}
	case killed && state.UserTime()+state.SystemTime() >= r.limits.CPU-100*time.Millisecond:
		return &LimitError{LimitCPU, fmt.Sprintf("used %s", state.UserTime()+state.SystemTime())}
	case waitErr != nil && speaksOfMemory(said):
		return &LimitError{LimitMemory, said}
	}
	return fmt.Errorf("%w: %w: %s", ErrChildCrashed, errors.Join(readErr, waitErr), said)
}

// speaksOfMemory knows the last words of Go, GLib and glibc.
func speaksOfMemory(said string) bool {
	said = strings.ToLower(said)
	for _, words := range []string{"out of memory", "cannot allocate memory", "failed to allocate", "resource temporarily unavailable"} {
		if strings.Contains(said, words) {
			return true
		}
	}
	return false
}

// cappedBuffer keeps the first bytes written to it and forgets the others.
type cappedBuffer struct{ kept bytes.Buffer }

const stderrLimit = 4 << 10

func (b *cappedBuffer) Write(p []byte) (int, error) {
	b.kept.Write(p[:min(len(p), stderrLimit-b.kept.Len())])
	return len(p), nil
}

func (b *cappedBuffer) String() string {
	return strings.ToValidUTF8(strings.TrimSpace(b.kept.String()), "?")
}
