package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ownDirs are temporary directories that are removed with what they belong to.
type ownDirs []string

// tempDir makes a directory in parent. If this process dies before it removes the directory, a later one does, see
// [removeAbandoned].
func (o *ownDirs) tempDir(parent, name string) (string, error) {
	removeAbandoned()
	dir, err := os.MkdirTemp(parent, tempPrefix+name+"-")
	if err != nil {
		return "", fmt.Errorf("make a directory for %s: %w", name, err)
	}
	*o = append(*o, dir)
	// Nothing unlocks it but the end of this process. On a file system without locks nobody else can lock it either, so
	// that it is never taken for abandoned.
	_, _ = lock(dir)
	return dir, nil
}

// private returns the absolute path of dir, or of a temporary directory in place of "". It makes the directory and its
// parents if missing, for this user only.
func (o *ownDirs) private(dir, name string) (_ string, err error) {
	if dir == "" {
		if dir, err = o.tempDir("", name); err != nil {
			return "", err
		}
	}
	if dir, err = filepath.Abs(dir); err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.Chmod(dir, 0o700)
	}
	if err != nil {
		return "", fmt.Errorf("make a directory for %s: %w", name, err)
	}
	return dir, nil
}

// maxSunPath is what fits struct sockaddr_un on Linux, without its closing zero byte (unix(7)).
const maxSunPath = 107

// forSocket returns a directory for the socket named name: home, if its path is short and plain enough, else a temporary
// one, because a path below a clone can pass maxSunPath.
func (o *ownDirs) forSocket(home, name string) (string, error) {
	if len(filepath.Join(home, name)) <= maxSunPath && !strings.ContainsAny(home, " \t,\"'#\\") {
		return home, nil
	}
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		if len(filepath.Join(parent, tempPrefix+"socket-1234567890", name)) <= maxSunPath {
			return o.tempDir(parent, "socket")
		}
	}
	return "", fmt.Errorf("make a directory for the socket %s: a socket's path may have %d bytes, and TMPDIR is longer", name, maxSunPath)
}

func (o *ownDirs) remove() (err error) {
	for _, dir := range *o {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

const tempPrefix = "tramo-stack-"

// removeAbandoned removes temporary directories whose process has ended without removing them, as a test does that is
// killed or takes too long. A living process has locked its own (flock(2)), also one in another container.
var removeAbandoned = sync.OnceFunc(func() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), tempPrefix+"*")) // the pattern is well formed
	for _, dir := range dirs {
		// A new one may not have been locked yet.
		if info, err := os.Lstat(dir); err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if fd, err := lock(dir); err == nil {
			_ = os.RemoveAll(dir) // what cannot be removed does no harm
			_ = unix.Close(fd)
		}
	}
})

func lock(dir string) (fd int, err error) {
	fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = unix.Close(fd)
	}
	return fd, err
}
