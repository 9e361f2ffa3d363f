package vips

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/h2non/bimg"
	"go.n16f.net/thumbhash"

	"github.com/tramo/tramo/test/stack"
)

// Every format that phones, cameras and scanners send is drawn, in its flavours: the first frame or page of several, the
// right way round, in its colours. HEIF is not turned a second time.
func TestFormats(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("rgb.png"), asPNG(t, corners(600, 400)))
	vipsTool(t, "bandjoin_const", in("rgb.png"), in("alpha.png"), "255")
	vipsTool(t, "colourspace", in("rgb.png"), in("deep.v"), "rgb16")
	vipsTool(t, "icc_transform", in("rgb.png"), in("cmyk.v"), "cmyk", "--input-profile", "srgb")
	vipsTool(t, "invert", in("rgb.png"), in("other.png"))
	vipsTool(t, "arrayjoin", in("rgb.png")+" "+in("other.png"), in("frames.v"), "--across", "1")
	for _, c := range []struct {
		name string
		vips []string // without the output, the third
	}{
		{"baseline.jpg", []string{"jpegsave", "rgb.png"}},
		{"progressive.jpg", []string{"jpegsave", "rgb.png", "--interlace"}},
		{"full-colour.jpg", []string{"jpegsave", "rgb.png", "--subsample-mode", "off"}},
		{"cmyk.jpg", []string{"jpegsave", "cmyk.v", "--Q", "95"}},
		{"cmyk-without-profile.jpg", []string{"jpegsave", "cmyk.v", "--Q", "95", "--strip"}},
		{"plain.png", []string{"pngsave", "rgb.png"}},
		{"palette.png", []string{"pngsave", "rgb.png", "--palette"}},
		{"interlaced.png", []string{"pngsave", "rgb.png", "--interlace"}},
		{"alpha.png", []string{"pngsave", "alpha.png", "--interlace"}},
		{"deep.png", []string{"pngsave", "deep.v"}},
		{"lossy.webp", []string{"webpsave", "rgb.png", "--Q", "90"}},
		{"lossless.webp", []string{"webpsave", "rgb.png", "--lossless"}},
		{"alpha.webp", []string{"webpsave", "alpha.png"}},
		{"animated.webp", []string{"webpsave", "frames.v", "--page-height", "400"}},
		{"still.gif", []string{"gifsave", "rgb.png"}},
		{"animated.gif", []string{"gifsave", "frames.v", "--page-height", "400"}},
		{"strips.tif", []string{"tiffsave", "rgb.png"}},
		{"tiles.tif", []string{"tiffsave", "rgb.png", "--tile"}},
		{"pyramid.tif", []string{"tiffsave", "rgb.png", "--tile", "--pyramid"}},
		{"lzw.tif", []string{"tiffsave", "rgb.png", "--compression", "lzw", "--predictor", "horizontal"}},
		{"deflate.tif", []string{"tiffsave", "rgb.png", "--compression", "deflate"}},
		{"jpeg.tif", []string{"tiffsave", "rgb.png", "--compression", "jpeg", "--tile"}},
		{"deep.tif", []string{"tiffsave", "deep.v"}},
		{"cmyk.tif", []string{"tiffsave", "cmyk.v"}},
		{"pages.tif", []string{"tiffsave", "frames.v", "--page-height", "400"}},
		{"big.tif", []string{"tiffsave", "rgb.png", "--bigtiff", "--tile"}},
		{"photo.heic", []string{"heifsave", "rgb.png", "--Q", "80"}},
		{"alpha.heic", []string{"heifsave", "alpha.png", "--Q", "80"}},
		{"photo.avif", []string{"heifsave", "rgb.png", "--compression", "av1", "--speed", "9"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), c.name)
			vipsTool(t, append([]string{c.vips[0], in(c.vips[1]), path}, c.vips[2:]...)...)
			photo, err := os.ReadFile(path)
			stack.Must(t, err)
			orientation := 1
			if filepath.Ext(c.name) == ".heic" || filepath.Ext(c.name) == ".avif" {
				orientation = 6
			}
			tolerance := 16
			if c.vips[1] == "cmyk.v" {
				tolerance = 70 // ink has no such red or green
			}
			checkRendered(t, photo, orientation, tolerance)
		})
	}
}

