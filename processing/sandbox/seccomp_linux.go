package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// errNoSeccomp: the kernel or the processor's architecture has no filters.
var errNoSeccomp = errors.New("filters are not supported")

// A policy says which system calls a process may make. All others fail with EPERM.
type policy []string

// An exception refuses a call that is allowed otherwise, when one of its sets of conditions holds.
type exception struct {
	name string
	sets []seccomp.ArgumentConditions
}

// apply loads the policy, with the exceptions, into all threads.
//
// Each exception is a filter of its own, and the kernel takes the strictest answer: go-seccomp-bpf 1.6.0 compares what
// is left of an argument with the calls that come after it in the same filter, when the argument is not what was
// asked for, so that fork, for one, would have been allowed as the call whose number is SIGCHLD.
func (p policy) apply() error {
	info, err := arch.GetInfo("")
	if err != nil || !seccomp.Supported() {
		return errNoSeccomp
	}
	known := func(name string) bool { _, found := info.SyscallNames[name]; return found }
	for _, e := range exceptions() {
		if !known(e.name) {
			continue
		}
		refused := seccomp.SyscallGroup{Action: seccomp.ActionErrno}
		for _, set := range e.sets {
			refused.NamesWithCondtions = append(refused.NamesWithCondtions, seccomp.NameWithConditions{Name: e.name, Conditions: set})
		}
		if err := load(seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{refused}}); err != nil {
			return fmt.Errorf("restrict %s: %w", e.name, err)
		}
	}
	allowed := slices.DeleteFunc(slices.Clone(p), func(name string) bool { return !known(name) })
	slices.Sort(allowed)
	return load(seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{
		{Names: slices.Compact(allowed), Action: seccomp.ActionAllow},
		// As if the kernel did not have them: libraries then fall back to calls whose arguments a filter can see.
		{Names: []string{"clone3", "openat2", "faccessat2"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)},
	}})
}

// load loads one filter into all threads of the process. Its parent saw to it that none can gain privileges.
func load(p seccomp.Policy) error {
	return seccomp.LoadFilter(seccomp.Filter{Flag: seccomp.FilterFlagTSync, Policy: p})
}

// memoryAndTime are the calls of the runtimes of Go and C, the race detector's among them, none of which reaches
// outside of the process.
var memoryAndTime = policy{
	"brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "mincore", "membarrier", "msync", "mlock", "munlock",
	"futex", "futex_waitv", "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "arch_prctl", "prctl",
	"clone", "exit", "exit_group", "restart_syscall", "tgkill",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack",
	"sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "getcpu", "getpriority",
	"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "times",
	"getpid", "gettid", "getppid", "getpgrp", "getuid", "geteuid", "getgid", "getegid", "getrandom", "getrusage",
	"getrlimit", "prlimit64", "uname", "sysinfo",
}

// openFiles are the calls on files that are open, or that may be opened to be read.
var openFiles = policy{
	"read", "readv", "pread64", "preadv", "write", "writev", "lseek", "close", "close_range", "fstat", "fstatfs",
	"statx", "stat", "lstat", "newfstatat", "access", "faccessat", "readlink", "readlinkat", "open", "openat", "getdents64", "getcwd",
	"dup", "dup2", "dup3", "fcntl", "ioctl", "fadvise64", "pipe", "pipe2", "eventfd2",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6",
}

// childCalls are those of our own child. It has one socket, from its parent, and makes none.
var childCalls = slices.Concat(memoryAndTime, openFiles, policy{"recvmsg"})

// toolCalls are those of a program that is run once, and must be started first. Landlock says what it may run.
var toolCalls = slices.Concat(memoryAndTime, openFiles, policy{"execve", "statfs", "umask"})

// exceptions keep calls from reaching outside of the process, and from opening a file to write, also where there is no Landlock.
func exceptions() []exception {
	const (
		namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
		writing = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC
		setVMA  = 0x53564d41 // PR_SET_VMA: the Go runtime names its mappings
		// ioctl(2), of any file; x/sys/unix has no names for them.
		fionread, fionbio, fioclex = 0x541b, 0x5421, 0x5451
	)
	one := func(conditions ...seccomp.Condition) seccomp.ArgumentConditions { return conditions }
	return []exception{
		// Threads, no processes.
		{"clone", []seccomp.ArgumentConditions{
			one(seccomp.Condition{Argument: 0, Operation: seccomp.BitsNotSet, Value: unix.CLONE_THREAD}),
			one(seccomp.Condition{Argument: 0, Operation: seccomp.BitsSet, Value: namespaces}),
		}},
		// The process must not change that it ends with its parent.
		{"prctl", []seccomp.ArgumentConditions{noneOf(0, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_GET_DUMPABLE, unix.PR_CAPBSET_READ, setVMA)}},
		{"tgkill", []seccomp.ArgumentConditions{noneOf(0, uint64(os.Getpid()))}},
		{"prlimit64", []seccomp.ArgumentConditions{noneOf(0, 0)}}, // its own
		// Up to F_SETLKW, not F_SETOWN, which sends signals.
		{"fcntl", []seccomp.ArgumentConditions{append(noneOf(1, unix.F_DUPFD_CLOEXEC),
			seccomp.Condition{Argument: 1, Operation: seccomp.GreaterThan, Value: unix.F_SETLKW})}},
		{"ioctl", []seccomp.ArgumentConditions{noneOf(1, unix.TCGETS, unix.TIOCGWINSZ, fionread, fionbio, fioclex)}},
		{"open", []seccomp.ArgumentConditions{one(seccomp.Condition{Argument: 1, Operation: seccomp.BitsSet, Value: writing})}},
		{"openat", []seccomp.ArgumentConditions{one(seccomp.Condition{Argument: 2, Operation: seccomp.BitsSet, Value: writing})}},
	}
}

// noneOf holds when an argument is none of the values.
func noneOf(argument uint32, values ...uint64) seccomp.ArgumentConditions {
	var all seccomp.ArgumentConditions
	for _, value := range values {
		all = append(all, seccomp.Condition{Argument: argument, Operation: seccomp.NotEqual, Value: value})
	}
	return all
}
