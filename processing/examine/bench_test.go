package examine_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tramo/tramo/processing/sandbox"
)

// BenchmarkDraw draws a small photo in children that are kept, and in children that serve for one file each: with a spare
// one started ahead in both. cpu-ms/file is what all children used, their start included.
func BenchmarkDraw(b *testing.B) {
	content := photo(b, 160, 120)
	for _, c := range []struct {
		name  string
		files int
	}{{"kept", 200}, {"fresh", 1}} {
		b.Run(c.name, func(b *testing.B) {
			before := cpuOfChildren(b)
			examiner := newExaminer(b, sandbox.Config{Files: c.files}, nil)
			for b.Loop() {
				if _, err := examiner.Draw(b.Context(), someone, unlinked(b, content), request); err != nil {
					b.Fatal(err)
				}
			}
			if err := examiner.Box.Close(); err != nil {
				b.Fatal(err)
			}
			used := cpuOfChildren(b) - before
			b.ReportMetric(float64(used.Microseconds())/1000/float64(b.N), "cpu-ms/file")
		})
	}
}

// cpuOfChildren is what those used that have ended.
func cpuOfChildren(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
