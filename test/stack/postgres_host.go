package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// findPostgres returns the directory of the newest server on this machine. Debian keeps them out of PATH.
func findPostgres() (string, error) {
	best, bestVersion := "", -1
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well formed
	for _, dir := range dirs {
		version, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err != nil || version <= bestVersion {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
			best, bestVersion = dir, version
		}
	}
	if best != "" {
		return best, nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", errors.New("find PostgreSQL: no server in /usr/lib/postgresql/*/bin nor in PATH; install the package postgresql")
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", fmt.Errorf("find PostgreSQL: %w", err)
	}
	return filepath.Dir(path), nil
}

// account is the user that Postgres runs as when we are root.
type account struct {
	name     string
	uid, gid uint32
	caps     []uintptr
}

func postgresAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil // stay who we are
	}
	var u *user.User
	var err error
	for _, name := range []string{"postgres", "nobody"} {
		if u, err = user.Lookup(name); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find a user for Postgres, which refuses to run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("read the ids of user %s: %w", u.Username, err)
	}
	return &account{name: u.Username, uid: uint32(uid), gid: uint32(gid)}, nil
}

// own gives dir and what lies in it to the account. A cluster that an ordinary user made is found again by root.
func (a *account) own(dir string) error {
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.uid), int(a.gid))
	})
	if err != nil {
		return fmt.Errorf("give %s to user %s: %w", dir, a.name, err)
	}
	return nil
}

// reach makes sure that the account can walk down to dir. A clone may lie below /root, which is closed to
// others: then Postgres keeps one of root's capabilities, which lets it pass.
func (a *account) reach(dir string) error {
	closed := ""
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return err
		}
		if !a.mayEnter(info) {
			closed = parent
		}
		if parent == "/" {
			break
		}
	}
	if closed == "" {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read our capabilities: %w", err)
	}
	// The first is the narrower; a container often has only the second.
	for _, c := range []uintptr{unix.CAP_DAC_READ_SEARCH, unix.CAP_DAC_OVERRIDE} {
		if have[0].Permitted&(1<<c) != 0 {
			a.caps = []uintptr{c}
			return nil
		}
	}
	return fmt.Errorf("keep Postgres' data in %s: user %s may not enter %s; choose a directory that it can reach, such as one below %s",
		dir, a.name, closed, os.TempDir())
}

func (a *account) mayEnter(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode().Perm(); {
	case ok && stat.Uid == a.uid:
		return mode&0o100 != 0
	case ok && stat.Gid == a.gid:
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// awaitOldPostmaster waits for a postmaster that is still shutting down after its parent was killed, and clears
// away lock files whose process id now belongs to another program, which Postgres would take for a running server.
func awaitOldPostmaster(ctx context.Context, dir string) error {
	path := filepath.Join(dir, "postmaster.pid")
	for {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		// The lines: pid, data directory, start time, port, socket directory.
		lines := strings.Split(string(data), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
		if err != nil {
			return nil // empty or incomplete: Postgres reports that itself
		}
		if !isPostmaster(pid, dir) {
			return clearOldPostmaster(path, pid, lines)
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("wait for the PostgreSQL that already runs on %s, pid %d: %w", dir, pid, ctx.Err())
		}
	}
}

func clearOldPostmaster(path string, pid int, lines []string) error {
	if syscall.Kill(pid, 0) != nil {
		return nil // Postgres sees that itself
	}
	err := os.Remove(path)
	if len(lines) > 4 {
		err = errors.Join(err, os.RemoveAll(filepath.Join(lines[4], pgSocketName+".lock")))
	}
	return err
}

func isPostmaster(pid int, dir string) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := strings.Split(string(cmdline), "\x00")
	return filepath.Base(args[0]) == "postgres" && slices.Contains(args[1:], dir)
}
