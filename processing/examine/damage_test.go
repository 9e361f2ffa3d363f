package examine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/test/stack"
)

// damaging is what accidents happen to: a file of each format.
func damaging(t *testing.T) map[string][]byte {
	t.Helper()
	photo := stack.Photo(stack.PhotoConfig{Width: 400, Height: 300, Seed: 7})
	picture, _, err := image.Decode(bytes.NewReader(photo))
	stack.Must(t, err)
	var asPNG, asGIF bytes.Buffer
	stack.Must(t, errors.Join(png.Encode(&asPNG, picture), gif.Encode(&asGIF, picture, nil)))
	files := map[string][]byte{"image/jpeg": photo, "image/png": asPNG.Bytes(), "image/gif": asGIF.Bytes()}
	dir := t.TempDir()
	source := filepath.Join(dir, "photo.jpg")
	stack.Must(t, os.WriteFile(source, photo, 0o600))
	for mediaType, name := range map[string]string{"image/webp": "photo.webp", "image/tiff": "photo.tif[compression=lzw]", "image/heic": "photo.heic", "image/avif": "photo.avif[speed=8]"} {
		stack.Output(t, "vips", "copy", source, filepath.Join(dir, name))
		plain, _, _ := bytes.Cut([]byte(name), []byte("["))
		if files[mediaType], err = os.ReadFile(filepath.Join(dir, string(plain))); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// A file cut off anywhere is never called whole, and never takes a child's next file along. What is lost of a JPEG behind
// its last row is nothing that anybody sees.
func TestTruncations(t *testing.T) {
	t.Parallel()
	for mediaType, content := range damaging(t) {
		t.Run(mediaType, func(t *testing.T) {
			t.Parallel()
			e := newExaminer(t, sandbox.Config{Limits: roomy}, nil)
			before := draw(t, e, content, mediaType)
			ends := map[string]int{}
			step := max(1<<10, len(content)/40)
			cuts := []int{len(content) - 6, len(content) - 2} // without its last byte a GIF lacks only its trailer
			for n := step; n < len(content); n += step {      // as a phone's full memory leaves it
				cuts = append(cuts, n)
			}
			for _, n := range cuts {
				name := fmt.Sprintf("photo, cut after %d bytes", n)
				end := ending(t, e, name, mediaType, content[:n])
				if ends[end]++; end == whole {
					t.Errorf("%s of %d is called whole", name, len(content))
				}
			}
			if !bytes.Equal(draw(t, e, content, mediaType), before) {
				t.Error("the sound one is drawn differently after the cut ones")
			}
			t.Logf("%s, %d bytes: %v", mediaType, len(content), ends)
		})
	}
}

// Bits turned over anywhere end in a whole image, a partial one or none, and never crash the next file's child.
// TRAMO_TEST_FLIPS makes more of them, TRAMO_TEST_SEED other ones.
func TestFlips(t *testing.T) {
	t.Parallel()
	n, seed := fromEnvironment(t, "TRAMO_TEST_FLIPS", 40), uint64(fromEnvironment(t, "TRAMO_TEST_SEED", 1))
	for mediaType, content := range damaging(t) {
		t.Run(mediaType, func(t *testing.T) {
			t.Parallel()
			e := newExaminer(t, sandbox.Config{Limits: roomy}, nil)
			before := draw(t, e, content, mediaType)
			ends := map[string]int{}
			for i := range n {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				flipped := slices.Clone(content)
				for range 1 + rng.IntN(8) {
					flipped[rng.IntN(len(flipped))] ^= 1 << rng.IntN(8)
				}
				ends[ending(t, e, fmt.Sprintf("photo, bits turned over (seed %d, number %d)", seed, i), mediaType, flipped)]++
			}
			if !bytes.Equal(draw(t, e, content, mediaType), before) {
				t.Errorf("seed %d: the sound one is drawn differently after the damaged ones", seed)
			}
			t.Logf("%s, seed %d: %v", mediaType, seed, ends)
		})
	}
}

func fromEnvironment(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// draw returns the largest picture of a sound file.
func draw(t *testing.T, e *examine.Examiner, content []byte, mediaType string) []byte {
	t.Helper()
	drawing, err := e.Draw(t.Context(), someone, unlinked(t, content), examine.DrawRequest{ContentType: mediaType, Sizes: []int{320}})
	if err != nil || drawing.Partial || len(drawing.Thumbnails) != 1 {
		t.Fatalf("a sound %s: %+v, %v", mediaType, drawing, err)
	}
	return drawing.Thumbnails[0].WebP
}

// How drawing a file may end.
const (
	whole      = "whole"
	partial    = "partial"
	limited    = "memory|cpu|time|output" // one of these limits was hit
	unreadable = "unreadable"
)

// ending says how drawing a file ends. A child that crashes is a fault of this test's file, and of
// nothing behind it; but none should.
func ending(t *testing.T, e *examine.Examiner, name, mediaType string, content []byte) string {
	t.Helper()
	drawing, err := e.Draw(context.WithoutCancel(t.Context()), someone, unlinked(t, content), examine.DrawRequest{ContentType: mediaType, Sizes: []int{320}})
	var limit *sandbox.LimitError
	var damaged *examine.UnreadableError
	switch {
	case errors.As(err, &damaged):
		return unreadable
	case errors.As(err, &limit):
		return limited
	case err != nil:
		t.Errorf("%s: %v", name, err)
		return err.Error()
	case drawing.NoThumbnail != "":
		return drawing.NoThumbnail
	case drawing.Partial:
		return partial
	}
	return whole
}
