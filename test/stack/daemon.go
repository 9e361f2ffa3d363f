package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A daemon is what Postgres, clamd and Redis have in common: a program that can be killed and started again at the same
// address, and directories of its own.
type daemon struct {
	process *Process
	start   func(context.Context) error // sets process, and returns once it answers
	timeout time.Duration               // of start
	ownDirs
}

// begin makes ready and starts. If that fails, nothing is left behind.
func (d *daemon) begin(ctx context.Context, timeout time.Duration, prepare, start func(context.Context) error) error {
	d.timeout, d.start = timeout, start
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := prepare(limited)
	if err == nil {
		err = start(limited)
	}
	if err != nil {
		err = errors.Join(err, d.Stop())
	}
	return err
}

// launch starts the program and waits until it answers.
func (d *daemon) launch(ctx context.Context, cfg ProcessConfig, ready func(context.Context) error) error {
	p, err := Start(cfg)
	if err != nil {
		return err
	}
	d.process = p
	return p.await(ctx, ready)
}

// Pid returns the id of the server's process.
func (d *daemon) Pid() int { return d.process.Pid() }

// Exited is closed when the server has ended, for whatever reason.
func (d *daemon) Exited() <-chan struct{} { return d.process.Exited() }

// Kill ends the server as kill -9 does. Restart brings it back.
func (d *daemon) Kill() { d.process.Kill() }

// Restart stops the server, if it still runs, and starts it at the same address. Every connection is lost.
func (d *daemon) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if err := d.halt(); err != nil {
		return err
	}
	return d.start(ctx)
}

// Stop ends the server. It may be called twice.
func (d *daemon) Stop() error { return errors.Join(d.halt(), d.remove()) }

func (d *daemon) halt() error {
	if d.process == nil {
		return nil
	}
	return d.process.halt()
}

// ask returns nil if a server answers question with answer.
func ask(ctx context.Context, network, address, question, answer string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, question); err != nil {
		return err
	}
	got := make([]byte, len(answer))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != answer {
		return fmt.Errorf("%s answers %q with %q", address, question, got)
	}
	return nil
}

// findProgram looks in PATH and then in dirs: an ordinary user's PATH has no sbin.
func findProgram(name string, dirs ...string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: not in PATH nor in %s", name, strings.Join(dirs, ", "))
}