// What the tools do not write.
func TestOddFormats(t *testing.T) {
	t.Parallel()
	t.Run("gif by somebody else", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		source := corners(600, 400)
		paletted := image.NewPaletted(source.Rect, color.Palette{red, green, blue, gold})
		draw.Draw(paletted, source.Rect, source, image.Point{}, draw.Src)
		stack.Must(t, gif.Encode(&out, paletted, nil))
		checkRendered(t, out.Bytes(), 1, 16)
	})
	t.Run("heif of another brand", func(t *testing.T) {
		t.Parallel()
		photo, err := bimg.Resize(asPNG(t, corners(600, 400)), bimg.Options{Type: bimg.HEIF, Quality: 90})
		stack.Must(t, err)
		copy(photo[8:12], "MiHE")
		checkRendered(t, photo, 1, 16)
	})
	t.Run("grey", func(t *testing.T) {
		t.Parallel()
		grey := image.NewGray(image.Rect(0, 0, 600, 400))
		draw.Draw(grey, image.Rect(0, 0, 300, 400), image.NewUniform(color.Gray{200}), image.Point{}, draw.Src)
		rendered, err := Render(asJPEG(t, grey), 3, []int{160}, DefaultMaxPixels)
		stack.Must(t, err)
		picture := decode(t, rendered.Thumbnails[0].WebP)
		if !near(picture.At(140, 50), color.RGBA{200, 200, 200, 255}, 8) || !near(picture.At(20, 50), color.RGBA{0, 0, 0, 255}, 8) {
			t.Errorf("left %v, right %v", picture.At(20, 50), picture.At(140, 50))
		}
	})
	t.Run("ycck", func(t *testing.T) {
		t.Parallel()
		ink := color.CMYK{C: 120, M: 40, Y: 90, K: 30}
		want := flatRendered(t, flatCMYK(t, [4]byte{ink.C, ink.M, ink.Y, ink.K}))
		// Photoshop stores its CMYK upside down, and luma and chroma of the three (Adobe technical note 5116). vips turns the
		// numbers over once more as it writes.
		luma, cb, cr := color.RGBToYCbCr(ink.C, ink.M, ink.Y)
		ycck := flatCMYK(t, [4]byte{255 - luma, 255 - cb, 255 - cr, ink.K})
		adobe := bytes.Index(ycck, []byte("Adobe\x00\x64"))
		if adobe < 0 {
			t.Fatal("the JPEG has no Adobe marker")
		}
		ycck[adobe+11] = 2
		if got := flatRendered(t, ycck); !near(got, want, 8) {
			t.Errorf("colour %v, want %v as of the same CMYK", got, want)
		}
	})
}

func flatCMYK(t *testing.T, ink [4]byte) []byte {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("raw"), bytes.Repeat(ink[:], 200*100))
	vipsTool(t, "rawload", in("raw"), in("raw.v"), "200", "100", "4")
	vipsTool(t, "copy", in("raw.v"), in("cmyk.v"), "--interpretation", "cmyk")
	vipsTool(t, "jpegsave", in("cmyk.v"), in("out.jpg"), "--Q", "97", "--subsample-mode", "off")
	photo, err := os.ReadFile(in("out.jpg"))
	stack.Must(t, err)
	return photo
}

func flatRendered(t *testing.T, photo []byte) color.Color {
	t.Helper()
	rendered, err := Render(photo, 1, []int{160}, DefaultMaxPixels)
	stack.Must(t, err)
	return decode(t, rendered.Thumbnails[0].WebP).At(50, 50)
}

