package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// setting says where and when a table was measured. A load above the number of cores says that the machine did other
// things too: then only counts, CPU and memory are to be trusted, and ratios more than times.
func setting(ctx context.Context) string {
	return fmt.Sprintf("%s, commit %s, %s, %d cores of %s, Linux %s, load %s",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), commit(ctx), runtime.Version(), runtime.NumCPU(),
		field("/proc/cpuinfo", "model name"), firstLine("/proc/sys/kernel/osrelease"), load())
}

func commit(ctx context.Context) string {
	root, err := stack.RepoRoot()
	if err != nil {
		return "unknown"
	}
	out, err := stack.Run(ctx, stack.ProcessConfig{Path: "git", Args: []string{"rev-parse", "--short", "HEAD"}, Dir: root})
	if err != nil {
		return "unknown" // a copy without its history
	}
	return strings.TrimSpace(out)
}

// load is how many processes wanted to run, over the last minute.
func load() string { return strings.Fields(firstLine("/proc/loadavg") + " ?")[0] }

func firstLine(path string) string {
	data, _ := os.ReadFile(path) // the setting is told as far as it is known
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

func field(path, name string) string {
	data, _ := os.ReadFile(path)
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
