package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// processThreads is how many threads a confined process may have, where a cgroup counts them.
const processThreads = 256

// cgroups are directories below the worker's own, in which each confined process gets a group with limits of its own. They
// count memory that RLIMIT_DATA does not. In most containers they cannot be made; then there are none.
type cgroups struct {
	version      string
	memory, pids string // the worker's own, one directory in version 2
}

// cgroup holds one process. A nil one holds nothing.
type cgroup struct {
	version      string
	memory, pids string
	full         bool // once it is removed
}

// findCgroups returns nil where no groups can be made.
func findCgroups(without []string) *cgroups {
	if slices.Contains(without, protectCgroup) {
		return nil
	}
	for _, c := range []*cgroups{
		{version: "v2", memory: ownCgroup("cgroup2", ""), pids: ownCgroup("cgroup2", "")},
		{version: "v1", memory: ownCgroup("cgroup", "memory"), pids: ownCgroup("cgroup", "pids")},
	} {
		if c.memory == "" {
			continue
		}
		if c.version == "v2" {
			// Where it is refused, because the worker is itself in this group, the probe below finds out.
			_ = os.WriteFile(filepath.Join(c.memory, "cgroup.subtree_control"), []byte("+memory +pids"), 0)
		}
		c.sweep()
		probe, err := c.make(1 << 30)
		probe.remove()
		if err == nil {
			return c
		}
	}
	return nil
}

// ownCgroup is the directory of our own group in a hierarchy: of version 2, or with a controller of version 1.
func ownCgroup(kind, controller string) string {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	var path string
	for line := range strings.Lines(string(groups)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // cgroups(7), /proc/pid/cgroup
		if len(fields) == 3 && slices.Contains(strings.Split(fields[1], ","), controller) {
			path = fields[2]
		}
	}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil || path == "" {
		return ""
	}
	defer func() { _ = mounts.Close() }()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		mount, kindOf, found := strings.Cut(lines.Text(), " - ") // proc_pid_mountinfo(5)
		fields, options := strings.Fields(mount), strings.Fields(kindOf)
		if !found || len(fields) < 5 || len(options) < 3 || options[0] != kind ||
			(controller != "" && !slices.Contains(strings.Split(options[2], ","), controller)) {
			continue
		}
		return filepath.Join(fields[4], strings.TrimPrefix(path, fields[3]))
	}
	return ""
}

// sweep removes the groups of workers that were killed.
func (c *cgroups) sweep() {
	for _, directory := range []string{c.memory, c.pids} {
		groups, _ := filepath.Glob(filepath.Join(directory, "tramo-*"))
		for _, group := range groups {
			pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(group), "tramo-"), "-")
			if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
				_ = os.Remove(group)
			}
		}
	}
}

// make makes a group. One that is only half made is returned as well, to be removed.
func (c *cgroups) make(memory int64) (*cgroup, error) {
	directory, err := os.MkdirTemp(c.memory, fmt.Sprintf("tramo-%d-", os.Getpid()))
	if err != nil {
		return nil, err
	}
	g := &cgroup{version: c.version, memory: directory}
	limit, threads := strconv.FormatInt(memory, 10), strconv.Itoa(processThreads)
	if c.version == "v2" {
		g.pids = g.memory
		_ = os.WriteFile(filepath.Join(g.memory, "memory.swap.max"), []byte("0"), 0) // not every kernel has it
		return g, errors.Join(set(g.memory, "memory.max", limit), set(g.pids, "pids.max", threads))
	}
	if err := set(g.memory, "memory.limit_in_bytes", limit); err != nil || c.pids == "" {
		return g, err
	}
	g.pids = filepath.Join(c.pids, filepath.Base(directory))
	if err := os.Mkdir(g.pids, 0o755); err != nil {
		return g, err
	}
	return g, set(g.pids, "pids.max", threads)
}

func set(directory, file, value string) error {
	// Not WriteFile, which would make the file where a controller is missing and the directory is an ordinary one.
	f, err := os.OpenFile(filepath.Join(directory, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// hold puts a process into a group of its own before it reads a file. Without a group, its other limits apply.
func (c *cgroups) hold(pid int, memory int64) *cgroup {
	if c == nil {
		return nil
	}
	g, err := c.make(memory)
	if err == nil {
		err = set(g.memory, "cgroup.procs", strconv.Itoa(pid))
	}
	if err == nil && g.pids != "" {
		err = set(g.pids, "cgroup.procs", strconv.Itoa(pid))
	}
	if err != nil {
		g.remove()
		return nil
	}
	return g
}

// wasFull reports whether the kernel ended the process for its memory.
func (g *cgroup) wasFull() bool {
	if g == nil {
		return false
	}
	name := "memory.events"
	if g.version == "v1" {
		name = "memory.oom_control"
	}
	events, err := os.ReadFile(filepath.Join(g.memory, name))
	if err != nil {
		return g.full
	}
	for line := range strings.Lines(string(events)) {
		if count, found := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); found {
			return count != "0"
		}
	}
	return false
}

// remove removes the group of a process that has ended, and remembers whether it was full.
func (g *cgroup) remove() {
	if g == nil {
		return
	}
	g.full = g.wasFull()
	_ = os.Remove(g.memory)
	if g.pids != "" {
		_ = os.Remove(g.pids)
	}
}

func (g *cgroup) String() string {
	if g == nil {
		return ""
	}
	return g.version
}
