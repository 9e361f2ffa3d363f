//go:build linux

package sandbox_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tramo/tramo/processing/sandbox"
)

// The test program is its own child and its own tool, as the worker is the former. An init, so that it is before
// everything else.
func init() {
	if len(os.Args) < 3 {
		return
	}
	switch os.Args[1] {
	case sandbox.Argument:
		if err := sandbox.Serve(os.Args[2:], sandbox.Service{Answer: answer}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "tool":
		attackTool(os.Args[2:])
	case "worker":
		worker(os.Args[2])
	case "heir":
		inherit()
	case "start":
		startWorker(os.Args[2])
	default:
		return
	}
	os.Exit(0)
}

// What a child that was taken over keeps, so that the compiler keeps it too.
var (
	spun       int
	hoard      [][]byte
	remembered []byte
	held       *os.File
	answered   int
)

func hoardMemory() {
	for {
		hoard = append(hoard, bytes.Repeat([]byte("x"), 16<<20))
	}
}

// order is what the tests ask of a child.
type order struct {
	Do     string
	Target string
}

// said is what it answers.
type said struct {
	Pid     int
	Files   int // files that it has answered for
	Content string
	Attack  report
}

// answer does what the test asks, and for some of it as a child would that its file has taken over.
func answer(request, input []byte, output io.Writer) error {
	var o order
	if err := json.Unmarshal(request, &o); err != nil {
		return err
	}
	answered++
	s := said{Pid: os.Getpid(), Files: answered, Content: string(input)}
	pipe := output.(*os.File)
	switch o.Do {
	case "echo":
	case "remember":
		if remembered == nil {
			remembered = bytes.Clone(input)
		}
		s.Content = string(remembered)
	case "hang":
		select {}
	case "answer then hang":
		_ = json.NewEncoder(output).Encode(s)
		select {}
	case "spin":
		for turns := 0; ; turns++ {
			spun = turns
		}
	case "work":
		work(time.Second)
	case "hoard":
		hoardMemory()
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV) // refused
		os.Exit(3)
	case "die when reused":
		if answered > 1 {
			os.Exit(3)
		}
	case "die afterwards":
		// The answer is whole; the process is not there for the next file.
		_ = json.NewEncoder(output).Encode(s)
		os.Exit(3)
	case "flood":
		_, err := pipe.Write(make([]byte, 2<<20))
		return err
	case "keep the pipe":
		// The answer is there, but its end never comes, so that it could go on.
		kept, err := unix.Dup(int(pipe.Fd()))
		if err != nil {
			return err
		}
		held = os.NewFile(uintptr(kept), "kept")
	case "answer twice":
		_ = json.NewEncoder(output).Encode(s)
	case "answer half":
		_, err := pipe.WriteString(`{"Pid":1,`)
		if err == nil {
			os.Exit(0)
		}
		return err
	case "answer then hang when reused":
		if answered > 1 {
			_ = json.NewEncoder(output).Encode(s)
			select {}
		}
	case "leave children":
		straggler := exec.Command("/bin/sleep", "300")
		if err := straggler.Start(); err != nil {
			return err
		}
		s.Content = fmt.Sprint(straggler.Process.Pid)
	case "groups":
		groups, _ := os.ReadFile("/proc/self/cgroup")
		s.Content = string(groups)
	case "share":
		// Shared memory is none of RLIMIT_DATA's.
		shared, err := unix.Mmap(-1, 0, 2<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
		if err != nil {
			return err
		}
		for at := 0; at < len(shared); at += 4096 {
			shared[at] = 1
		}
	case "look":
		s.Content = lookAround()
	case "descriptors":
		s.Content = exhaustDescriptors()
	case "input is gone":
		s.Content = fmt.Sprint(stillMapped())
	default:
		s.Attack = try(o.Do, o.Target)
	}
	return json.NewEncoder(output).Encode(s)
}

// work uses so much CPU time.
func work(much time.Duration) {
	used := func() time.Duration {
		var usage unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	for until := used() + much; used() < until; {
		spun++
	}
}

// stillMapped counts the mappings of files without a name, which inputs are: one, of this file.
func stillMapped() int {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return -1
	}
	return strings.Count(string(maps), "(deleted)")
}

func exhaustDescriptors() string {
	for n := 0; ; n++ {
		if _, err := os.Open("/dev/null"); err != nil {
			return fmt.Sprintf("%d %t", n, errors.Is(err, unix.EMFILE))
		}
	}
}

func firstByte(b *[120]byte) unsafe.Pointer { return unsafe.Pointer(b) }

// firstMapping is an address that a process has mapped.
func firstMapping(pid string) uintptr {
	maps, err := os.ReadFile("/proc/" + pid + "/maps")
	var at uintptr
	if err == nil {
		_, _ = fmt.Sscanf(string(maps), "%x-", &at)
	}
	return at
}

// unshareUser enters a user namespace, on a thread of its own: a program with several cannot, as a whole.
func unshareUser() error {
	runtime.LockOSThread()
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0)
	return nothing(errno)
}

// roomy leaves the race detector, which keeps several bytes for each of ours, its memory.
var roomy = sandbox.Limits{Memory: 4 << 30}

// open returns a Box that ends with the test.
func open(t testing.TB, c sandbox.Config) *sandbox.Box {
	t.Helper()
	if c.Limits.Memory == 0 {
		c.Limits.Memory = roomy.Memory
	}
	if len(c.Without) > 0 {
		c.Confinement = sandbox.Prefer
	}
	box := sandbox.New(c)
	t.Cleanup(func() { _ = box.Close() })
	return box
}

// file returns a file that holds content, without a name and with its offset at the end, as a worker
// has it after a download.
func file(t testing.TB, content string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	must(t, os.Remove(f.Name()))
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f
}

// into reads an answer and checks it as a caller has to.
func into(s *said) sandbox.Reader {
	return func(r io.Reader, _ bool) error {
		all, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		*s = said{}
		return json.Unmarshal(all, s)
	}
}

// ask asks and expects an answer.
func ask(t testing.TB, box *sandbox.Box, owner string, o order, content string) said {
	t.Helper()
	var s said
	if err := box.Ask(t.Context(), owner, o, file(t, content), into(&s)); err != nil {
		t.Fatalf("%s for %s: %v", o.Do, owner, err)
	}
	return s
}

// soon is how long tests wait for what must happen.
const soon = 30 * time.Second

// receive returns the next value of a channel.
func receive[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(soon):
		t.Fatalf("after %s still no %s", soon, what)
	}
	return v
}

// must fails the test if err is not nil. It is not test/stack's, which would bring S3 and Postgres into a test process
// whose own size is measured and limited here.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
