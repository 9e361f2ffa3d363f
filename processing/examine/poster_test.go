package examine_test

import (
	"fmt"
	"image/png"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/test/stack"
)

// The test program is an ffmpeg without zscale, which fails after it has begun to write.
func init() {
	if len(os.Args) < 2 || os.Args[1] != "-nostdin" {
		return
	}
	if strings.Contains(strings.Join(os.Args, " "), "zscale") {
		fmt.Print("half a picture")
		fmt.Fprintln(os.Stderr, "No such filter: 'zscale'")
		os.Exit(1)
	}
	_ = png.Encode(os.Stdout, halves(160, 90))
	os.Exit(0)
}

// A film of high dynamic range has a thumbnail, a dull one, where ffprobe is missing or ffmpeg was built without the filters
// that bring it into a screen's range.
func TestPosterWithoutToneMapping(t *testing.T) {
	t.Parallel()
	content := bright(t, "smpte2084", 320)
	withoutProbe := maps.Clone(examine.FindTools())
	delete(withoutProbe, examine.FFprobe)
	withoutFilter := maps.Clone(examine.FindTools())
	self, err := os.Executable()
	stack.Must(t, err)
	withoutFilter[examine.FFmpeg] = self
	for name, tools := range map[string]examine.Tools{"no ffprobe": withoutProbe, "no zscale": withoutFilter} {
		drawing, err := newExaminer(t, sandbox.Config{Limits: roomy}, tools).Draw(t.Context(), someone, unlinked(t, content),
			examine.DrawRequest{ContentType: "video/quicktime", Sizes: []int{160}})
		if err != nil || drawing.NoThumbnail != "" || len(drawing.Thumbnails) != 1 {
			t.Errorf("%s: %d thumbnails, %q, %v", name, len(drawing.Thumbnails), drawing.NoThumbnail, err)
		}
	}
}
