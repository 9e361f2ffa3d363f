package examine

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"testing"
	"testing/iotest"

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

// A JPEG cut anywhere is truncated; whole, and whatever follows it, it is not.
func TestTruncatedJPEGAtEveryByte(t *testing.T) {
	t.Parallel()
	whole := smallJPEG(t)
	for length := 2; length < len(whole); length++ {
		if truncated, err := TruncatedJPEG(bytes.NewReader(whole[:length])); !truncated || err != nil {
			t.Fatalf("cut after %d of %d bytes: %t, %v", length, len(whole), truncated, err)
		}
	}
	for name, tail := range map[string]string{"nothing": "", "zeros": "\x00\x00\x00", "a film": "\x00\x00\x00\x18ftypmp42", "half a JPEG": "\xFF\xD8\xFF\xE0"} {
		if truncated, err := TruncatedJPEG(bytes.NewReader(append(bytes.Clone(whole), tail...))); truncated || err != nil {
			t.Errorf("with %s behind: %t, %v", name, truncated, err)
		}
	}
	// An EOI in a thumbnail inside a segment is not the end.
	thumbnail := append([]byte("\xFF\xD8\xFF\xE1\x00\x06\xFF\xD8\xFF\xD9"), whole[2:len(whole)-2]...)
	if truncated, err := TruncatedJPEG(bytes.NewReader(thumbnail)); !truncated || err != nil {
		t.Errorf("with the end only in a segment: %t, %v", truncated, err)
	}
}

func TestTruncatedJPEGErrors(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "\xFF", "\x89PNG\r\n"} {
		if _, err := TruncatedJPEG(bytes.NewReader([]byte(content))); !errors.Is(err, errNotJPEG) {
			t.Errorf("%q: %v, want errNotJPEG", content, err)
		}
	}
	broken := iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(smallJPEG(t))))
	if _, err := TruncatedJPEG(broken); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("%v, want the reader's error", err)
	}
}

func FuzzTruncatedJPEG(f *testing.F) {
	f.Add(smallJPEG(f))
	f.Add([]byte("\xFF\xD8\xFF\xDA\x00\x00\xFF\xFF\xFF\x00\xFF\xD0\xFF\xD9"))
	f.Add([]byte("\xFF\xD8\xFF\xE0\xFF\xFF"))
	f.Fuzz(func(t *testing.T, content []byte) {
		truncated, err := TruncatedJPEG(bytes.NewReader(content))
		inSlivers, sliverErr := TruncatedJPEG(iotest.OneByteReader(bytes.NewReader(content)))
		if truncated != inSlivers || (err == nil) != (sliverErr == nil) {
			t.Errorf("%t, %v at once; %t, %v byte by byte", truncated, err, inSlivers, sliverErr)
		}
		if err == nil && !truncated && !bytes.Contains(content, []byte{0xFF, markerEOI}) {
			t.Error("whole without an end")
		}
	})
}
