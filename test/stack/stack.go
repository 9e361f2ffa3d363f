// Package stack runs a real Postgres, a real S3 server, a real clamd and a proxy that injects
// faults, for tests and for tramo-dev. It imports nothing of ours: what it starts is what an
// operator would run, so a test that passes here has met the real thing.
//
// Everything it starts dies with the process that started it, kill -9 included.
package stack

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// freeAddr returns a loopback address that nobody listened on a moment ago.
func freeAddr(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", fmt.Errorf("find a free port on %s: %w", host, err)
	}
	return l.Addr().String(), l.Close()
}

// tail remembers the last megabyte of a program's output, so that an error can quote them.
type tail struct {
	mu   sync.Mutex
	next io.Writer // may be nil
	buf  []byte
}

const tailSize = 1 << 20

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*tailSize {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
	if t.next != nil {
		return t.next.Write(p)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf[max(0, len(t.buf)-tailSize):])
}
