package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/prometheus/procfs"

	"github.com/tramo/tramo/test/stack"
)

// thisMachine describes the machine; what it does not tell is unknown.
func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), CPU: "unknown", Go: runtime.Version(), Kernel: "unknown"}
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if cpus, err := fs.CPUInfo(); err == nil && len(cpus) > 0 {
			m.CPU = cpus[0].ModelName
		}
	}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(kernel))
	}
	return m
}

// commit is what is measured, such as 1623079 or 1623079-dirty; unknown in a copy without its history.
func commit(ctx context.Context) string {
	root, err := stack.RepoRoot()
	if err != nil {
		return "unknown"
	}
	out, err := stack.Run(ctx, stack.ProcessConfig{Path: "git", Args: []string{"describe", "--always", "--dirty", "--exclude", "*"}, Dir: root})
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(out)
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
