// Package stack runs a real Postgres, a real S3 server, a real clamd and a proxy that injects
// faults, for tests and for tramo-dev. It imports nothing of ours: what it starts is what an
// operator would run, so a test that passes here has met the real thing.
//
// Everything it starts dies with the process that started it, kill -9 included.
package stack

import (
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// maxSunPath is what fits struct sockaddr_un on Linux, without its closing zero byte (unix(7)).
const maxSunPath = 107

// socketDir returns a directory for the socket named name: home, if its path is short and plain enough, else a new one in
// the system's temporary directory, because a path below a clone can pass maxSunPath. What a killed process left there for
// the same home is replaced.
func socketDir(home, prefix, name string) (dir string, temp bool, err error) {
	if len(filepath.Join(home, name)) <= maxSunPath && !strings.ContainsAny(home, " \t,\"'#\\") {
		return home, false, nil
	}
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		dir = filepath.Join(parent, fmt.Sprintf("%s%016x", prefix, hash(home)))
		if len(filepath.Join(dir, name)) > maxSunPath {
			continue
		}
		if err := os.RemoveAll(dir); err == nil && os.Mkdir(dir, 0o700) == nil {
			return dir, true, nil
		}
		// The name is somebody else's.
		if dir, err = os.MkdirTemp(parent, prefix); err != nil {
			return "", false, fmt.Errorf("make a directory for the socket %s: %w", name, err)
		}
		return dir, true, nil
	}
	return "", false, fmt.Errorf("make a directory for the socket %s: a socket's path may have %d bytes, and TMPDIR is longer", name, maxSunPath)
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}

// freeAddr returns a loopback address that nobody listened on a moment ago.
func freeAddr(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", fmt.Errorf("find a free port on %s: %w", host, err)
	}
	addr := l.Addr().String()
	return addr, l.Close()
}

// privateDir makes dir and its parents if missing, for this user only, and returns its absolute path.
func privateDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return "", err
	}
	return abs, os.Chmod(abs, 0o700)
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

// lastWords returns what fits an error message.
func (t *tail) lastWords() string {
	s := strings.TrimSpace(t.String())
	return s[max(0, len(s)-4<<10):]
}
