package vips

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image/jpeg"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/h2non/bimg"

	"github.com/tramo/tramo/test/stack"
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
		{"svg", []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>`), ErrNotAnImage},
		{"pdf", []byte("%PDF-1.4\n1 0 obj\n<<>>\nendobj\n"), ErrNotAnImage},
		{"postscript", []byte("%!PS-Adobe-3.0 EPSF-3.0\n"), ErrNotAnImage},
		{"mvg", []byte("push graphic-context\nviewbox 0 0 9 9\n"), ErrNotAnImage},
		{"nothing", nil, ErrNotAnImage},
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

// renderAlone names a file that the test's binary draws, in a process as small as a worker's child.
const renderAlone = "TRAMO_TEST_RENDER_ALONE"

const memoryLimit = 512 << 20

func renderInSmallProcess(path string) {
	limit := syscall.Rlimit{Cur: memoryLimit, Max: memoryLimit}
	if err := syscall.Setrlimit(syscall.RLIMIT_DATA, &limit); err != nil {
		panic(err)
	}
	input, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	rendered, err := Render(input, 1, []int{1600, 480, 160}, DefaultMaxPixels)
	state := "whole"
	var fault *Fault
	switch {
	case errors.As(err, &fault):
		state = fault.Reason()
	case err != nil:
		panic(err)
	case rendered.Partial:
		state = "partial"
	}
	fmt.Fprintln(os.Stderr, err)
	fmt.Print(state, " ", peak())
	os.Exit(0)
}

// peak is the most memory that this program had, in KiB. What wait4(2) says of a child counts its parent's from before
// the exec as well.
func peak() (kib int64) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(line, &kib); err != nil {
		panic(err)
	}
	return kib
}

// Files that claim more than they are, or are more than they seem: each has its state, within the memory that a child has.
// What is refused by its header costs next to none.
func TestHostileFilesStayWithinMemory(t *testing.T) {
	t.Parallel()
	heic, err := bimg.Resize(asPNG(t, corners(64, 64)), bimg.Options{Type: bimg.HEIF})
	stack.Must(t, err)
	claiming := func(photo []byte, side uint16) []byte {
		claims := bytes.Clone(photo)
		for _, marker := range []string{"\xFF\xC0", "\xFF\xC2"} {
			if at := bytes.Index(claims, []byte(marker)); at >= 0 {
				binary.BigEndian.PutUint16(claims[at+5:], side)
				binary.BigEndian.PutUint16(claims[at+7:], side)
			}
		}
		return claims
	}
	baseline := asJPEG(t, corners(64, 64))
	turned := progressive(t, baseline)
	for _, c := range []struct {
		name   string
		file   []byte
		states string
		small  bool // refused by its header
	}{
		{"67 bytes of PNG", pngClaiming(1_000_000, 1_000_000), "too-many-pixels", true},
		{"interlaced png of 30,000 by 30,000", interlacedPNG(t, 30_000), "too-many-pixels", true},
		{"interlaced png of 16,000 by 16,000", interlacedPNG(t, 16_000), "whole out-of-memory", false},
		{"gif of 100,000 frames", gifOf(100_000), "whole", true}, // libnsgif looks for 4,096
		{"webp of 20,000 frames", webpClaiming(9, 20_000), "too-many-pixels", true},
		{"gif of 5,000 frames", gifOf(5_000), "whole", true},
		{"gif of 65,535 by 65,535", []byte("GIF89a\xFF\xFF\xFF\xFF\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"), "whole", true}, // libnsgif disbelieves it
		{"webp of 16,384 by 16,384", webpClaiming(16_384, 1), "too-many-pixels unreadable", true},
		{"webp of 16,383 by 16,383", webpClaiming(16_383, 1), "out-of-memory unreadable", false},
		{"jpeg of 65,500 by 65,500", claiming(baseline, 65_500), "too-many-pixels", true},
		// Decoded into memory, at a quarter of its size: more threads of the test's, each with a stack, may leave too little.
		{"jpeg of 16,000 by 16,000 without pixels", claiming(baseline, 16_000), "partial unreadable out-of-memory", false},
		{"progressive jpeg of 16,000 by 16,000", claiming(turned, 16_000), "out-of-memory partial", false},
		{"heic of 60,000 by 60,000", withISPE(heic, 60_000), "too-many-pixels", true},
		{"heic of 16,000 by 16,000", withISPE(heic, 16_000), "unreadable unsupported out-of-memory whole", false},
		{"tiff of 2 billion columns", tiffClaiming(map[int]int{tagWidth: 1<<31 - 1}), "too-many-pixels unreadable", true},
		{"tiff of one strip for 16,000 rows", tiffClaiming(map[int]int{tagWidth: 16_000, tagHeight: 16_000, 278: 16_000}), "unreadable", false},
		{"tiff of 65,535 bands", tiffClaiming(map[int]int{277: 65_535}), "unreadable", true},
		{"tiff of 64 bits", tiffClaiming(map[int]int{258: 64}), "unreadable unsupported", true},
		{"tiff of strips without end", tiffClaiming(map[int]int{tagHeight: 1 << 20, 278: 1}), "unreadable", false},
		{"tiff of unknown compression", tiffClaiming(map[int]int{tagCompression: 60_000}), "unreadable unsupported", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "file")
			write(t, path, c.file)
			ctx, cancel := context.WithTimeout(t.Context(), stack.Patience)
			defer cancel()
			command := exec.CommandContext(ctx, "/proc/self/exe")
			command.Env = append(os.Environ(), renderAlone+"="+path)
			var out, said bytes.Buffer
			command.Stdout, command.Stderr = &out, &said
			if err := command.Run(); err != nil {
				t.Fatalf("%v\n%.2000s", err, said.String())
			}
			var state string
			var peak int64
			if _, err := fmt.Sscan(out.String(), &state, &peak); err != nil {
				t.Fatalf("it says %q: %v", out.String(), err)
			}
			if !slices.Contains(strings.Fields(c.states), state) {
				t.Errorf("state %q, want one of %q", state, c.states)
			}
			limit := int64(memoryLimit>>10 + 200<<10) // what is no data: libraries, and the file itself
			if c.small {
				limit = 160 << 10
			}
			t.Logf("%s: %s, %d MiB, %s", c.name, state, peak>>10, said.String())
			if peak > limit {
				t.Errorf("%d KiB at most, want %d", peak, limit)
			}
		})
	}
}

// interlacedPNG is black, 1 bit a pixel, and interlaced, so that it must be decoded whole.
func interlacedPNG(t *testing.T, side int) []byte {
	t.Helper()
	var pixels bytes.Buffer
	packed, err := zlib.NewWriterLevel(&pixels, zlib.BestSpeed)
	stack.Must(t, err)
	row := make([]byte, side/8+2)
	for range side * 15 / 8 { // rows of all seven passes, none longer than this
		if _, err := packed.Write(row); err != nil {
			t.Fatal(err)
		}
	}
	stack.Must(t, packed.Close())
	file := pngClaiming(uint32(side), uint32(side))
	head := file[:33]
	head[24], head[25], head[28] = 1, 0, 1 // 1 bit, grey, interlaced
	binary.BigEndian.PutUint32(head[29:], crc32.ChecksumIEEE(head[12:29]))
	data := append([]byte("IDAT"), pixels.Bytes()...)
	chunk := append(binary.BigEndian.AppendUint32(nil, uint32(pixels.Len())), data...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(data))
	return slices.Concat(head, chunk, file[len(file)-12:])
}

func gifOf(frames int) []byte {
	file := []byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xFF\xFF\xFF")
	for range frames {
		file = append(file, "\x21\xF9\x04\x00\x01\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00"...)
	}
	return append(file, ';')
}

// webpClaiming is an animation with a canvas as large as it claims, and frames of a pixel (RFC 9649, 2.7).
func webpClaiming(side, frames int) []byte {
	u24 := func(n int) []byte { return []byte{byte(n), byte(n >> 8), byte(n >> 16)} }
	chunk := func(name string, data ...[]byte) []byte {
		body := bytes.Join(data, nil)
		out := binary.LittleEndian.AppendUint32([]byte(name), uint32(len(body)))
		return append(append(out, body...), make([]byte, len(body)%2)...)
	}
	pixel := chunk("VP8L", []byte("\x2F\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xFE\x07\x00"))
	body := slices.Concat([]byte("WEBP"), chunk("VP8X", []byte{2, 0, 0, 0}, u24(side-1), u24(side-1)), chunk("ANIM", make([]byte, 6)),
		bytes.Repeat(chunk("ANMF", make([]byte, 12), u24(100), []byte{0}, pixel), frames))
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(len(body))), body...)
}

// withISPE makes a HEIF claim another size (ISO/IEC 23008-12, 6.5.3).
func withISPE(heic []byte, side uint32) []byte {
	claims := bytes.Clone(heic)
	for at := 0; ; {
		next := bytes.Index(claims[at:], []byte("ispe"))
		if next < 0 {
			return claims
		}
		at += next + 4
		binary.BigEndian.PutUint32(claims[at+4:], side)
		binary.BigEndian.PutUint32(claims[at+8:], side)
	}
}

// tiffClaiming has 60 by 40 pixels, apart from what it claims by the given tags.
func tiffClaiming(tags map[int]int) []byte {
	file := directoryFirst(make([]byte, 60*40*4), 60, 40)
	for entry := 10; entry < 10+12*10; entry += 12 {
		if value, claimed := tags[int(binary.LittleEndian.Uint16(file[entry:]))]; claimed {
			binary.LittleEndian.PutUint16(file[entry+2:], 4)
			binary.LittleEndian.PutUint32(file[entry+4:], 1)
			binary.LittleEndian.PutUint32(file[entry+8:], uint32(value))
		}
	}
	return file
}

func FuzzRender(f *testing.F) {
	f.Add([]byte("\xFF\xD8\xFF\xE0"))
	f.Add(pngClaiming(3, 3))
	f.Add([]byte("RIFF\x00\x00\x00\x00WEBPVP8 "))
	f.Add(gifOf(2))
	f.Add(webpClaiming(9, 2))
	f.Add(tiffClaiming(nil))
	f.Add(dng(binary.LittleEndian, []byte("\xFF\xD8\xFF\xC0\x00\x0B\x08\x00\x01\x00\x01\x01\x01\x11\x00")))
	var photo bytes.Buffer
	if err := jpeg.Encode(&photo, corners(24, 16), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(photo.Bytes())
	f.Add(photo.Bytes()[:photo.Len()-40])
	f.Fuzz(func(t *testing.T, input []byte) {
		rendered, err := Render(input, 6, []int{16}, 1<<20)
		var fault *Fault
		if err == nil && (len(rendered.Thumbnails) != 1 || rendered.Placeholder == "") || err != nil && !errors.As(err, &fault) {
			t.Errorf("%d pictures, placeholder %q, %v", len(rendered.Thumbnails), rendered.Placeholder, err)
		}
	})
}
