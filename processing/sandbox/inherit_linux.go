package sandbox

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// startConfined starts a command that inherits nothing but its standard files and ExtraFiles: no other descriptor, no capability,
// no way to gain one. The calling goroutine must have locked its thread and never unlock it: what is given up here for the
// thread, and so for the child, does not come back. The child could not do it: a Go program has several threads before its
// first line runs.
func startConfined(command *exec.Cmd) error {
	// First of all, so that not even the loader of the child has them. Go's own descriptors are closed by exec anyway; this
	// is for what the worker was started with, and for those of C code. closeInherited sees to it where there is no
	// close_range, before Linux 5.9.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mark descriptors to be closed: %w", err)
	}
	// Running a program that has privileges gives none (no_new_privs), also to root without any (capabilities(7)).
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	return command.Start()
}

// dropCapabilities takes all capabilities from this thread, out of all sets. libcap's packages for Go take them from all
// threads, and the worker needs its own, to make cgroups for one.
func dropCapabilities() error {
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		// EPERM: without CAP_SETPCAP the bounding set stays. It limits what running a program adds, which is nothing.
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			break // EINVAL: that was the last one
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", capability, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear the ambient capabilities: %w", err)
	}
	var none [2]unix.CapUserData
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		return fmt.Errorf("give up the capabilities: %w", err)
	}
	return nil
}

// closeInherited closes the descriptors from first on that came with exec. Those that this process has opened itself, which
// are the Go runtime's, are close-on-exec, and so did not.
func closeInherited(first int) error {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list the inherited descriptors: %w", err)
	}
	for _, entry := range open {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd < first {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 { // an error: it was the directory's
			_ = unix.Close(fd)
		}
	}
	return nil
}