func checkRendered(t *testing.T, photo []byte, orientation, tolerance int) {
	t.Helper()
	rendered, err := Render(photo, orientation, []int{480, 160}, DefaultMaxPixels)
	stack.Must(t, err)
	if rendered.Width != 600 || rendered.Height != 400 || rendered.Partial {
		t.Errorf("%d by %d, partial %t, want 600 by 400, whole", rendered.Width, rendered.Height, rendered.Partial)
	}
	for _, picture := range rendered.Thumbnails {
		checkCornersWithin(t, picture.WebP, tolerance)
	}
}

// A photo in a wide gamut keeps its colours: converted to sRGB, and not merely robbed of its profile.
func TestWideGamutIsConverted(t *testing.T) {
	t.Parallel()
	want := color.RGBA{200, 60, 40, 255}
	source := filepath.Join(t.TempDir(), "source.png")
	flat := image.NewRGBA(image.Rect(0, 0, 300, 200))
	draw.Draw(flat, flat.Rect, image.NewUniform(want), image.Point{}, draw.Src)
	write(t, source, asPNG(t, flat))
	adobe := filepath.Join(t.TempDir(), "adobe.icc")
	write(t, adobe, adobeRGB())
	for _, profile := range []string{"p3", adobe} {
		for _, format := range []string{"jpg[Q=98]", "png", "tif", "webp[lossless]"} {
			t.Run(filepath.Base(profile)+" "+format, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				vipsTool(t, "icc_transform", source, filepath.Join(dir, "wide."+format), profile, "--input-profile", "srgb")
				entries, err := filepath.Glob(filepath.Join(dir, "wide.*"))
				if err != nil || len(entries) != 1 {
					t.Fatal(entries, err)
				}
				photo, err := os.ReadFile(entries[0])
				stack.Must(t, err)
				if head, err := bimg.Metadata(photo); err != nil || !head.Profile {
					t.Fatalf("the original has no profile (%v): this test would pass vacuously", err)
				}
				if robbed := decode(t, photo).At(50, 50); near(robbed, want, 8) {
					t.Fatalf("its numbers %v equal the sRGB ones: this test would pass vacuously", robbed)
				}
				if got := flatRendered(t, photo); !near(got, want, 8) {
					t.Errorf("colour %v, want %v", got, want)
				}
			})
		}
	}
}

// What a print shop sends is converted by its profile, and without one by what most printers mean: not by turning its
// numbers over, which is too bright.
func TestInkIsConverted(t *testing.T) {
	t.Parallel()
	want := color.RGBA{150, 105, 85, 255} // that ink can have
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	flat := image.NewRGBA(image.Rect(0, 0, 300, 200))
	draw.Draw(flat, flat.Rect, image.NewUniform(want), image.Point{}, draw.Src)
	write(t, in("flat.png"), asPNG(t, flat))
	vipsTool(t, "icc_transform", in("flat.png"), in("cmyk.tif"), "cmyk", "--input-profile", "srgb")
	vipsTool(t, "jpegsave", in("cmyk.tif"), in("with.jpg"), "--Q", "97")
	vipsTool(t, "jpegsave", in("cmyk.tif"), in("without.jpg"), "--Q", "97", "--strip")
	for _, name := range []string{"cmyk.tif", "with.jpg", "without.jpg"} {
		photo, err := os.ReadFile(in(name))
		stack.Must(t, err)
		if got := flatRendered(t, photo); !near(got, want, 8) {
			t.Errorf("%s: colour %v, want %v", name, got, want)
		}
	}
}

// A profile that makes no sense costs its colours, and not the picture.
func TestBrokenProfile(t *testing.T) {
	t.Parallel()
	profile := append([]byte("ICC_PROFILE\x00\x01\x01"), bytes.Repeat([]byte("x"), 300)...)
	segment := append(binary.BigEndian.AppendUint16([]byte("\xFF\xE2"), uint16(len(profile)+2)), profile...)
	photo := asJPEG(t, corners(600, 400))
	checkRendered(t, bytes.Join([][]byte{photo[:2], segment, photo[2:]}, nil), 1, 16)
}

