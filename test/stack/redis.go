package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	redisStartTimeout = 20 * time.Second
	redisStopTimeout  = 10 * time.Second
)

// Redis is a private redis-server on loopback, which keeps nothing on disk.
type Redis struct {
	bin   string
	dir   string
	addr  string
	child *child
}

// StartRedis starts redis-server and returns once it answers PING.
func StartRedis(ctx context.Context) (*Redis, error) {
	ctx, cancel := context.WithTimeout(ctx, redisStartTimeout)
	defer cancel()
	r := &Redis{}
	if err := r.prepare(); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	if err := r.Start(ctx); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}

// URL returns the server's address as a redis URL.
func (r *Redis) URL() string { return "redis://" + r.addr + "/0" }

// Addr returns the server's host:port.
func (r *Redis) Addr() string { return r.addr }

// Stop ends the server. It may be called twice.
func (r *Redis) Stop() (err error) {
	if r.child != nil {
		err = r.child.stop(syscall.SIGTERM, redisStopTimeout)
	}
	if r.dir != "" {
		err = errors.Join(err, os.RemoveAll(r.dir))
	}
	return err
}

// Kill ends the server as kill -9 does, and with it all that it knew. Start brings it back, empty.
func (r *Redis) Kill() { r.child.kill() }

// Start starts a server that was killed, at the same address.
func (r *Redis) Start(ctx context.Context) (err error) {
	_, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		return err
	}
	cmd := exec.Command(r.bin, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", r.dir)
	if r.child, err = spawn("redis-server", cmd, syscall.SIGKILL, nil); err != nil {
		return err
	}
	return r.child.await(ctx, r.ping)
}

func (r *Redis) prepare() (err error) {
	if r.bin, err = findProgram("redis-server", "/usr/sbin", "/usr/local/bin"); err != nil {
		return fmt.Errorf("%w; install the package redis-server", err)
	}
	if r.dir, err = os.MkdirTemp("", "tramo-redis-"); err != nil {
		return fmt.Errorf("make a directory for redis-server: %w", err)
	}
	r.addr, err = freeAddr("127.0.0.1")
	return err
}

func (r *Redis) ping(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	answer := make([]byte, len("+PONG\r\n"))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if !strings.HasPrefix(string(answer), "+PONG") {
		return fmt.Errorf("redis-server answers PING with %q", answer)
	}
	return nil
}
