package vips

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image/color"
	"image/gif"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// The states of a picture, in the order in which a longer and longer part of it goes through them.
const (
	unreadable = iota
	partial
	whole
)

func stateOf(t *testing.T, photo []byte) (int, Rendered) {
	t.Helper()
	rendered, err := Render(photo, 1, []int{480}, DefaultMaxPixels)
	switch {
	case errors.Is(err, ErrUnreadable), errors.Is(err, ErrNotAnImage):
		return unreadable, rendered
	case err != nil:
		t.Fatal(err)
	case rendered.Partial:
		return partial, rendered
	}
	return whole, rendered
}

func progressive(t *testing.T, photo []byte) []byte {
	t.Helper()
	in, out := filepath.Join(t.TempDir(), "in.jpg"), filepath.Join(t.TempDir(), "out.jpg")
	write(t, in, photo)
	vipsTool(t, "jpegsave", in, out, "--interlace", "--Q", "92")
	return read(t, out)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	stack.Must(t, err)
	return content
}

// markers returns where a JPEG's markers are, those of its entropy-coded data left out.
func markers(t *testing.T, photo []byte) (all []int, scan int) {
	t.Helper()
	for at := 2; at+4 <= len(photo); {
		if photo[at] != 0xFF || photo[at+1] == 0 || photo[at+1] >= 0xD0 && photo[at+1] <= 0xD7 {
			at++
			continue
		}
		all = append(all, at)
		if photo[at+1] == 0xDA && scan == 0 {
			scan = at
		}
		at += 2 + int(binary.BigEndian.Uint16(photo[at+2:]))
	}
	return all, scan
}

// A JPEG cut at any marker or kilobyte is unreadable before its pixels begin, partial once it shows some of them, and
// never whole.
func TestCutJPEG(t *testing.T) {
	t.Parallel()
	baseline := asJPEG(t, noisy(450, 300))
	for name, photo := range map[string][]byte{"baseline": baseline, "progressive": progressive(t, baseline)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cuts, scan := markers(t, photo)
			for _, cut := range cuts {
				if state, _ := stateOf(t, photo[:cut]); state == whole || cut <= scan && state != unreadable {
					t.Errorf("cut at the marker at %d, pixels begin at %d: state %d", cut, scan, state)
				}
			}
			if state, _ := stateOf(t, photo[:scan+2+int(photo[scan+3])]); state != unreadable {
				t.Errorf("cut where its pixels begin: state %d", state)
			}
			if last := cuts[len(cuts)-1]; name == "progressive" {
				if state, _ := stateOf(t, photo[:last+6]); state != partial {
					t.Errorf("cut inside its last segment: state %d", state)
				}
			}
			shown, from := false, 0
			for cut := 1 << 10; cut < len(photo)-64; cut += 1 << 10 {
				switch state, _ := stateOf(t, photo[:cut]); {
				case state == whole:
					t.Errorf("cut after %d of %d bytes it is whole", cut, len(photo))
				case state == unreadable && shown:
					t.Errorf("cut after %d bytes it is unreadable, though less of it was not", cut)
				case state == partial && !shown:
					shown, from = true, cut
				}
			}
			if from < scan || from > scan+2<<10 {
				t.Errorf("it shows something from byte %d on, its pixels begin at %d", from, scan)
			}
			if state, _ := stateOf(t, photo); state != whole {
				t.Error("uncut it is not whole: this test would pass vacuously")
			}
		})
	}
}

// The lower part of a cut JPEG is grey, and nobody claims that it is the picture.
func TestHalfGreyIsPartial(t *testing.T) {
	t.Parallel()
	photo := asJPEG(t, busy(900, 600))
	state, rendered := stateOf(t, photo[:len(photo)*2/3])
	if state != partial {
		t.Fatalf("state %d, want partial", state)
	}
	picture := decode(t, rendered.Thumbnails[0].WebP)
	if grey := (color.RGBA{128, 128, 128, 255}); !near(picture.At(60, 40), red, 16) || !near(picture.At(60, 310), grey, 24) {
		t.Errorf("the top is %v, want red; the bottom %v, want grey", picture.At(60, 40), picture.At(60, 310))
	}
}

// Pixels overwritten: what Go's decoder, which knows no mercy, calls broken is not whole here. A JPEG has no checksum, so of
// single bits neither decoder knows more than that some lead to nonsense, and libjpeg-turbo lets some nonsense pass: most of
// what Go complains of is not whole either.
func TestOverwrittenJPEG(t *testing.T) {
	t.Parallel()
	photo := asJPEG(t, noisy(150, 100))
	_, scan := markers(t, photo)
	for name, damage := range map[string]func(*rand.Rand, []byte){
		"a bit":     func(rng *rand.Rand, at []byte) { at[0] ^= 1 << rng.IntN(8) },
		"300 bytes": func(rng *rand.Rand, at []byte) { _, _ = rand.NewChaCha8([32]byte{byte(rng.Int())}).Read(at[:300]) },
	} {
		rng := rand.New(rand.NewPCG(1, 2))
		broken, missed := 0, 0
		for range 200 {
			damaged := bytes.Clone(photo)
			damage(rng, damaged[scan+20+rng.IntN(len(photo)-scan-340):])
			if _, err := jpeg.Decode(bytes.NewReader(damaged)); err != nil {
				broken++
				if state, _ := stateOf(t, damaged); state == whole {
					missed++
				}
			}
		}
		if broken < 10 || missed > broken/3 || name != "a bit" && missed > broken/20 {
			t.Errorf("%s: of %d that Go finds broken %d are whole", name, broken, missed)
		}
	}
}

