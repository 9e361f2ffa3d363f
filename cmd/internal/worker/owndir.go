package worker

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const ownDirs = "tramo-worker-"

// ownDir makes a directory below parent, or the system's, for all files of this process and its children, and returns a
// function that removes it. A killed process leaves its directory behind; ownDir removes such directories first. A process
// is alive as long as it locks its directory (flock(2)); the kernel releases the lock with the process.
func ownDir(parent string, log *slog.Logger) (dir string, remove func(), err error) {
	parent = cmp.Or(parent, os.TempDir())
	left, err := filepath.Glob(filepath.Join(parent, ownDirs+"*"))
	if err != nil {
		return "", nil, fmt.Errorf("look for directories of dead workers: %w", err)
	}
	for _, old := range left {
		if err := sweep(old); err != nil {
			log.Warn("directory of a dead worker not removed", slog.String("dir", old), slog.Any("err", err))
		}
	}
	for range 10 { // another worker that starts now may sweep a directory that we have made and not yet locked
		dir, err = os.MkdirTemp(parent, ownDirs)
		if err != nil {
			return "", nil, fmt.Errorf("make a directory for this worker: %w", err)
		}
		lock, lockErr := lockDir(dir)
		if err = lockErr; err == nil {
			return dir, func() {
				if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
					log.Warn("directory of this worker not removed", slog.String("dir", dir), slog.Any("err", err))
				}
			}, nil
		}
	}
	return "", nil, err
}

// sweep removes a directory whose owner is dead.
func sweep(dir string) error {
	lock, err := lockDir(dir)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, os.ErrNotExist):
		return nil // its owner is alive, or another worker has swept it
	case err != nil:
		return err
	}
	defer lock.Close()
	return os.RemoveAll(dir)
}

// lockDir locks a directory that is still where it was, or returns [os.ErrNotExist].
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	locked, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Lstat(dir); err == nil && !os.SameFile(locked, there) {
			err = fmt.Errorf("lock %s: %w", dir, os.ErrNotExist)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
