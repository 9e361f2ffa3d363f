package vips

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// With the collector at its most eager, every orientation comes out upright and byte for byte the
// same on each run: nothing is read from memory that was freed. Not parallel: the setting
// is the process's.
func TestOrientationsAreStableUnderAnEagerCollector(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	const rounds = 12
	for orientation := 1; orientation <= 8; orientation++ {
		t.Run(fmt.Sprint(orientation), func(t *testing.T) {
			photo := withOrientation(asJPEG(t, stored(busy(2400, 1600), orientation)), orientation)
			first, err := Render(photo, orientation, []int{480, 160}, DefaultMaxPixels)
			stack.Must(t, err)
			if first.Width != 2400 || first.Height != 1600 {
				t.Errorf("upright dimensions are %d by %d, want 2400 by 1600", first.Width, first.Height)
			}
			for i, want := range [][2]int{{480, 320}, {160, 107}} {
				picture := first.Thumbnails[i]
				bounds := decode(t, picture.WebP).Bounds()
				if [2]int{picture.Width, picture.Height} != want || bounds.Dx() != want[0] || bounds.Dy() != want[1] {
					t.Errorf("size %d is %d by %d, decoded %v, want %v", picture.Size, picture.Width, picture.Height, bounds, want)
				}
				checkCorners(t, picture.WebP)
			}
			var group sync.WaitGroup
			for range rounds {
				group.Go(func() {
					again, err := Render(bytes.Clone(photo), orientation, []int{480, 160}, DefaultMaxPixels)
					if err != nil {
						t.Error(err)
						return
					}
					for i := range again.Thumbnails {
						if !bytes.Equal(again.Thumbnails[i].WebP, first.Thumbnails[i].WebP) {
							t.Errorf("size %d differs from the first run", again.Thumbnails[i].Size)
						}
					}
				})
			}
			stack.Wait(t, "end of all rounds", &group)
		})
	}
}

// A process that draws one file after the other, whole ones, damaged ones and refused ones, says of each what it would say
// of it alone: no pixel, no error and no complaint of one is found in the next. Not parallel: the setting is the
// process's.
func TestNothingStaysForTheNext(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	photo := asJPEG(t, busy(1200, 800))
	files := [][]byte{
		photo, asPNG(t, corners(640, 480)), photo[:len(photo)/2], pngClaiming(3, 3), asJPEG(t, noisy(700, 300)), pngClaiming(1_000_000, 1_000_000),
		[]byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heicxxxxxxxxxxxx"), directoryFirst(noisy(300, 200).Pix, 300, 200)[:120_000],
	}
	said := func(file []byte) string {
		rendered, err := Render(bytes.Clone(file), 6, []int{480, 160}, DefaultMaxPixels)
		var fault *Fault
		if err != nil && !errors.As(err, &fault) {
			t.Errorf("%v, want a Fault", err)
		}
		return fmt.Sprint(rendered, err)
	}
	alone := make([]string, len(files))
	for i, file := range files {
		alone[i] = said(file)
	}
	for before := range files {
		for after := range files {
			_ = said(files[before])
			stack.Want(t, said(files[after]), alone[after], "file %d after file %d, which must be what it is alone", after, before)
		}
	}
}

// 500 files later the process is no larger than after the first hundred.
func TestMemoryDoesNotGrow(t *testing.T) {
	photo := asJPEG(t, busy(600, 400))
	files := [][]byte{photo, asPNG(t, corners(300, 200)), photo[:len(photo)/2], pngClaiming(3, 3)}
	render := func(times int) {
		for i := range times {
			_, _ = Render(files[i%len(files)], 6, []int{480, 160}, DefaultMaxPixels)
		}
	}
	render(100)
	before := resident(t)
	render(500)
	grown := resident(t) - before
	t.Logf("%d KiB more after 500 files", grown)
	if grown > 4<<10 {
		t.Errorf("%d KiB more after 500 files", grown)
	}
}

// resident is this process's memory in KiB, without what Go only has not given back yet.
func resident(t *testing.T) int {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	return statusKiB(t, "self", "VmRSS")
}

func statusKiB(t *testing.T, process, field string) int {
	t.Helper()
	status, err := os.ReadFile("/proc/" + process + "/status")
	stack.Must(t, err)
	_, rest, _ := strings.Cut(string(status), field+":")
	line, _, _ := strings.Cut(rest, " kB")
	size, err := strconv.Atoi(strings.TrimSpace(line))
	stack.Must(t, err)
	return size
}
