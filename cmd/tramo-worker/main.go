// Command tramo-worker processes uploads: it scans them, makes their thumbnails and reads their facts. It is the only
// program that links libvips, and uses it only in child processes of itself.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/cmd/internal/worker"
	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/processing/vips"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == sandbox.Argument {
		serveChild()
		return
	}
	// The child that decodes runs as the same user: without this it could read our credentials from
	// /proc (proc(5), /proc/pid/environ; ptrace(2), ptrace access mode checking).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "tramo-worker: hide our memory from other processes:", err)
		os.Exit(1)
	}
	cli.Main(worker.Program())
}

// serveChild runs a child process, which has no credentials and decodes files, or becomes a tool that does.
func serveChild() {
	if err := examine.ServeChild(os.Args[2:], vips.Render); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
