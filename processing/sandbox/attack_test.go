//go:build linux

package sandbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	signals "os/signal"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// attacks are what a process tries that a file has taken over. Each returns nil if it got what it wanted. target is what
// it is about: a path, an address, or the number of a process.
var attacks = map[string]func(target string) error{
	"open a socket": func(string) error {
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		return err
	},
	"connect": func(address string) error {
		// Not net.Dial: Go tries what the kernel can do first, and would name another cause.
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		to, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())})
	},
	"read a file": func(path string) error {
		_, err := os.ReadFile(path)
		return err
	},
	"list a directory": func(path string) error {
		_, err := os.ReadDir(path)
		return err
	},
	"write a file": func(path string) error { return os.WriteFile(path, []byte("written"), 0o600) },
	"overwrite a file": func(path string) error {
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = file.Write([]byte("overwritten"))
		return err
	},
	"remove a file":   os.Remove,
	"make a memfd":    func(string) error { _, err := unix.MemfdCreate("x", 0); return err },
	"read an environ": func(pid string) error { _, err := os.ReadFile("/proc/" + pid + "/environ"); return err },
	"ptrace": func(pid string) error {
		runtime.LockOSThread() // the tracer is a thread
		if err := syscall.PtraceAttach(number(pid)); err != nil {
			return err
		}
		if _, err := unix.Wait4(number(pid), nil, unix.WALL, nil); err != nil {
			return err
		}
		return syscall.PtraceDetach(number(pid))
	},
	"read another's memory": func(pid string) error {
		var into [8]byte
		local := []unix.Iovec{{Base: &into[0]}}
		local[0].SetLen(len(into))
		_, err := unix.ProcessVMReadv(number(pid), local, []unix.RemoteIovec{{Base: firstMapping(pid), Len: 8}}, 0)
		return err
	},
	"signal": func(pid string) error { return unix.Kill(number(pid), unix.SIGCONT) },
	"signal a thread": func(pid string) error {
		return unix.Tgkill(number(pid), number(pid), unix.SIGCONT)
	},
	"limit another": func(pid string) error {
		limit := unix.Rlimit{Cur: 1000, Max: 1000}
		return unix.Prlimit(number(pid), unix.RLIMIT_CPU, &limit, nil)
	},
	"raise its limit": func(string) error {
		all := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
		return unix.Prlimit(0, unix.RLIMIT_FSIZE, &all, nil)
	},
	"read a locked file": func(path string) error {
		_, err := os.ReadFile(path)
		return err
	},
	"run a shell": func(string) error { return exec.Command("/bin/sh", "-c", "exit 0").Run() },
	"become a shell": func(string) error {
		return syscall.Exec("/bin/sh", []string{"sh", "-c", `printf '{"Worked":true}'`}, nil)
	},
	"fork":                    func(string) error { return fork(unix.SYS_CLONE, uintptr(unix.SIGCHLD)) },
	"fork without a signal":   func(string) error { return fork(unix.SYS_CLONE, 0) },
	"leave the group":         func(string) error { _, err := unix.Setsid(); return err },
	"outlive the parent":      func(string) error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) },
	"be the owner of signals": func(string) error { _, err := unix.FcntlInt(0, unix.F_SETOWN, os.Getppid()); return err },
	"enter a user namespace":  func(string) error { return unshareUser() },
	"set up io_uring": func(string) error {
		var parameters [120]byte
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(firstByte(&parameters)), 0)
		return nothing(errno)
	},
	"write the input": func(string) error { _, err := os.OpenFile("/proc/self/fd/0", os.O_WRONLY, 0); return err },
}

// refused reports whether an attack failed because it was not allowed.
func refused(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func nothing(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// fork makes a process that does nothing.
func fork(call, flags uintptr) error {
	pid, _, errno := unix.RawSyscall6(call, flags, 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		for {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return nothing(errno)
}

// report is what an attack came to.
type report struct {
	Worked, Refused bool
	Said            string
}

// try tries an attack, in another thread than the one that gave up what it did not need.
func try(name, target string) report {
	done := make(chan error)
	go func() { done <- attacks[name](target) }()
	err := <-done
	return report{Worked: err == nil, Refused: refused(err), Said: fmt.Sprint(err)}
}

// attackTool is the life of the test program as somebody else's tool, taken over by its file.
func attackTool(arguments []string) {
	switch arguments[0] {
	case "hang":
		fmt.Print("hanging")
		never := make(chan os.Signal, 1)
		signals.Notify(never, syscall.SIGUSR1)
		<-never
	case "spin":
		for turns := 0; ; turns++ {
			spun = turns
		}
	case "hoard":
		hoardMemory()
	case "flood":
		for {
			if _, err := os.Stdout.Write(make([]byte, 64<<10)); err != nil {
				os.Exit(1)
			}
		}
	case "look":
		fmt.Print(lookAround())
		return
	case "limits":
		var files unix.Rlimit
		_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
		fmt.Print(files.Max)
		return
	}
	_ = json.NewEncoder(os.Stdout).Encode(try(arguments[0], arguments[1]))
}
