package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"github.com/tramo/tramo/test/stack"
)

// setting says where and when a table was measured. A load above the number of cores says that the machine did other
// things too: then only counts, CPU and memory are to be trusted, and ratios more than times.
func setting(ctx context.Context) string {
	commit, model := "unknown", "unknown"
	if root, err := stack.RepoRoot(); err == nil {
		out, err := stack.Run(ctx, stack.ProcessConfig{Path: "git", Args: []string{"rev-parse", "--short", "HEAD"}, Dir: root})
		if err == nil { // it is not a copy without its history
			commit = strings.TrimSpace(out)
		}
	}
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if cpus, err := fs.CPUInfo(); err == nil && len(cpus) > 0 {
			model = cpus[0].ModelName
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // without it the setting is incomplete
	return fmt.Sprintf("%s, commit %s, %s, %d cores of %s, Linux %s, load %s",
		time.Now().UTC().Format("2006-01-02 15:04 UTC"), commit, runtime.Version(), runtime.NumCPU(),
		model, strings.TrimSpace(string(kernel)), load())
}

// load is how many processes wanted to run, over the last minute.
func load() string {
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if load, err := fs.LoadAvg(); err == nil {
			return fmt.Sprintf("%.2f", load.Load1)
		}
	}
	return "?"
}
