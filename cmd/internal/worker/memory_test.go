package worker

import (
	"math"
	"runtime/debug"
	"strings"
	"testing"
)

func TestWorkersFollowCoresAndMemory(t *testing.T) {
	t.Parallel()
	const mib, gib = 1 << 20, 1 << 30
	for _, c := range []struct {
		set, cores int
		memory     int64
		want       int
		why        string
	}{
		{3, 8, 1 * gib, 3, "TRAMO_WORKERS"},
		{0, 8, 0, 8, "no memory limit"},
		{0, 8, 16 * gib, 8, "16 GiB of memory are enough"},
		{0, 8, 2 * gib, 3, "2.0 GiB of memory are enough for 3, of 8 cores"},
		{0, 8, 256*mib + 4*512*mib, 4, "enough for 4"},
		{0, 8, 256*mib + 4*512*mib - 1, 3, "enough for 3"},
		{0, 8, 100 * mib, 1, "100 MiB of memory are enough for 1"},
		{0, 1, 100 * mib, 1, "one for each of 1 cores"},
	} {
		n, why := workers(c.set, c.cores, c.memory, 512<<20)
		if n != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%+v: %d, because of %s", c, n, why)
		}
	}
}

// Not parallel: GOMEMLIMIT is the process's.
func TestMemoryLimitIsTheLesserOne(t *testing.T) {
	old := debug.SetMemoryLimit(64 << 20)
	defer debug.SetMemoryLimit(old)
	if n := memoryLimit(); n != 64<<20 {
		t.Errorf("%d bytes, want GOMEMLIMIT's", n)
	}
	debug.SetMemoryLimit(math.MaxInt64)
	if n := memoryLimit(); n < 0 || n == 64<<20 {
		t.Errorf("%d bytes without GOMEMLIMIT", n)
	}
}
