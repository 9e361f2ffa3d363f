package examine

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

func smallJPEG(t testing.TB) []byte {
	t.Helper()
	picture := image.NewRGBA(image.Rect(0, 0, 80, 60))
	for i := range 80 * 60 {
		picture.Set(i%80, i/80, color.RGBA{uint8(i * i), uint8(i), uint8(i >> 3), 255})
	}
	var out bytes.Buffer
	stack.Must(t, jpeg.Encode(&out, picture, nil))
	return out.Bytes()
}

// A PNG cut anywhere is truncated; whole, and whatever follows it, it is not.
func TestTruncatedPNGAtEveryByte(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	stack.Must(t, png.Encode(&out, image.NewGray(image.Rect(0, 0, 80, 60))))
	whole := out.Bytes()
	for length := range whole {
		if !truncatedPNG(whole[:length]) {
			t.Fatalf("cut after %d of %d bytes it is whole", length, len(whole))
		}
	}
	for _, tail := range []string{"", "\n", "IDAT"} {
		if truncatedPNG(append(bytes.Clone(whole), tail...)) {
			t.Errorf("with %q behind its end it is truncated", tail)
		}
	}
}

// A JPEG cut anywhere is truncated; whole, and whatever follows it, it is not.
func TestTruncatedJPEGAtEveryByte(t *testing.T) {
	t.Parallel()
	whole := smallJPEG(t)
	for length := 2; length < len(whole); length++ {
		if !truncatedJPEG(whole[:length]) {
			t.Fatalf("cut after %d of %d bytes it is whole", length, len(whole))
		}
	}
	for name, tail := range map[string]string{"nothing": "", "zeros": "\x00\x00\x00", "a film": "\x00\x00\x00\x18ftypmp42", "half a JPEG": "\xFF\xD8\xFF\xE0"} {
		if truncatedJPEG(append(bytes.Clone(whole), tail...)) {
			t.Errorf("with %s behind it is truncated", name)
		}
	}
	// An EOI in a thumbnail inside a segment is not the end.
	thumbnail := append([]byte("\xFF\xD8\xFF\xE1\x00\x06\xFF\xD8\xFF\xD9"), whole[2:len(whole)-2]...)
	if !truncatedJPEG(thumbnail) {
		t.Error("with the end only in a segment it is whole")
	}
}

func FuzzTruncatedJPEG(f *testing.F) {
	f.Add(smallJPEG(f))
	f.Add([]byte("\xFF\xD8\xFF\xDA\x00\x00\xFF\xFF\xFF\x00\xFF\xD0\xFF\xD9"))
	f.Add([]byte("\xFF\xD8\xFF\xE0\xFF\xFF"))
	f.Add([]byte("\xFF"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if truncatedJPEG(content) {
			return
		}
		if !bytes.Contains(content, []byte{0xFF, markerEOI}) {
			t.Error("whole without an end")
		}
		if truncatedJPEG(append(bytes.Clone(content), content...)) {
			t.Error("truncated by what follows its end")
		}
	})
}
