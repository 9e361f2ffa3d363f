package worker

import (
	"fmt"
	"time"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/sandbox"
)

// childSettings bound the processes that read strangers' files.
type childSettings struct {
	ChildMemory cli.Bytes     `default:"1GiB" help:"How much memory a process that reads a file may allocate. With it a photo of 50 megapixels can be drawn."`
	ChildCPU    time.Duration `name:"child-cpu" default:"30s" help:"How much CPU time it may use for one file, in whole seconds."`
	ChildWall   time.Duration `default:"1m" help:"How long it may take for one file."`
	ChildFiles  int           `default:"200" help:"How many files of one tenant it reads before a fresh one takes its place."`
	Children    int           `default:"0" help:"How many such processes are kept at most, one ahead of need aside; 0 means four a core, and eight at least. More of them spare tenants that take turns a start."`
}

// children checks the settings.
func (s childSettings) children(m *cli.Mistakes, workers int) sandbox.Config {
	const leastMemory = 128 << 20 // with less, a child does not even start
	if s.ChildMemory < leastMemory {
		m.Check("TRAMO_CHILD_MEMORY", fmt.Errorf("%s is less than a process needs to start; at least 128MiB", s.ChildMemory))
	}
	if s.ChildCPU < time.Second {
		m.Check("TRAMO_CHILD_CPU", fmt.Errorf("%s is less than a second", s.ChildCPU))
	}
	if s.ChildWall < time.Second {
		m.Check("TRAMO_CHILD_WALL", fmt.Errorf("%s is less than a second", s.ChildWall))
	}
	if s.ChildFiles < 1 {
		m.Check("TRAMO_CHILD_FILES", fmt.Errorf("%d is not at least 1", s.ChildFiles))
	}
	if s.Children != 0 && s.Children < workers {
		m.Check("TRAMO_CHILDREN", fmt.Errorf("%d is less than the %d files that TRAMO_WORKERS processes at a time", s.Children, workers))
	}
	return sandbox.Config{
		Env: examine.Environment(), Children: s.Children, Files: s.ChildFiles,
		Limits: sandbox.Limits{Memory: int64(s.ChildMemory), CPU: s.ChildCPU, Wall: s.ChildWall},
	}
}
