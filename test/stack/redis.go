package stack

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Redis is a private redis-server on loopback, which keeps nothing on disk.
type Redis struct {
	daemon
	cfg  ProcessConfig
	addr string
}

// StartRedis starts redis-server and returns once it answers PING. After Kill, Restart brings it back empty.
func StartRedis(ctx context.Context) (*Redis, error) {
	r := &Redis{}
	return r, r.begin(ctx, 20*time.Second, r.prepare, func(ctx context.Context) error {
		return r.launch(ctx, r.cfg, func(ctx context.Context) error { return ask(ctx, "tcp", r.addr, "PING\r\n", "+PONG\r\n") })
	})
}

// URL returns the server's address as a redis URL.
func (r *Redis) URL() string { return "redis://" + r.addr + "/0" }

// Addr returns the server's host:port.
func (r *Redis) Addr() string { return r.addr }

func (r *Redis) prepare(context.Context) error {
	bin, err := findProgram("redis-server", "/usr/sbin", "/usr/local/bin")
	if err != nil {
		return fmt.Errorf("%w; install the package redis-server", err)
	}
	dir, err := r.tempDir("", "redis")
	if err != nil {
		return err
	}
	if r.addr, err = freeAddr("127.0.0.1"); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(r.addr)
	r.cfg = ProcessConfig{Path: bin, Grace: 10 * time.Second, Args: []string{
		"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", dir,
	}}
	return err
}