// adobeRGB is a profile with the primaries and the gamma of Adobe RGB (1998), chromatically adapted to D50 (ICC.1:2001-04).
func adobeRGB() []byte {
	u32 := binary.BigEndian.AppendUint32
	fixed := func(out []byte, values ...float64) []byte {
		for _, value := range values {
			out = u32(out, uint32(int32(math.Round(value*65536))))
		}
		return out
	}
	xyz := func(x, y, z float64) []byte { return fixed([]byte("XYZ \x00\x00\x00\x00"), x, y, z) }
	gamma := []byte("curv\x00\x00\x00\x00\x00\x00\x00\x01\x02\x33\x00\x00") // 2.19921875
	text := append([]byte("desc\x00\x00\x00\x00\x00\x00\x00\x06Adobe\x00"), make([]byte, 80)...)
	tags := []struct {
		name string
		data []byte
	}{
		{"desc", text}, {"cprt", []byte("text\x00\x00\x00\x00none\x00\x00\x00\x00")},
		{"wtpt", xyz(0.95045, 1, 1.08905)},
		{"rXYZ", xyz(0.60974, 0.31111, 0.01947)}, {"gXYZ", xyz(0.20528, 0.62567, 0.06087)}, {"bXYZ", xyz(0.14919, 0.06322, 0.74457)},
		{"rTRC", gamma}, {"gTRC", gamma}, {"bTRC", gamma},
	}
	table, data := u32(nil, uint32(len(tags))), []byte(nil)
	for _, tag := range tags {
		table = u32(u32(append(table, tag.name...), uint32(128+4+12*len(tags)+len(data))), uint32(len(tag.data)))
		data = append(data, tag.data...)
		for len(data)%4 != 0 {
			data = append(data, 0)
		}
	}
	header := u32(nil, uint32(128+len(table)+len(data)))
	header = append(header, "\x00\x00\x00\x00\x02\x10\x00\x00mntrRGB XYZ \x07\xce\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00acsp"...)
	header = append(header, make([]byte, 28)...)
	header = fixed(header, 0.9642, 1, 0.8249)
	return bytes.Join([][]byte{header, make([]byte, 128-len(header)), table, data}, nil)
}

// dng puts a preview into a TIFF as cameras and converters do: sensor data in a directory of its own.
func dng(order binary.AppendByteOrder, previews ...[]byte) []byte {
	out := map[bool][]byte{true: []byte("II*\x00"), false: []byte("MM\x00*")}[order == binary.AppendByteOrder(binary.LittleEndian)]
	const entries = 7
	type entry struct{ tag, kind, count, value int }
	size := 2 + 12*entries + 4
	sub := 8 + size // where the list of SubIFDs is
	at := sub + 4*len(previews)*1 + 4
	data := at + size*len(previews) + size
	out = order.AppendUint32(out, 8)
	directory := func(all ...entry) {
		out = order.AppendUint16(out, uint16(len(all)))
		for _, e := range all {
			out = order.AppendUint16(order.AppendUint16(out, uint16(e.tag)), uint16(e.kind))
			out = order.AppendUint32(out, uint32(e.count))
			if e.kind == 3 {
				out = order.AppendUint16(order.AppendUint16(out, uint16(e.value)), 0)
			} else {
				out = order.AppendUint32(out, uint32(e.value))
			}
		}
		out = order.AppendUint32(out, 0)
	}
	count, list := len(previews)+1, sub
	if count == 1 {
		list = at // one fits into the entry itself
	}
	directory(entry{tagSubfileType, 4, 1, 1}, entry{tagWidth, 4, 1, 16}, entry{tagHeight, 4, 1, 16}, entry{tagCompression, 3, 1, 1},
		entry{tagPhotometric, 3, 1, photometricCFA}, entry{tagSubIFDs, 4, count, list}, entry{tagDNGVersion, 1, 4, 0x01040000})
	for i := range count {
		out = order.AppendUint32(out, uint32(at+i*size))
	}
	directory(entry{tagSubfileType, 4, 1, 0}, entry{tagWidth, 4, 1, 6000}, entry{tagHeight, 4, 1, 4000}, entry{tagCompression, 3, 1, 7},
		entry{tagPhotometric, 3, 1, photometricCFA}, entry{tagStripOffsets, 4, 1, data}, entry{tagStripLengths, 4, 1, 1})
	for _, preview := range previews {
		directory(entry{tagSubfileType, 4, 1, 1}, entry{tagWidth, 4, 1, 1}, entry{tagHeight, 4, 1, 1}, entry{tagCompression, 3, 1, 7},
			entry{tagPhotometric, 3, 1, 6}, entry{tagStripOffsets, 4, 1, data}, entry{tagStripLengths, 4, 1, len(preview)})
		data += len(preview)
	}
	return append(out, bytes.Join(previews, nil)...)
}

