package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// requestLimit is how long a request may be, in bytes.
const requestLimit = 32 << 10

// startTime is how long a child may take from its start until it is confined and ready.
const startTime = 30 * time.Second

// A Reader reads an answer up to its end, and must check all of it, since the file may have taken control of the child. Its error
// means that the answer is invalid, and ends the child. fresh says that the child has served no file before, so that no other child
// is asked; otherwise the Reader may be called again with another answer.
type Reader func(answer io.Reader, fresh bool) error

// Ask has a child answer one request about a file, whose offset and mode do not matter: the child gets a read-only
// descriptor of its own, and a pipe that serves for this answer only.
//
// A child that has served an owner never serves another. One that fails on a file, but has served others
// before, may not fail because of it: then a fresh one is asked once more.
//
// The errors are a *LimitError, ErrCrashed, the context's and ErrClosed.
func (b *Box) Ask(ctx context.Context, owner string, request any, file *os.File, read Reader) error {
	order, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("write the request: %w", err)
	}
	if len(order) > requestLimit {
		return fmt.Errorf("a request of %d bytes, at most %d", len(order), requestLimit)
	}
	select {
	case b.working <- struct{}{}:
		defer func() { <-b.working }()
	case <-ctx.Done():
		return fmt.Errorf("wait for a confined process: %w", context.Cause(ctx))
	case <-b.closing:
		return ErrClosed
	}
	for fresh := false; ; fresh = true {
		c, err := b.take(ctx, owner, fresh)
		if err != nil {
			return err
		}
		reused := c.served > 0
		err = c.answer(ctx, order, file, read)
		b.put(c, err)
		if err == nil || !reused || !c.faulted {
			b.config.Metrics.hit(err)
			return err
		}
		b.config.Log.InfoContext(ctx, "a confined process failed on a file, and may be to blame itself: a fresh one is asked",
			slog.Int("files", c.served), slog.Any("err", err))
	}
}

// child is a process of ours that answers requests, for one owner.
type child struct {
	*process
	box    *Box
	socket *net.UnixConn // requests go out; what comes in is read once, before it has seen a file
	owner  string
	served int       // files
	since  time.Time // when it became idle
	// faulted: it must not serve again.
	faulted bool
}

// answer has the child answer a request.
func (c *child) answer(ctx context.Context, order []byte, file *os.File, read Reader) error {
	output, err := c.send(order, file)
	if err != nil {
		c.faulted = true
		c.end()
		return crashed(err, c.stderr.String())
	}
	defer func() { _ = output.Close() }()
	over := make(chan struct{})
	verdict := make(chan error, 1)
	go func() {
		verdict <- recovered(func() error { return c.box.watch(ctx, c.process, c.box.config.Limits, over, output) })
	}()
	limit := c.box.config.Limits.Output
	readErr := read(&cappedReader{r: output, left: limit, limit: limit}, c.served == 0)
	close(over)
	stopped := <-verdict
	if readErr == nil && stopped == nil {
		c.served++
		return nil
	}
	c.faulted = ctx.Err() == nil && !errors.Is(stopped, ErrClosed)
	c.end()
	var hit *LimitError
	switch {
	case stopped != nil:
		return stopped
	case ctx.Err() != nil:
		return fmt.Errorf("wait for a confined process: %w", context.Cause(ctx))
	case errors.As(readErr, &hit):
		return readErr
	case c.group.wasFull():
		return &LimitError{LimitMemory, "the kernel ended it"}
	}
	return crashed(errors.Join(readErr, c.err), c.stderr.String())
}

// watch ends a process when it may no longer work on its file, and returns why. It returns nil once over is closed.
func (b *Box) watch(ctx context.Context, p *process, limits Limits, over <-chan struct{}, output *os.File) error {
	begun := p.cpuTime()
	wall := time.NewTimer(limits.Wall)
	defer wall.Stop()
	look := time.NewTimer(limits.CPU / time.Duration(runtime.NumCPU()))
	defer look.Stop()
	for {
		var reason error
		select {
		case <-over:
			return nil
		case <-ctx.Done():
			reason = fmt.Errorf("wait for a confined process: %w", context.Cause(ctx))
		case <-b.closing:
			reason = ErrClosed
		case <-wall.C:
			reason = &LimitError{LimitTime, fmt.Sprintf("not done after %s", limits.Wall)}
		case <-look.C:
			used := p.cpuTime() - begun
			if used < limits.CPU {
				// It cannot use up the rest sooner than on all cores at once.
				look.Reset(max(10*time.Millisecond, (limits.CPU-used)/time.Duration(runtime.NumCPU())))
				continue
			}
			reason = &LimitError{LimitCPU, fmt.Sprintf("used %s", used.Round(time.Millisecond))}
		}
		p.kill()
		// A process that it started outside of its group may keep the pipe open; this does not wait for it.
		_ = output.SetReadDeadline(time.Now().Add(time.Second))
		return reason
	}
}

// startChild starts a child and waits until it reports that it is confined as the operator requires, before it gets a file.
func (b *Box) startChild(ctx context.Context) (*child, error) {
	socket, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Stdin: theirs}
	process, err := b.start(cmd, childOrder{Limits: b.config.Limits, Files: b.config.Files})
	_ = theirs.Close() // so that the socket ends with the child
	if err != nil {
		_ = socket.Close()
		return nil, err
	}
	c := &child{process: process, box: b, socket: socket}
	b.config.Metrics.start("child")
	stop := context.AfterFunc(ctx, c.kill)
	defer stop()
	forced, err := c.hello()
	if err != nil {
		c.retire()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("start a confined process: %w", context.Cause(ctx))
		}
		return nil, fmt.Errorf("start a confined process: %w: %s", errors.Join(err, c.err), c.stderr.String())
	}
	if err := forced.refusal(b.config.Confinement); err != nil {
		c.retire()
		return nil, err
	}
	b.report(forced)
	return c, nil
}

// hello reads the child's report of its confinement.
func (c *child) hello() (forced Confinement, err error) {
	_ = c.socket.SetReadDeadline(time.Now().Add(startTime))
	said := make([]byte, 4<<10)
	n, err := c.socket.Read(said)
	if err != nil {
		return forced, err
	}
	err = json.Unmarshal(said[:n], &forced)
	forced.Cgroup = c.group.String()
	return forced, err
}

// retire ends a child and forgets it.
func (c *child) retire() {
	c.end()
	_ = c.socket.Close()
}

// cappedReader reads so many bytes and then fails.
type cappedReader struct {
	r           io.Reader
	left, limit int64
}

func (r *cappedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.left -= int64(n); r.left < 0 {
		return 0, &LimitError{LimitOutput, fmt.Sprintf("more than %d bytes", r.limit)}
	}
	return n, err
}
