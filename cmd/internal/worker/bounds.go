package worker

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tramo/tramo/cmd/internal/cli"
	"github.com/tramo/tramo/processing"
	"github.com/tramo/tramo/processing/queue"
)

// boundSettings say how much of a machine a worker takes, and when its jobs are another's.
type boundSettings struct {
	Workers   int           `default:"0" help:"How many uploads to process at a time; 0 means one a core, or fewer where there is less than TRAMO_CHILD_MEMORY for each."`
	TempSpace cli.Bytes     `default:"4GiB" help:"Disk that downloads take together. They wait for their turns; an upload larger than this is a dead letter."`
	TempDir   string        `placeholder:"DIR" help:"Where downloads are kept while they are processed. Default: the system's."`
	LostAfter time.Duration `default:"15s" help:"For how long after TRAMO_LEASE_TTL nothing must have been heard of a worker until its jobs are given to others."`
	StopTime  time.Duration `default:"20s" help:"How long running jobs may go on when the worker is told to stop. Then they are handed to other workers."`
}

// parentMemory is what the worker itself needs besides its children: downloads stream through it.
const parentMemory = 256 << 20

// pool completes the settings of a pool.
func (s boundSettings) pool(m *cli.Mistakes, retry, busy time.Duration) queue.Config {
	c := queue.Config{RetryDelay: retry, BusyDelay: busy, LostAfter: s.LostAfter, StopTimeout: s.StopTime}
	m.Check("TRAMO_WORKERS", cli.CheckNotNegative(s.Workers))
	m.Check("TRAMO_RETRY_DELAY, TRAMO_BUSY_DELAY, TRAMO_LOST_AFTER, TRAMO_STOP_TIME", c.Validate())
	if s.TempSpace < 1 {
		m.Check("TRAMO_TEMP_SPACE", errors.New("it must be more than 0"))
	}
	return c
}

// workers decides how many uploads are processed at a time, each in a child that may take childMemory, and says why. A
// limit of 0 is none.
func workers(set, cores int, memory, childMemory int64) (n int, why string) {
	if set != 0 {
		return set, "TRAMO_WORKERS"
	}
	if memory == 0 {
		return cores, fmt.Sprintf("one for each of %d cores; no memory limit", cores)
	}
	fit := max(1, int((memory-parentMemory)/childMemory))
	if fit < cores {
		return fit, fmt.Sprintf("what %s of memory are enough for, of %d cores", humanize.IBytes(uint64(memory)), cores)
	}
	return cores, fmt.Sprintf("one for each of %d cores; %s of memory are enough", cores, humanize.IBytes(uint64(memory)))
}

// memoryLimit is what the worker and its children may take together: the container's limit, or GOMEMLIMIT if that is
// less; 0 for none.
func memoryLimit() int64 {
	limit := int64(math.MaxInt64)
	if cgroup, err := memlimit.FromCgroup(); err == nil && cgroup < uint64(limit) { // an error: there is no cgroup, or no limit
		limit = int64(cgroup)
	}
	limit = min(limit, debug.SetMemoryLimit(-1))
	if limit == math.MaxInt64 {
		return 0
	}
	return limit
}

// spareMemory keeps the worker's own heap small where memory is limited: the rest of it is the children's.
func spareMemory() {
	if memoryLimit() != 0 {
		debug.SetMemoryLimit(min(parentMemory, debug.SetMemoryLimit(-1)))
	}
}

// disk makes what bounds and keeps the downloads. Its directory is this process's own; clean removes it.
func (s boundSettings) disk(registry *prometheus.Registry, log *slog.Logger) (dir string, space *processing.Space, clean func(), err error) {
	if space, err = processing.NewSpace(int64(s.TempSpace), registry); err != nil {
		return "", nil, nil, err
	}
	parent := s.TempDir
	if parent == "" {
		parent = os.TempDir()
	}
	dir, clean, err = ownDir(parent, log)
	return dir, space, clean, err
}
