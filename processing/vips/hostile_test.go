package vips

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"os"
	"strings"
	"testing"

	"github.com/h2non/bimg"
)

// pngClaiming is a PNG header that claims the given dimensions and has no pixels.
func pngClaiming(width, height uint32) []byte {
	chunk := func(name string, data []byte) []byte {
		body := append([]byte(name), data...)
		out := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
		return binary.BigEndian.AppendUint32(append(out, body...), crc32.ChecksumIEEE(body))
	}
	header := binary.BigEndian.AppendUint32(nil, width)
	header = append(binary.BigEndian.AppendUint32(header, height), 8, 2, 0, 0, 0)
	return bytes.Join([][]byte{[]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", header), chunk("IDAT", nil), chunk("IEND", nil)}, nil)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	photo := asJPEG(t, corners(600, 400))
	for _, c := range []struct {
		name  string
		input []byte
		want  error
	}{
		{"bomb", pngClaiming(1_000_000, 1_000_000), ErrTooManyPixels},
		{"just over", pngClaiming(16_384, 16_383), ErrTooManyPixels},
		{"svg", []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>`), ErrNotAPicture},
		{"pdf", []byte("%PDF-1.4\n1 0 obj\n<<>>\nendobj\n"), ErrNotAPicture},
		{"postscript", []byte("%!PS-Adobe-3.0 EPSF-3.0\n"), ErrNotAPicture},
		{"mvg", []byte("push graphic-context\nviewbox 0 0 9 9\n"), ErrNotAPicture},
		{"nothing", nil, ErrNotAPicture},
		{"only a header", photo[:20], ErrUnreadable},
		{"garbage behind a header", append([]byte("\xFF\xD8\xFF\xE0"), bytes.Repeat([]byte("x"), 400)...), ErrUnreadable},
		{"heif garbage", []byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heicxxxxxxxxxxxx"), ErrUnreadable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Render(c.input, 1, []int{160}, DefaultMaxPixels); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// What our own check let slip, libvips would refuse too, as long as the environment says so. It is only
// the second wall: libvips 8.14.1 blocks a PDF after poppler has parsed it.
func TestUntrustedLoadersAreBlocked(t *testing.T) {
	t.Parallel()
	if os.Getenv("VIPS_BLOCK_UNTRUSTED") != "1" {
		t.Fatal("VIPS_BLOCK_UNTRUSTED is not set")
	}
	svg := []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>`)
	if _, err := bimg.Resize(svg, bimg.Options{Type: bimg.PNG}); err == nil || !strings.Contains(err.Error(), "blocked") {
		t.Errorf("%v, want an error that says blocked", err)
	}
}

// A JPEG cut in the middle is drawn without a word, its lower part grey: telling is the business of
// whoever walks its markers.
func TestTruncatedJPEGIsDrawnHalfGrey(t *testing.T) {
	t.Parallel()
	photo := asJPEG(t, corners(900, 600))
	rendered, err := Render(photo[:len(photo)*2/3], 1, []int{480}, DefaultMaxPixels)
	if err != nil {
		t.Fatal(err)
	}
	picture := decode(t, rendered.Pictures[0].WebP)
	if !near(picture.At(60, 40), red, 16) {
		t.Errorf("the top is %v, want red", picture.At(60, 40))
	}
	if grey := (color.RGBA{128, 128, 128, 255}); !near(picture.At(60, 310), grey, 24) {
		t.Errorf("the bottom is %v, want grey", picture.At(60, 310))
	}
}

// A P3 photo keeps its colours: converted to sRGB, and not merely robbed of its profile.
func TestWideGamutIsConverted(t *testing.T) {
	t.Parallel()
	flat := image.NewRGBA(image.Rect(0, 0, 300, 200))
	want := color.RGBA{200, 60, 40, 255}
	for i := 0; i < len(flat.Pix); i += 4 {
		copy(flat.Pix[i:], []byte{want.R, want.G, want.B, 255})
	}
	photo, err := bimg.Resize(asPNG(t, flat), bimg.Options{Type: bimg.JPEG, Quality: 98, InputICC: "srgb", OutputICC: "p3"})
	if err != nil {
		t.Fatal(err)
	}
	if head, err := bimg.Metadata(photo); err != nil || !head.Profile {
		t.Fatalf("the original has no profile (%v): this test would pass vacuously", err)
	}
	if robbed := decode(t, photo).At(50, 50); near(robbed, want, 8) {
		t.Fatalf("P3 numbers %v equal the sRGB ones: this test would pass vacuously", robbed)
	}
	rendered, err := Render(photo, 1, []int{160}, DefaultMaxPixels)
	if err != nil {
		t.Fatal(err)
	}
	if got := decode(t, rendered.Pictures[0].WebP).At(50, 50); !near(got, want, 8) {
		t.Errorf("colour %v, want %v", got, want)
	}
}

func FuzzRender(f *testing.F) {
	f.Add([]byte("\xFF\xD8\xFF\xE0"))
	f.Add(pngClaiming(3, 3))
	f.Add([]byte("RIFF\x00\x00\x00\x00WEBPVP8 "))
	f.Fuzz(func(t *testing.T, input []byte) {
		rendered, err := Render(input, 6, []int{16}, 1<<20)
		if err == nil && len(rendered.Pictures) != 1 {
			t.Errorf("%d pictures without an error", len(rendered.Pictures))
		}
	})
}
