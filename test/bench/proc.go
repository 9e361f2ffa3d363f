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
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses, and may contain spaces.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("read the CPU time of process %d: %q", pid, data)
	}
	user, err := strconv.ParseFloat(fields[11], 64) // utime is field 14
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksASecond, err
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
