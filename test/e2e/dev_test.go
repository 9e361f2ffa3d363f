package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// A laptop is a running tramo-dev.
type laptop struct {
	process *stack.Process
	at      replica
	user    user
}

var pageLine = regexp.MustCompile(`(http://[^/\s]+)/#token=(\S+)`)

// startDev runs tramo-dev on dir and waits for the page's address.
func startDev(t *testing.T, dir string, env ...string) laptop {
	t.Helper()
	ops := freeAddress(t)
	env = append(env, "TRAMO_DEV_DIR="+dir, "TRAMO_LISTEN="+freeAddress(t), "TRAMO_OPS_LISTEN="+ops,
		"TRAMO_DEV_WORKER_OPS_LISTEN="+freeAddress(t), "TRAMO_RATE_USER=0") // so that a slow machine's may ask often
	p, err := stack.Start(stack.ProcessConfig{Path: tramo.Programs.Path("tramo-dev"), Env: stack.CleanEnv(env...)})
	stack.Must(t, err)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("tramo-dev said:\n%s", p.Output())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stack.Must(t, p.WaitForLog(ctx, "/#token="))
	found := pageLine.FindStringSubmatch(p.Output())
	return laptop{process: p, at: replica{&stack.Replica{Process: p, URL: found[1], Ops: "http://" + ops}}, user: user{t: t, token: found[2]}}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	stack.Must(t, err)
	defer l.Close() // nothing is lost with it
	return l.Addr().String()
}

// One command starts everything and prints an address that works. Kill -9 of it leaves no process behind. The
// second start, on what the kill left, finds the upload again; objects lie there as plain files; and Ctrl-C
// ends it all well.
func TestDevSurvivesBeingKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	photo := read(t, fieldPhoto(t))

	first := startDev(t, dir)
	url := first.user.send(first.at, photo, "filename", "a.jpg", "filetype", "image/jpeg", "project", "obra")
	if up, _ := first.user.await(url); up.Status != "completed" || len(up.Thumbnails) != 3 || up.Facts.GPS == nil {
		t.Fatalf("%+v", up)
	}
	shownBy(t, first, url)
	receipt := first.user.do("GET", url+"/receipt", nil).want(t, http.StatusOK, "")
	family := descendants(t, first.process.Pid())
	if len(family) < 6 {
		t.Fatalf("only %d processes below tramo-dev", len(family))
	}
	stack.Must(t, syscall.Kill(first.process.Pid(), syscall.SIGKILL)) // and not its group
	awaitGone(t, family)

	second := startDev(t, dir)
	again := second.at.URL + "/api/uploads/" + idOf(url)
	if up := second.user.get(again); up.Status != "completed" || up.SHA256 != sumOf(photo) {
		t.Errorf("after the restart: %+v", up)
	}
	if a := second.user.do("GET", again+"/receipt", nil); string(a.body) != string(receipt.body) {
		t.Errorf("another receipt after the restart: %s", a.body)
	}
	originals, err := filepath.Glob(filepath.Join(dir, "objects", "*", "tenants", "*", "projects", "obra", "uploads", idOf(url), "original-*"))
	if err != nil || len(originals) != 1 || sumOf(read(t, originals[0])) != sumOf(photo) {
		t.Errorf("the object as a plain file: %v %v", originals, err)
	}
	family = descendants(t, second.process.Pid())
	stack.Must(t, second.process.Signal(os.Interrupt))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := second.process.Wait(ctx); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
	awaitGone(t, family)
}

// shownBy checks that the laptop's server alone gives the content of an upload and its thumbnails: a phone on the same network
// does not reach an S3 server at 127.0.0.1.
func shownBy(t *testing.T, dev laptop, url string) {
	t.Helper()
	for _, d := range dev.user.get(url).Thumbnails {
		r, err := http.NewRequestWithContext(stack.Context(t), http.MethodGet, dev.at.URL+d.URL, nil)
		stack.Must(t, err)
		res, err := http.DefaultTransport.RoundTrip(r)
		stack.Must(t, err)
		n, err := io.Copy(io.Discard, res.Body)
		stack.Must(t, errors.Join(err, res.Body.Close()))
		if res.StatusCode != http.StatusOK || n != int64(d.Bytes) {
			t.Errorf("thumbnail %d: %s, %d bytes", d.Size, res.Status, n)
		}
	}
	if a := dev.user.do("GET", url+"/content", nil, "Range", "bytes=0-1"); a.status != http.StatusPartialContent || string(a.body) != "\xff\xd8" {
		t.Errorf("content: %d, %q", a.status, a.body)
	}
}

// With external addresses given, tramo-dev uses those and starts none of its own.
func TestDevUsesWhatItIsGiven(t *testing.T) {
	t.Parallel()
	env := append(tramo.S3.Env(),
		"TRAMO_DATABASE_URL="+tramo.Postgres.URL("postgres", emptyDatabase(t)), "TRAMO_S3_ENDPOINT="+tramo.S3.Endpoint(),
		"TRAMO_S3_BUCKET="+tramo.S3.Bucket(), "TRAMO_CLAMD="+tramo.Clamd.Address())
	dev := startDev(t, t.TempDir(), env...)
	url := dev.user.send(dev.at, stack.PNG(20, 20), "filetype", "image/png")
	dev.user.completes(url)
	if n := len(objectsOf(t, idOf(url))); n == 0 {
		t.Error("nothing in the bucket that was given")
	}
	for _, pid := range descendants(t, dev.process.Pid()) {
		// The worker starts its children as /proc/self/exe.
		if name := commandOf(pid); name != "tramo" && name != "tramo-worker" && name != "exe" {
			t.Errorf("it started %s", name)
		}
	}
	stack.Must(t, dev.process.Stop())
}

// A second tramo-dev on the same directory, or on a port in use, fails with the reason and changes nothing.
func TestDevRefusesToStartTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dev := startDev(t, dir)
	for name, env := range map[string][]string{
		"another tramo-dev": {"TRAMO_DEV_DIR=" + dir},
		"TRAMO_LISTEN":      {"TRAMO_DEV_DIR=" + t.TempDir(), "TRAMO_LISTEN=" + strings.TrimPrefix(dev.at.URL, "http://")},
	} {
		_, err := stack.Run(stack.Context(t), stack.ProcessConfig{Path: tramo.Programs.Path("tramo-dev"), Env: stack.CleanEnv(env...)})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dev.user.do("GET", dev.at.URL+"/api/uploads", nil).want(t, 200, "")
	stack.Must(t, dev.process.Stop())
}

// descendants are the processes below pid.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	stack.Must(t, err)
	var all []int
	for _, file := range children {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(data)) {
			child, err := strconv.Atoi(field)
			stack.Must(t, err)
			all = append(append(all, child), descendants(t, child)...)
		}
	}
	return all
}

func commandOf(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// awaitGone waits until all processes have ended.
func awaitGone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		stack.Until(t, fmt.Sprintf("end of process %d (%s)", pid, commandOf(pid)), func() bool { return !lives(pid) })
	}
}

// lives reports whether a process runs; one that has ended and waits for its parent does not.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
