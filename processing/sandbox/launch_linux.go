package sandbox

import (
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// becomeTool is the main function of the launcher: it confines itself and replaces itself with the tool. It returns only errors.
func becomeTool(order childOrder) error {
	gate := os.NewFile(gateFile, "gate")
	if _, err := io.Copy(io.Discard, gate); err != nil {
		return fmt.Errorf("wait for the parent: %w", err)
	}
	_ = gate.Close()
	limits, tool := order.Limits.WithDefaults(), order.Tool
	run, err := mayRun(tool.Program)
	if err != nil {
		return err
	}
	// The file behind the descriptor may be opened again.
	rules := slices.Concat(landRules(), run, []landlock.Rule{landlock.PathAccess(ll.AccessFSReadFile, StdinPath)})
	forced, err := restrict(order.Without, rules, toolCalls)
	if err != nil {
		return err
	}
	if err := forced.refusal(order.Confinement); err != nil {
		return err
	}
	// Last, because the tool's memory limit may be less than the launcher needs.
	if err := setLimits(limits.Memory, limits.CPU); err != nil {
		return err
	}
	environment := []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/nonexistent", "MALLOC_ARENA_MAX=2"}
	err = syscall.Exec(tool.Program, append([]string{tool.Program}, tool.Args...), environment)
	return fmt.Errorf("run %s: %w", tool.Program, err)
}
