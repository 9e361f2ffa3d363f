package examine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// childFiles is how many descriptors a child may have open.
const childFiles = 64

// confine sets the limits of the process that calls it, before it touches a stranger's byte.
// RLIMIT_AS is not among them: with it HEIC decoding deadlocks.
func confine(limits Limits) error {
	limits = limits.withDefaults()
	for _, limit := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, childFiles},
		{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE, uint64(limits.TempFile)},
		// Go ignores the signal of the soft limit; at the hard one the kernel kills.
		{"RLIMIT_CPU", unix.RLIMIT_CPU, uint64(limits.CPU / time.Second)},
		{"RLIMIT_DATA", unix.RLIMIT_DATA, uint64(limits.Memory)},
	} {
		if err := unix.Setrlimit(limit.resource, &unix.Rlimit{Cur: limit.value, Max: limit.value}); err != nil {
			return fmt.Errorf("set %s to %d: %w", limit.name, limit.value, err)
		}
	}
	return nil
}

// mapFile maps a file read-only. Its pages count against no limit, and are out of the garbage
// collector's reach while libvips reads them. They stay mapped as long as the process lives.
func mapFile(file *os.File) ([]byte, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		return nil, nil
	}
	return unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
}

// reopen opens a file again, read-only and at offset 0, even one that has no name any more.
func reopen(file *os.File) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
}

// childAttributes put the child into a group of its own, and end it with us.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// startConfined starts a command that can never gain privileges by running another program. The calling
// goroutine must have locked its thread and never unlock it: what is forbidden here to the
// thread, and inherited by the child, cannot be allowed again. The child could not do it: a
// Go program has several threads before its first line runs.
func startConfined(command *exec.Cmd) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	return command.Start()
}

func killGroup(pid int) {
	_ = syscall.Kill(-pid, syscall.SIGKILL) // none left is as good
}

// awaitExit waits until a child has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