// A DNG is drawn by the largest of its previews, as large as its sensor says that it is.
func TestDNG(t *testing.T) {
	t.Parallel()
	small, large := asJPEG(t, image.NewGray(image.Rect(0, 0, 160, 120))), asJPEG(t, corners(1200, 800))
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			file := dng(order, small, large, small)
			rendered, err := Render(file, 3, []int{1600, 160}, DefaultMaxPixels)
			stack.Must(t, err)
			if rendered.Width != 6000 || rendered.Height != 4000 || rendered.Thumbnails[0].Width != 1200 || rendered.Partial {
				t.Errorf("%d by %d, drawn %d wide, partial %t", rendered.Width, rendered.Height, rendered.Thumbnails[0].Width, rendered.Partial)
			}
			if got := decode(t, rendered.Thumbnails[1].WebP).At(10, 10); !near(got, gold, 16) {
				t.Errorf("the top left is %v after a turn by 180°, want gold", got)
			}
			if _, err := Render(dng(order), 1, []int{160}, DefaultMaxPixels); !errors.Is(err, ErrUnsupported) {
				t.Errorf("without a preview: %v, want ErrUnsupported", err)
			}
			cut := dng(order, large)
			if rendered, err := Render(cut[:len(cut)-len(large)/2], 1, []int{160}, DefaultMaxPixels); err != nil || !rendered.Partial {
				t.Errorf("cut off in its preview: partial %t, %v", rendered.Partial, err)
			}
		})
	}
}

func FuzzDNG(f *testing.F) {
	f.Add(dng(binary.LittleEndian, []byte("\xFF\xD8\xFF\xC0")))
	f.Add(dng(binary.BigEndian, []byte("\xFF\xD8\xFF\xC3"), []byte("\xFF\xD8\xFF\xDA")))
	f.Fuzz(func(t *testing.T, input []byte) {
		found, is := readDNG(input)
		if !is && found.preview != nil || len(found.preview) > len(input) {
			t.Errorf("a preview of %d bytes", len(found.preview))
		}
	})
}

// The placeholder shows what the picture shows, coarsely.
func TestPlaceholder(t *testing.T) {
	t.Parallel()
	for _, orientation := range []int{1, 6} {
		rendered, err := Render(asJPEG(t, stored(corners(600, 400), orientation)), orientation, []int{480}, DefaultMaxPixels)
		stack.Must(t, err)
		hash, err := base64.StdEncoding.DecodeString(rendered.Placeholder)
		if err != nil || len(hash) > 25 {
			t.Fatalf("placeholder %q: %v", rendered.Placeholder, err)
		}
		coarse, err := thumbhash.DecodeImage(hash)
		stack.Must(t, err)
		right, bottom := coarse.Bounds().Dx(), coarse.Bounds().Dy()
		for _, c := range []struct {
			x, y int
			want color.Color
		}{{right / 5, bottom / 5, red}, {right * 4 / 5, bottom / 5, green}, {right / 5, bottom * 4 / 5, blue}, {right * 4 / 5, bottom * 4 / 5, gold}} {
			if got := coarse.At(c.x, c.y); !near(got, c.want, 70) {
				t.Errorf("orientation %d at %d,%d: %v, want about %v", orientation, c.x, c.y, got, c.want)
			}
		}
	}
}
