package stack_test

import (
	"bytes"
	"image"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

func TestPhotoCostsWhatAPhonesPhotoDoes(t *testing.T) {
	t.Parallel()
	photo := stack.Photo(stack.PhotoConfig{Seed: 7})
	if n := len(photo); n < 2<<20 || n > 6<<20 {
		t.Errorf("12 megapixels cost %d bytes, want 2 to 6 MiB", n)
	}
	cfg, format, err := image.DecodeConfig(bytes.NewReader(photo))
	stack.Must(t, err)
	if format != "jpeg" || cfg.Width != 4000 || cfg.Height != 3000 {
		t.Errorf("got a %s of %dx%d, want a jpeg of 4000x3000", format, cfg.Width, cfg.Height)
	}
}

func TestPhotoDependsOnItsSeed(t *testing.T) {
	t.Parallel()
	photo := func(seed uint64) []byte {
		return stack.Photo(stack.PhotoConfig{Width: 401, Height: 301, Seed: seed})
	}
	if !bytes.Equal(photo(7), photo(7)) {
		t.Error("one seed gives two photos")
	}
	if bytes.Equal(photo(7), photo(8)) {
		t.Error("two seeds give one photo")
	}
}

func TestPNG(t *testing.T) {
	t.Parallel()
	cfg, format, err := image.DecodeConfig(bytes.NewReader(stack.PNG(64, 48)))
	stack.Must(t, err)
	if format != "png" || cfg.Width != 64 || cfg.Height != 48 {
		t.Errorf("got a %s of %dx%d, want a png of 64x48", format, cfg.Width, cfg.Height)
	}
}
