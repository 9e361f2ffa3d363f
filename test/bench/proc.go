package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ticksASecond is the unit of time in /proc/pid/stat (proc(5)): sysconf(_SC_CLK_TCK), which is 100 on every Linux that
// Go runs on.
const ticksASecond = 100

// cpuSeconds is what a process has computed so far, in user and kernel mode together.
func cpuSeconds(pid int) (float64, error) {
	fields, err := procStat(pid)
	if err != nil {
		return 0, err
	}
	return ticks(fields[11], fields[12]) // utime and stime, fields 14 and 15
}

// cpuOfChildren is what the children of a process have computed so far, those that have ended among them.
func cpuOfChildren(pid int) (float64, error) {
	fields, err := procStat(pid)
	if err != nil {
		return 0, err
	}
	total, err := ticks(fields[13], fields[14]) // cutime and cstime
	if err != nil {
		return 0, err
	}
	children, err := childrenOf(pid)
	if err != nil {
		return 0, err
	}
	for _, child := range children {
		own, err := cpuSeconds(child)
		if err != nil {
			continue // it has ended
		}
		theirs, _ := cpuOfChildren(child)
		total += own + theirs
	}
	return total, nil
}

// childrenOf are the processes whose parent is pid.
func childrenOf(pid int) (children []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if fields, err := procStat(child); err == nil && fields[1] == strconv.Itoa(pid) {
			children = append(children, child)
		}
	}
	return children, nil
}

// procStat returns the fields of /proc/pid/stat from the third on: the second is the program's name in parentheses, and
// may contain spaces.
func procStat(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 15 {
		return nil, fmt.Errorf("read the CPU time of process %d: %q", pid, data)
	}
	return fields, nil
}

func ticks(user, system string) (seconds float64, err error) {
	u, err := strconv.ParseFloat(user, 64)
	if err != nil {
		return 0, err
	}
	s, err := strconv.ParseFloat(system, 64)
	return (u + s) / ticksASecond, err
}

// memory reads a field of /proc/pid/status, such as VmRSS or VmHWM, in bytes.
func memory(pid int, field string) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("read the memory of process %d: no %s", pid, field)
}

// left is what lies in a directory.
type left struct {
	files int
	bytes int64
}

func filesIn(dir string) (l left, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		l.files++
		l.bytes += info.Size()
		return nil
	})
	return l, err
}
