package examine_test

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/h2non/bimg"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/processing/vips"
	"github.com/tramo/tramo/test/stack"
)

// The test binary is its own child, as the worker is. An init and not TestMain, so that the package's
// other tests may have theirs.
func init() {
	if len(os.Args) < 3 || !slices.Contains([]string{"examine", "misbehave"}, os.Args[1]) {
		return
	}
	render := vips.Render
	if os.Args[1] == "misbehave" {
		render = misbehave(os.Args[2])
	}
	if err := examine.ServeChild(os.Args[len(os.Args)-1:], render); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// What a misbehaving child keeps, so that the compiler keeps it too.
var (
	hoard [][]byte
	drawn int
)

// misbehave is a child taken over by the file that it decodes, once it is past its own picture.
func misbehave(how string) examine.Renderer {
	return func(_ []byte, _ int, sizes []int, _ int) (examine.Rendered, error) {
		if sizes[0] == examine.WarmSize {
			return examine.Rendered{}, nil
		}
		content := []byte("<script>alert(1)</script>")
		switch how {
		case "hang":
			select {}
		case "hoard":
			for {
				hoard = append(hoard, bytes.Repeat([]byte("x"), 16<<20))
			}
		case "die":
			os.Exit(3)
		case "flood":
			content = append([]byte("RIFFxxxxWEBP"), make([]byte, 2<<20)...)
		case "foreign":
		case "be broken by the first file":
			if drawn++; drawn > 1 {
				return examine.Rendered{}, vips.ErrUnreadable
			}
			content = []byte("RIFFxxxxWEBP")
		default:
			return examine.Rendered{}, vips.ErrOutOfMemory
		}
		return examine.Rendered{Width: 9, Height: 9, Thumbnails: []examine.Thumbnail{{Size: 160, Width: 9, Height: 9, WebP: content}}}, nil
	}
}

func photo(t testing.TB, width, height int) []byte {
	t.Helper()
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			picture.SetRGBA(x, y, color.RGBA{uint8(x), uint8(y), uint8(x * y), 255})
		}
	}
	var out bytes.Buffer
	stack.Must(t, jpeg.Encode(&out, picture, nil))
	return out.Bytes()
}

// unlinked returns a file that holds content, without a name and with its offset at the end, as a worker
// has it after a download.
func unlinked(t testing.TB, content []byte) *os.File {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	stack.Must(t, err)
	t.Cleanup(func() { _ = file.Close() })
	stack.Must(t, os.Remove(file.Name()))
	if _, err := file.Write(content); err != nil {
		t.Fatal(err)
	}
	return file
}

// roomy leaves the race detector, which keeps several bytes for each of ours, its memory.
var roomy = sandbox.Limits{Memory: 4 << 30}

// newExaminer returns an examiner whose processes end with the test.
func newExaminer(t testing.TB, c sandbox.Config, tools examine.Tools) *examine.Examiner {
	t.Helper()
	c.Env = examine.Environment()
	box := sandbox.New(c)
	t.Cleanup(func() { stack.Must(t, box.Close()) })
	return &examine.Examiner{Box: box, Tools: tools}
}

// someone is the tenant whose files these are.
var someone = uuid.New()

var request = examine.DrawRequest{ContentType: "image/jpeg", Sizes: []int{480, 160}}

func TestExamineAPhoto(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "photo.jpg")
	stack.Must(t, os.WriteFile(path, photo(t, 900, 600), 0o600))
	stack.Output(t, "exiftool", "-q", "-overwrite_original", "-n", "-Orientation=6", "-Make=Probe", path)
	content, err := os.ReadFile(path)
	stack.Must(t, err)
	examiner := newExaminer(t, sandbox.Config{Limits: roomy}, nil)
	said, err := examiner.ReadFacts(t.Context(), someone, unlinked(t, content), "image/jpeg")
	if err != nil || said.CameraMake != "Probe" || said.Orientation != 6 {
		t.Errorf("facts %+v, %v", said, err)
	}
	found, err := examiner.Draw(t.Context(), someone, unlinked(t, content), request)
	stack.Must(t, err)
	if found.Width != 600 || found.Height != 900 || found.Partial {
		t.Errorf("found %+v", found)
	}
	if len(found.Thumbnails) != 2 || found.Thumbnails[0].Height != 480 || found.Thumbnails[1].Width != 107 {
		t.Errorf("%d pictures", len(found.Thumbnails))
	}
}

// Every format that phones and scanners send can be drawn by a confined child: the plugins that some of them take can be
// read, and make no call that is refused.
func TestEveryFormatIsDrawnConfined(t *testing.T) {
	t.Parallel()
	examiner := newExaminer(t, sandbox.Config{Limits: roomy}, nil)
	for contentType, format := range map[string]bimg.ImageType{
		"image/jpeg": bimg.JPEG, "image/png": bimg.PNG, "image/webp": bimg.WEBP, "image/gif": bimg.GIF,
		"image/tiff": bimg.TIFF, "image/heic": bimg.HEIF, "image/avif": bimg.AVIF,
	} {
		content, err := bimg.Resize(photo(t, 640, 480), bimg.Options{Type: format, Quality: 80, Speed: 9})
		if err != nil {
			t.Fatalf("%s: %v", contentType, err)
		}
		found, err := examiner.Draw(t.Context(), someone, unlinked(t, content), examine.DrawRequest{ContentType: contentType, Sizes: []int{480, 160}})
		if err != nil || len(found.Thumbnails) != 2 {
			t.Errorf("%s: %d pictures, problem %q, %v", contentType, len(found.Thumbnails), found.NoThumbnail, err)
		}
	}
}

