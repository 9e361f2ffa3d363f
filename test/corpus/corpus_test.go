package corpus

import (
	"archive/zip"
	"bytes"
	"image/png"
	"io"
	"testing"
)

// What is put together from pieces is what the formats say: others' readers unpack all of it.
func TestZerosUnpack(t *testing.T) {
	t.Parallel()
	const side = 4000
	if _, err := png.Decode(bytes.NewReader(newPNG(side, side, 1, 0, 0, deflatedZeros(side*(side/8+1))))); err != nil {
		t.Error(err)
	}
	const size = 3<<20 + 7
	packed := bomb(size)
	archive, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	file, err := archive.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, file); err != nil || n != size {
		t.Errorf("%d bytes, %v", n, err)
	}
}
