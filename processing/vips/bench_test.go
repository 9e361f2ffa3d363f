package vips

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/h2non/bimg"

	"github.com/tramo/tramo/test/stack"
)

// cpu is what this process, or its children, took so far.
func cpu(b *testing.B, who int) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(who, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkPhoto is CPU milliseconds a 12-megapixel photo by step, and what vipsthumbnail takes for the same three sizes at
// the same quality, photo by photo in the same run.
func BenchmarkPhoto(b *testing.B) {
	jpeg := stack.Photo(stack.PhotoConfig{Seed: 1})
	heic, err := bimg.Resize(jpeg, bimg.Options{Type: bimg.HEIF, Quality: 60, Speed: 9})
	if err != nil {
		b.Fatal(err)
	}
	for name, photo := range map[string][]byte{"jpeg": jpeg, "heic": heic} {
		for _, orientation := range []int{1, 6} {
			b.Run(fmt.Sprint(name, "/", orientation), func(b *testing.B) { benchmarkPhoto(b, name, photo, orientation) })
		}
	}
}

func benchmarkPhoto(b *testing.B, name string, photo []byte, orientation int) {
	path := filepath.Join(b.TempDir(), "photo."+name)
	if err := os.WriteFile(path, photo, 0o600); err != nil {
		b.Fatal(err)
	}
	steps, took := []string{"all", "vipsthumbnail"}, map[string]time.Duration{}
	step := func(name string, who int, f func() error) {
		before := cpu(b, who)
		if err := f(); err != nil {
			b.Fatal(err)
		}
		if _, known := took[name]; !known && name != "all" && name != "vipsthumbnail" {
			steps = append(steps, name)
		}
		took[name] += cpu(b, who) - before
	}
	for b.Loop() {
		runtime.GC() // ours of the photo before, not this one's
		step("all", syscall.RUSAGE_SELF, func() error {
			_, err := Render(photo, orientation, []int{1600, 480, 160}, 0)
			return err
		})
		step("vipsthumbnail", syscall.RUSAGE_CHILDREN, func() error {
			for _, size := range []string{"1600", "480", "160"} {
				command := exec.Command("vipsthumbnail", path, "--size", size+">", "-o", filepath.Join(b.TempDir(), "out.webp[Q=78,strip]"))
				if said, err := command.CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(said)))
				}
			}
			return nil
		})
		benchmarkSteps(step, source{photo, sniff(photo)}, orientation)
	}
	for _, name := range steps {
		b.ReportMetric(took[name].Seconds()*1000/float64(b.N), name+"-ms")
	}
}

func benchmarkSteps(step func(string, int, func() error), photo source, orientation int) {
	self := syscall.RUSAGE_SELF
	_ = exclusively(func() error {
		var original decoded
		step("header", self, func() (err error) { _, err = photo.readHead(DefaultMaxPixels); return err })
		h := how{shrink: 1, size: 1600, turn: turnFor(orientation)}
		step("decode", self, func() (err error) { original, err = photo.decodeAll(h); return err })
		defer original.close()
		for _, size := range []int{1600, 480, 160} {
			step(fmt.Sprint("scale-", size), self, func() error { return original.shrink(size) })
			step(fmt.Sprint("webp-", size), self, func() error { _, err := original.webp(); return err })
		}
		step("hash", self, func() error { _, err := original.placeholder(); return err })
		return nil
	})
}