// A photo cut off on the way is drawn as far as it goes, and said to be cut off.
func TestExamineATruncatedPhoto(t *testing.T) {
	t.Parallel()
	content := photo(t, 900, 600)
	examiner := newExaminer(t, sandbox.Config{Limits: roomy}, nil)
	found, err := examiner.Draw(t.Context(), someone, unlinked(t, content[:len(content)/2]), request)
	if err != nil || !found.Partial || len(found.Thumbnails) != 2 {
		t.Errorf("partial=%t, %d pictures, %v", found.Partial, len(found.Thumbnails), err)
	}
	_, err = examiner.Draw(t.Context(), someone, unlinked(t, content[:100]), request)
	var unreadable *examine.UnreadableError
	if !errors.As(err, &unreadable) || !strings.Contains(unreadable.Cause, "cut off") {
		t.Errorf("%v, want an UnreadableError that says cut off", err)
	}
}

func TestExamineWhatIsNoPicture(t *testing.T) {
	t.Parallel()
	examiner := newExaminer(t, sandbox.Config{Limits: roomy}, nil)
	for name, content := range map[string]string{
		"garbage": strings.Repeat("garbage ", 100), "empty": "", "pdf": "%PDF-1.7\n", "svg": "<svg></svg>",
		"damaged": "\xFF\xD8\xFF\xE0" + strings.Repeat("x", 400) + "\xFF\xD9",
	} {
		_, err := examiner.Draw(t.Context(), someone, unlinked(t, []byte(content)), request)
		var unreadable *examine.UnreadableError
		if !errors.As(err, &unreadable) || unreadable.Cause == "" {
			t.Errorf("%s: %v, want an UnreadableError", name, err)
		}
	}
	for _, contentType := range []string{"application/zip", "text/plain", ""} {
		found, err := examiner.Draw(t.Context(), someone, unlinked(t, []byte("x")), examine.DrawRequest{ContentType: contentType, Sizes: []int{160}})
		if err != nil || len(found.Thumbnails) != 0 {
			t.Errorf("%s: %v, want nothing and no error", contentType, err)
		}
	}
	tooMany := request
	tooMany.MaxPixels = 1000
	if found, err := examiner.Draw(t.Context(), someone, unlinked(t, photo(t, 90, 60)), tooMany); err != nil || found.NoThumbnail != examine.NoThumbnailTooLarge {
		t.Errorf("%+v, %v, want %s", found, err, examine.NoThumbnailTooLarge)
	}
}

// Whatever a child does that was taken over, its parent gets an error that names it, and within its limits.
func TestMisbehavingChildren(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		how    string
		limits sandbox.Limits
		want   string // a limit, or "" for a crash
	}{
		{"hang", sandbox.Limits{Wall: time.Second}, sandbox.LimitTime},
		{"hoard", sandbox.Limits{}, sandbox.LimitMemory},
		{"say that it is out of memory", sandbox.Limits{}, sandbox.LimitMemory},
		{"flood", sandbox.Limits{Output: 1 << 20}, sandbox.LimitOutput},
		{"die", sandbox.Limits{}, ""},
		{"foreign", sandbox.Limits{}, ""},
	} {
		t.Run(c.how, func(t *testing.T) {
			t.Parallel()
			examiner := newExaminer(t, sandbox.Config{Limits: c.limits, Command: []string{"/proc/self/exe", "misbehave", c.how}}, nil)
			_, err := examiner.Draw(t.Context(), someone, unlinked(t, photo(t, 90, 60)), request)
			var limit *sandbox.LimitError
			switch {
			case c.want == "" && !errors.Is(err, sandbox.ErrCrashed):
				t.Errorf("%v, want ErrCrashed", err)
			case c.want != "" && (!errors.As(err, &limit) || limit.Limit != c.want):
				t.Errorf("%v, want the limit of %s", err, c.want)
			}
		})
	}
}

// An upload does not fail for what a child says that earlier files may have broken: a fresh one has the last word.
func TestUnreadableIsSaidByAFreshChild(t *testing.T) {
	t.Parallel()
	examiner := newExaminer(t, sandbox.Config{Limits: roomy, Command: []string{"/proc/self/exe", "misbehave", "be broken by the first file"}}, nil)
	for range 3 {
		found, err := examiner.Draw(t.Context(), someone, unlinked(t, photo(t, 90, 60)), request)
		if err != nil || len(found.Thumbnails) != 1 {
			t.Errorf("%d pictures, %v", len(found.Thumbnails), err)
		}
	}
}

// A child looks into a container, and its answer is a media type or nothing.
func TestInspect(t *testing.T) {
	t.Parallel()
	e := newExaminer(t, sandbox.Config{Limits: roomy}, nil)
	found, err := e.Inspect(t.Context(), someone, unlinked(t, stack.Word97(200<<10, true)))
	if want := (mediatype.Found{Type: "application/msword", Protected: true}); err != nil || found != want {
		t.Errorf("%+v, %v, want %+v", found, err, want)
	}
}
