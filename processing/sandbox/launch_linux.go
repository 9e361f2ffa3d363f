package sandbox

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// gateFile is the launcher's descriptor that ends when its parent has put it into its cgroup.
const gateFile = 3

// becomeTool is the main function of the launcher: it confines itself and replaces itself with the tool. It returns only errors.
func becomeTool(order childOrder) error {
	gate := os.NewFile(gateFile, "gate")
	if _, err := io.Copy(io.Discard, gate); err != nil {
		return fmt.Errorf("wait for the parent: %w", err)
	}
	_ = gate.Close()
	limits, tool := order.Limits.WithDefaults(), order.Tool
	rules, err := toolRules(tool)
	if err != nil {
		return err
	}
	if _, err := restrict(order.TooWide, rules, toolCalls(tool.Writes != "")); err != nil {
		return err
	}
	largest := limits.Output
	if tool.Writes == "" {
		largest = 0
	}
	// Last, because the tool's memory limit may be less than the launcher needs.
	if err := setLimits(limits.Memory, largest, limits.CPU); err != nil {
		return err
	}
	environment := []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/nonexistent", "MALLOC_ARENA_MAX=2", "TMPDIR=" + tool.Writes}
	err = syscall.Exec(tool.Program, append([]string{tool.Program}, tool.Args...), environment)
	return fmt.Errorf("run %s: %w", tool.Program, err)
}

// toolRules let the tool run, read its file, and what else was granted.
func toolRules(tool *Tool) ([]landlock.Rule, error) {
	run, err := mayRun(tool.Program)
	if err != nil {
		return nil, err
	}
	rules := append(landRules(), run...)
	// The file behind the descriptor: it may be opened again.
	rules = append(rules, landlock.PathAccess(ll.AccessFSReadFile, StdinPath))
	for _, path := range tool.Reads {
		rules = append(rules, mayRead(path))
	}
	if tool.Writes != "" {
		rules = append(rules, landlock.PathAccess(ll.AccessFSReadFile|ll.AccessFSReadDir|ll.AccessFSWriteFile|ll.AccessFSTruncate|
			ll.AccessFSMakeReg|ll.AccessFSMakeDir|ll.AccessFSRemoveFile|ll.AccessFSRemoveDir, tool.Writes))
	}
	return rules, nil
}