// PNG, GIF and TIFF show the rows above a cut. Of interlaced PNG, WebP and HEIF libvips shows nothing so far. None claims to
// be whole.
func TestCutOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source := filepath.Join(dir, "source.png")
	write(t, source, asPNG(t, noisy(900, 600)))
	var frame bytes.Buffer
	stack.Must(t, gif.Encode(&frame, noisy(900, 600), nil))
	made := func(name string, arguments ...string) []byte {
		path := filepath.Join(dir, name)
		vipsTool(t, append([]string{arguments[0], source, path}, arguments[1:]...)...)
		return read(t, path)
	}
	for _, c := range []struct {
		name  string
		photo []byte
		shows bool
	}{
		{"png", read(t, source), true},
		{"interlaced png", made("interlaced.png", "pngsave", "--interlace"), false},
		{"gif", frame.Bytes(), true},
		{"tiff", directoryFirst(noisy(900, 600).Pix, 900, 600), true},
		{"webp", made("a.webp", "webpsave"), false},
		{"lossless webp", made("b.webp", "webpsave", "--lossless"), false},
		{"heic", made("a.heic", "heifsave"), false},
		{"avif", made("a.avif", "heifsave", "--compression", "av1", "--speed", "9"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if state, _ := stateOf(t, c.photo); state != whole {
				t.Fatal("uncut it is not whole")
			}
			for part := 1; part < 16; part++ {
				state, rendered := stateOf(t, c.photo[:len(c.photo)*part/16])
				if state == whole || state == unreadable && c.shows && part > 2 {
					t.Errorf("%d sixteenths: state %d", part, state)
				}
				if state == partial && part == 12 && c.shows {
					picture := decode(t, rendered.Thumbnails[0].WebP)
					if !near(picture.At(60, 40), red, 30) || near(picture.At(60, 312), blue, 60) {
						t.Errorf("three quarters show %v above and %v below", picture.At(60, 40), picture.At(60, 312))
					}
				}
			}
		})
	}
}

// A PNG's checksum that does not fit says that its pixels are not what they were.
func TestFlippedPNG(t *testing.T) {
	t.Parallel()
	photo := asPNG(t, noisy(900, 600))
	photo[len(photo)/2] ^= 0x10
	if state, _ := stateOf(t, photo); state != partial {
		t.Errorf("state %d, want partial", state)
	}
}

// What phones put behind a photo is none of its damage, nor is what is wrong with what it says of itself.
func TestSoundPhotosAreWhole(t *testing.T) {
	t.Parallel()
	photo := asJPEG(t, busy(900, 600))
	for name, tail := range map[string][]byte{
		"zeros": make([]byte, 5000), "a film": []byte("\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00"), "another picture": photo, "noise": []byte("\xFF\xD8\xFF\x00SEFT"),
	} {
		if state, _ := stateOf(t, append(bytes.Clone(photo), tail...)); state != whole {
			t.Errorf("with %s behind it: state %d", name, state)
		}
	}
	if state, _ := stateOf(t, append([]byte("\xFF\xD8\xFF\xE1\x00\x20Exif\x00\x00MM\x00*\xFF\xFF\xFF\xFFxxxxxxxxxxxxxxxx"), photo[2:]...)); state != whole {
		t.Errorf("with broken EXIF: state %d", state)
	}
}

// Every photo of real cameras in the samples of our EXIF library is whole, or was cut down to its head by who collected it.
func TestCameraFilesAreWhole(t *testing.T) {
	t.Parallel()
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/bep/imagemeta").Output()
	stack.Must(t, err)
	paths, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(module)), "testdata", "images", "*", "*"))
	stack.Must(t, err)
	top, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(module)), "testdata", "images", "*.*"))
	stack.Must(t, err)
	sound := 0
	for _, path := range append(paths, top...) {
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			continue
		}
		rendered, err := Render(read(t, path), 1, []int{160}, DefaultMaxPixels)
		if err == nil && rendered.Partial {
			t.Errorf("%s is partial", filepath.Base(path))
		}
		if err == nil {
			sound++
		}
	}
	if sound < 50 {
		t.Errorf("only %d photos were drawn: this test would pass vacuously", sound)
	}
}

// directoryFirst is an uncompressed TIFF of RGBA pixels in strips of 10 rows, its directory in front, as scanners write it.
func directoryFirst(pixels []byte, width, height int) []byte {
	const rows = 10
	strips := height / rows
	out := binary.LittleEndian.AppendUint32([]byte("II*\x00"), 8)
	entries := [][3]int{
		{tagWidth, 3, width}, {tagHeight, 3, height}, {258, 3, 8}, {tagCompression, 3, 1}, {tagPhotometric, 3, 2},
		{tagStripOffsets, 4, 0}, {277, 3, 4}, {278, 3, rows}, {tagStripLengths, 4, 0}, {338, 3, 2},
	}
	lists := 8 + 2 + 12*len(entries) + 4
	data := lists + 8*strips
	out = binary.LittleEndian.AppendUint16(out, uint16(len(entries)))
	for _, entry := range entries {
		count, value := 1, entry[2]
		switch entry[0] {
		case tagStripOffsets:
			count, value = strips, lists
		case tagStripLengths:
			count, value = strips, lists+4*strips
		}
		out = binary.LittleEndian.AppendUint16(out, uint16(entry[0]))
		out = binary.LittleEndian.AppendUint16(out, uint16(entry[1]))
		out = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(out, uint32(count)), uint32(value))
	}
	out = binary.LittleEndian.AppendUint32(out, 0)
	strip := width * 4 * rows
	for i := range strips {
		out = binary.LittleEndian.AppendUint32(out, uint32(data+i*strip))
	}
	for range strips {
		out = binary.LittleEndian.AppendUint32(out, uint32(strip))
	}
	return append(out, pixels...)
}
