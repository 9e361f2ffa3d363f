package main

import (
	"os"
	"path/filepath"

	"github.com/prometheus/procfs"
)

// cpuSeconds is what a process has computed so far, in user and kernel mode together.
func cpuSeconds(pid int) (float64, error) {
	stat, err := statOf(pid)
	return stat.CPUTime(), err
}

// cpuOfChildren is what the children of a process have computed so far, those that have ended among them.
func cpuOfChildren(pid int) (float64, error) {
	stat, err := statOf(pid)
	if err != nil {
		return 0, err
	}
	children, err := childrenOf(pid)
	if err != nil {
		return 0, err
	}
	// A process's own times and those of its children that have ended are in the same unit.
	total := procfs.ProcStat{UTime: uint(stat.CUTime), STime: uint(stat.CSTime)}.CPUTime()
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
	all, err := procfs.AllProcs()
	for _, p := range all {
		if stat, err := p.Stat(); err == nil && stat.PPID == pid {
			children = append(children, p.PID)
		}
	}
	return children, err
}

func statOf(pid int) (procfs.ProcStat, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return procfs.ProcStat{}, err
	}
	return p.Stat()
}

// resident and peak are the memory that a process has now, and the most that it has had, in bytes.
func resident(pid int) (float64, error) {
	s, err := statusOf(pid)
	return float64(s.VmRSS), err
}

func peak(pid int) (float64, error) {
	s, err := statusOf(pid)
	return float64(s.VmHWM), err
}

func statusOf(pid int) (procfs.ProcStatus, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return procfs.ProcStatus{}, err
	}
	return p.NewStatus()
}

// filesIn is what lies in a directory.
func filesIn(dir string) (files int, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		bytes += info.Size()
		return nil
	})
	return files, bytes, err
}
