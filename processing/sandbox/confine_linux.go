package sandbox

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// processFiles is how many descriptors a confined process may have open.
const processFiles = 64

// confineChild gives up all rights that a child does not need, in all of its threads. It may not even write a file.
func confineChild(order childOrder) (Confinement, error) {
	limits := order.Limits.WithDefaults()
	// The parent counts the CPU time of each file; this bounds a process whose parent died.
	lifetime := limits.CPU * time.Duration(max(1, order.Files))
	if err := setLimits(limits.Memory, lifetime); err != nil {
		return Confinement{}, err
	}
	// Not even another child, of the same user, may look into this one's memory (ptrace(2), access mode checking).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return Confinement{}, fmt.Errorf("hide our memory from other processes: %w", err)
	}
	return restrict(order.Without, landRules(), childCalls)
}

// restrict applies the Landlock and seccomp that the kernel supports, and returns what is in force. What a test leaves out counts
// as not supported.
func restrict(without []string, rules []landlock.Rule, allowed policy) (forced Confinement, err error) {
	version, lack := ll.LandlockGetABIVersion()
	if slices.Contains(without, protectLandlock) {
		lack = unix.ENOSYS
	}
	if lack != nil {
		forced.Lacks = append(forced.Lacks, fmt.Sprintf("Landlock (%v)", lack))
	} else {
		// Six has signals; an older kernel restricts less, and its version says so.
		if err := landlock.V6.BestEffort().Restrict(rules...); err != nil {
			return forced, fmt.Errorf("apply Landlock: %w", err)
		}
		forced.Landlock = version
	}
	lack = errNoSeccomp
	if !slices.Contains(without, protectSeccomp) {
		lack = allowed.apply()
	}
	switch {
	case lack == nil:
		forced.Seccomp = true
	case errors.Is(lack, errNoSeccomp):
		forced.Lacks = append(forced.Lacks, fmt.Sprintf("seccomp (%v)", lack))
	default:
		return forced, fmt.Errorf("apply seccomp: %w", lack)
	}
	return forced, nil
}

// setLimits sets the limits of the calling process, which may write no file, before it reads one.
// RLIMIT_AS is not among them: with it HEIC decoding deadlocks.
func setLimits(memory int64, cpu time.Duration) error {
	for _, limit := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, processFiles},
		{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE, 0},
		// Go ignores the signal of the soft limit; at the hard one the kernel kills.
		{"RLIMIT_CPU", unix.RLIMIT_CPU, uint64(cpu / time.Second)},
		{"RLIMIT_DATA", unix.RLIMIT_DATA, uint64(memory)},
	} {
		if err := unix.Setrlimit(limit.resource, &unix.Rlimit{Cur: limit.value, Max: limit.value}); err != nil {
			return fmt.Errorf("set %s to %d: %w", limit.name, limit.value, err)
		}
	}
	return nil
}

// readable are the directories and files whose content libraries need to work, and that hold no secrets: code, fonts,
// colour profiles.
var readable = []string{
	"/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/local/lib", "/lib", "/lib64", "/usr/share", "/usr/local/share",
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/fonts", "/etc/localtime", "/etc/ImageMagick-6", "/var/cache/fontconfig",
	"/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
	"/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
}

// landRules let a process read what libraries need, and run nothing.
func landRules() []landlock.Rule {
	var rules []landlock.Rule
	for _, path := range readable {
		rights := landlock.AccessFSSet(ll.AccessFSReadFile)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			rights |= ll.AccessFSReadDir
		}
		rules = append(rules, landlock.PathAccess(rights, path).IgnoreIfMissing())
	}
	return rules
}

// mayRun allows a program, and the loader that it names, to be run.
func mayRun(program string) ([]landlock.Rule, error) {
	const rights = ll.AccessFSReadFile | ll.AccessFSExecute
	rules := []landlock.Rule{landlock.PathAccess(rights, program)}
	file, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("read the program %s: %w", program, err)
	}
	defer func() { _ = file.Close() }()
	for _, segment := range file.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, segment.Filesz)
		if _, err := segment.ReadAt(name, 0); err != nil {
			return nil, fmt.Errorf("read the loader of %s: %w", program, err)
		}
		loader, err := filepath.EvalSymlinks(strings.TrimRight(string(name), "\x00"))
		if err != nil {
			return nil, fmt.Errorf("find the loader of %s: %w", program, err)
		}
		rules = append(rules, landlock.PathAccess(rights, loader))
	}
	return rules, nil
}
