package worker

import (
	"fmt"
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/dustin/go-humanize"
)

// parentMemory is what the worker itself needs besides its children: downloads stream through it.
const parentMemory = 256 << 20

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
		return fit, fmt.Sprintf("%s of memory are enough for %d, of %d cores", humanize.IBytes(uint64(memory)), fit, cores)
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

// spareMemory keeps the worker's own heap small where memory is limited: the rest is for the children.
func spareMemory() {
	if memoryLimit() != 0 {
		debug.SetMemoryLimit(min(parentMemory, debug.SetMemoryLimit(-1)))
	}
}
