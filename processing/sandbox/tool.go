package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// StdinPath names the file to a program that wants a path, and not its standard input.
const StdinPath = "/proc/self/fd/0"

// A Tool is an external program, such as pdftoppm, with its arguments. It cannot start other programs.
type Tool struct {
	Program string   `json:"program"` // a path, or a name in PATH
	Args    []string `json:"args"`
}

// A ToolError is the failure of a tool that hit no limit.
type ToolError struct {
	Program string
	Code    int    // its exit status, or -1 if a signal ended it
	Said    string // the beginning of its standard error
}

func (e *ToolError) Error() string {
	return fmt.Sprintf("%s failed with status %d: %s", e.Program, e.Code, e.Said)
}

// Run runs a tool once, confined, on a file that it finds, read-only and from its beginning, at its standard input
// (and at StdinPath, if it has to seek). What the tool writes to its standard output goes to stdout, at most limits.Output
// bytes of it. When Run returns, the tool and its processes have ended.
//
//	var page bytes.Buffer
//	err := box.Run(ctx, sandbox.Tool{Program: "pdftoppm", Args: []string{"-singlefile", "-png", "-"}}, file, sandbox.Limits{}, &page)
//
// The errors are ErrNoProgram, a *LimitError, a *ToolError, the context's, ErrClosed, and what stdout returns.
func (b *Box) Run(ctx context.Context, tool Tool, stdin *os.File, limits Limits, stdout io.Writer) error {
	err := b.run(ctx, tool, stdin, limits.WithDefaults(), stdout)
	b.config.Metrics.hit(err)
	return err
}

func (b *Box) run(ctx context.Context, tool Tool, stdin *os.File, limits Limits, stdout io.Writer) error {
	program, err := locate(tool.Program)
	if err != nil {
		return err
	}
	name := tool.Program
	tool.Program = program
	input, err := reopen(stdin)
	if err != nil {
		return err
	}
	defer func() { _ = input.Close() }()
	output, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make the tool's pipe: %w", err)
	}
	defer func() { _ = output.Close() }()
	p, err := b.launch(tool, limits, input, theirs)
	_ = theirs.Close()
	if err != nil {
		return err
	}
	b.config.Metrics.start("tool")

	over := make(chan struct{})
	verdict := make(chan error, 1)
	go func() { verdict <- recovered(func() error { return b.watch(ctx, p, limits, over, output) }) }()
	_, copyErr := io.Copy(stdout, &cappedReader{r: output, left: limits.Output, limit: limits.Output})
	if copyErr != nil {
		p.kill() // it may still be writing
	}
	<-p.exited // it may have closed its output and gone on
	close(over)
	return p.judge(name, limits, copyErr, <-verdict)
}

// locate returns a program's path without links, which is what the kernel's rules are about.
func locate(name string) (string, error) {
	found, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoProgram, err)
	}
	if found, err = filepath.Abs(found); err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return filepath.EvalSymlinks(found)
}

// launch starts this program, which confines itself and becomes the tool once it is in its cgroup.
func (b *Box) launch(tool Tool, limits Limits, input, output *os.File) (*process, error) {
	gate, ours, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the tool's gate: %w", err)
	}
	defer func() { _ = errors.Join(gate.Close(), ours.Close()) }() // which opens it
	return b.start(&exec.Cmd{Stdin: input, Stdout: output, ExtraFiles: []*os.File{gate}}, childOrder{Limits: limits, Tool: &tool})
}

// judge returns how a tool that has exited ended.
func (p *process) judge(name string, limits Limits, copyErr, stopped error) error {
	state, said := p.cmd.ProcessState, p.stderr.String()
	used, spun := usedUp(state, limits.CPU)
	switch {
	case stopped != nil && (copyErr != nil || p.err != nil):
		return stopped
	case copyErr != nil:
		return copyErr
	case p.err == nil:
		return nil
	case spun:
		return &LimitError{LimitCPU, fmt.Sprintf("used %s", used)}
	case p.group.wasFull():
		return &LimitError{LimitMemory, "the kernel ended it"}
	case speaksOfMemory(said):
		return &LimitError{LimitMemory, said}
	}
	return &ToolError{name, state.ExitCode(), said}
}
