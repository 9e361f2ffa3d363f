package vips

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/h2non/bimg"
)

// libvips reads its environment when the program is loaded, so the tests start once more with
// the one that the child process gets.
func TestMain(m *testing.M) {
	if os.Getenv("VIPS_BLOCK_UNTRUSTED") == "" {
		environment := append(os.Environ(), "VIPS_BLOCK_UNTRUSTED=1", "VIPS_CONCURRENCY=1")
		panic(syscall.Exec("/proc/self/exe", os.Args, environment))
	}
	os.Exit(m.Run())
}

var (
	red, green = color.RGBA{200, 30, 30, 255}, color.RGBA{30, 180, 30, 255}
	blue, gold = color.RGBA{30, 30, 200, 255}, color.RGBA{220, 200, 40, 255}
)

// corners draws a picture that is red at the top left, green at the top right, blue at the
// bottom left and gold at the bottom right when it is held upright.
func corners(width, height int) *image.RGBA {
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			picture.SetRGBA(x, y, cornerColour(x < width/2, y < height/2))
		}
	}
	return picture
}

// busy is corners with a pattern too fine for a thumbnail, so that its JPEG is as large as a photo's and
// decoding it keeps libvips reading for a while.
func busy(width, height int) *image.RGBA {
	picture := corners(width, height)
	for i := range picture.Pix {
		if i%4 != 3 {
			picture.Pix[i] += byte(i*i>>3) % 24
			picture.Pix[i] -= 12
		}
	}
	return picture
}

func cornerColour(left, top bool) color.RGBA {
	switch {
	case left && top:
		return red
	case top:
		return green
	case left:
		return blue
	}
	return gold
}

// stored returns upright as a camera held in the given orientation would store it (EXIF 2.32,
// 4.6.4: which side of the scene the 0th row and the 0th column are).
func stored(upright *image.RGBA, orientation int) *image.RGBA {
	width, height := upright.Rect.Dx(), upright.Rect.Dy()
	if orientation >= 5 {
		width, height = height, width
	}
	turned := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			right, below := width-1-x, height-1-y
			at := [][2]int{{x, y}, {right, y}, {right, below}, {x, below}, {y, x}, {below, x}, {below, right}, {y, right}}[orientation-1]
			turned.SetRGBA(x, y, upright.RGBAAt(at[0], at[1]))
		}
	}
	return turned
}

func asJPEG(t *testing.T, picture image.Image) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := jpeg.Encode(&out, picture, &jpeg.Options{Quality: 92}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func asPNG(t *testing.T, picture image.Image) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// withOrientation puts an EXIF segment with nothing but the orientation behind a JPEG's SOI.
func withOrientation(photo []byte, orientation int) []byte {
	exif := append([]byte("\xFF\xE1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00"),
		byte(orientation), 0, 0, 0, 0, 0, 0)
	return slices.Concat(photo[:2], exif, photo[2:])
}

func decode(t *testing.T, webp []byte) image.Image {
	t.Helper()
	asPNG, err := bimg.Resize(webp, bimg.Options{Type: bimg.PNG, NoAutoRotate: true})
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(asPNG))
	if err != nil {
		t.Fatal(err)
	}
	return picture
}

func near(a, b color.Color, tolerance int) bool {
	ar, ag, ab, aa := a.RGBA()
	br, bg, bb, ba := b.RGBA()
	for _, pair := range [][2]uint32{{ar, br}, {ag, bg}, {ab, bb}, {aa, ba}} {
		if delta := int(pair[0]>>8) - int(pair[1]>>8); delta > tolerance || delta < -tolerance {
			return false
		}
	}
	return true
}

func checkCorners(t *testing.T, webp []byte) {
	t.Helper()
	picture := decode(t, webp)
	right, bottom := picture.Bounds().Dx(), picture.Bounds().Dy()
	for _, left := range []bool{true, false} {
		for _, top := range []bool{true, false} {
			x, y := right/8, bottom/8
			if !left {
				x = right - 1 - x
			}
			if !top {
				y = bottom - 1 - y
			}
			if got, want := picture.At(x, y), cornerColour(left, top); !near(got, want, 16) {
				t.Errorf("left=%t top=%t: colour %v, want %v", left, top, got, want)
			}
		}
	}
}

// With the collector at its most eager, every orientation comes out upright and byte for byte the
// same on each run: nothing is read from memory that was freed. Not parallel: the setting
// is the process's.
func TestOrientationsAreStableUnderAnEagerCollector(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	const rounds = 12
	for orientation := 1; orientation <= 8; orientation++ {
		t.Run(fmt.Sprint(orientation), func(t *testing.T) {
			photo := withOrientation(asJPEG(t, stored(busy(2400, 1600), orientation)), orientation)
			first, err := Render(photo, orientation, []int{480, 160}, DefaultMaxPixels)
			if err != nil {
				t.Fatal(err)
			}
			if first.Width != 2400 || first.Height != 1600 {
				t.Errorf("upright dimensions are %d by %d, want 2400 by 1600", first.Width, first.Height)
			}
			for i, want := range [][2]int{{480, 320}, {160, 107}} {
				picture := first.Pictures[i]
				bounds := decode(t, picture.WebP).Bounds()
				if [2]int{picture.Width, picture.Height} != want || bounds.Dx() != want[0] || bounds.Dy() != want[1] {
					t.Errorf("size %d is %d by %d, decoded %v, want %v", picture.Size, picture.Width, picture.Height, bounds, want)
				}
				checkCorners(t, picture.WebP)
			}
			for range rounds {
				again, err := Render(bytes.Clone(photo), orientation, []int{480, 160}, DefaultMaxPixels)
				if err != nil {
					t.Fatal(err)
				}
				for i := range again.Pictures {
					if !bytes.Equal(again.Pictures[i].WebP, first.Pictures[i].WebP) {
						t.Fatalf("size %d differs from the first run", again.Pictures[i].Size)
					}
				}
			}
		})
	}
}

// chunks lists the chunks of a WebP (RFC 9649, 2.3).
func chunks(t *testing.T, webp []byte) []string {
	t.Helper()
	if len(webp) < 12 || string(webp[:4]) != "RIFF" || string(webp[8:12]) != "WEBP" {
		t.Fatalf("not a WebP: % x", webp[:min(12, len(webp))])
	}
	var names []string
	if size := int(binary.LittleEndian.Uint32(webp[4:])); size != len(webp)-8 {
		t.Fatalf("the RIFF header says %d bytes, there are %d", size, len(webp)-8)
	}
	for at := 12; at+8 <= len(webp); {
		size := int(binary.LittleEndian.Uint32(webp[at+4:]))
		names = append(names, string(webp[at:at+4]))
		at += 8 + size + size%2
	}
	return names
}

func exiftool(t *testing.T, arguments ...string) string {
	t.Helper()
	out, err := exec.Command("exiftool", arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("exiftool %v: %v\n%s", arguments, err, out)
	}
	return string(out)
}

// No size of a photo that says where it was taken says so itself, whichever way it was held.
func TestMetadataStaysBehind(t *testing.T) {
	t.Parallel()
	for _, orientation := range []int{1, 6} {
		path := filepath.Join(t.TempDir(), "photo.jpg")
		if err := os.WriteFile(path, asJPEG(t, corners(1800, 1200)), 0o600); err != nil {
			t.Fatal(err)
		}
		exiftool(t, "-q", "-overwrite_original", "-n", "-GPSLatitude=34.6", "-GPSLatitudeRef=S", "-GPSLongitude=58.4",
			"-GPSLongitudeRef=W", "-Make=Probe", fmt.Sprintf("-Orientation=%d", orientation), "-XMP-dc:Creator=somebody", "-XMP-exif:GPSLatitude=-34.6",
			"-IPTC:City=Rosario", "-Comment=here", path)
		photo, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if head, err := bimg.Metadata(photo); err != nil || head.EXIF.GPSLatitude == "" {
			t.Fatalf("the original says no place (%v): this test would pass vacuously", err)
		}
		rendered, err := Render(photo, orientation, []int{1600, 480, 160}, DefaultMaxPixels)
		if err != nil {
			t.Fatal(err)
		}
		for _, picture := range rendered.Pictures {
			for _, chunk := range chunks(t, picture.WebP) {
				if !slices.Contains([]string{"VP8 ", "VP8L", "VP8X", "ALPH"}, chunk) {
					t.Errorf("orientation %d, size %d carries a %q chunk", orientation, picture.Size, chunk)
				}
			}
			thumbnail := filepath.Join(t.TempDir(), "thumbnail.webp")
			if err := os.WriteFile(thumbnail, picture.WebP, 0o600); err != nil {
				t.Fatal(err)
			}
			if said := exiftool(t, "-a", "-G1", "-EXIF:all", "-XMP:all", "-GPS:all", "-IPTC:all", "-ICC_Profile:all", thumbnail); strings.TrimSpace(said) != "" {
				t.Errorf("orientation %d, size %d says:\n%s", orientation, picture.Size, said)
			}
		}
	}
}

func TestSmallPicturesAreNotEnlarged(t *testing.T) {
	t.Parallel()
	rendered, err := Render(asPNG(t, corners(200, 100)), 1, []int{1600, 480, 160}, DefaultMaxPixels)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][2]int{{200, 100}, {200, 100}, {160, 80}} {
		if got := rendered.Pictures[i]; got.Width != want[0] || got.Height != want[1] {
			t.Errorf("size %d is %d by %d, want %v", got.Size, got.Width, got.Height, want)
		}
		checkCorners(t, rendered.Pictures[i].WebP)
	}
}

// A crop of a fence post, 1 by 3,000 pixels, still has a width at every size, and does not abort the
// process.
func TestThinPictures(t *testing.T) {
	t.Parallel()
	for name, photo := range map[string][]byte{
		"png": asPNG(t, corners(1, 3000)), "jpeg": asJPEG(t, corners(1, 3000)), "wide jpeg": asJPEG(t, corners(20_000, 3)),
	} {
		rendered, err := Render(photo, 1, []int{1600, 480, 160}, DefaultMaxPixels)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, picture := range rendered.Pictures {
			bounds := decode(t, picture.WebP).Bounds()
			if max(picture.Width, picture.Height) != picture.Size || bounds.Dx() != picture.Width || bounds.Dy() != picture.Height {
				t.Errorf("%s at %d is %d by %d, decoded %v", name, picture.Size, picture.Width, picture.Height, bounds)
			}
		}
	}
}

func TestTransparencySurvives(t *testing.T) {
	t.Parallel()
	picture := image.NewNRGBA(image.Rect(0, 0, 700, 500))
	for y := range 500 {
		for x := range 350 {
			picture.SetNRGBA(x, y, color.NRGBA{200, 30, 30, 255})
		}
	}
	rendered, err := Render(asPNG(t, picture), 3, []int{160}, DefaultMaxPixels)
	if err != nil {
		t.Fatal(err)
	}
	thumbnail := decode(t, rendered.Pictures[0].WebP)
	if _, _, _, alpha := thumbnail.At(10, 50).RGBA(); alpha != 0 {
		t.Errorf("the left, transparent before the turn by 180°, has alpha %d", alpha)
	}
	if !near(thumbnail.At(150, 50), red, 16) {
		t.Errorf("the right is %v, want red", thumbnail.At(150, 50))
	}
}

// Every format that phones and scanners send is drawn; HEIF is not turned a second time.
func TestFormats(t *testing.T) {
	t.Parallel()
	source := asPNG(t, corners(600, 400))
	for _, format := range []bimg.ImageType{bimg.JPEG, bimg.PNG, bimg.WEBP, bimg.TIFF, bimg.HEIF, bimg.AVIF} {
		t.Run(bimg.ImageTypes[format], func(t *testing.T) {
			t.Parallel()
			photo, err := bimg.Resize(source, bimg.Options{Type: format, Quality: 90, Speed: 8})
			if err != nil {
				t.Fatal(err)
			}
			orientation := 1
			if format == bimg.HEIF || format == bimg.AVIF {
				orientation = 6
			}
			checkRendered(t, photo, orientation)
		})
	}
	t.Run("gif", func(t *testing.T) {
		t.Parallel()
		var out bytes.Buffer
		source := corners(600, 400)
		paletted := image.NewPaletted(source.Rect, color.Palette{red, green, blue, gold})
		draw.Draw(paletted, source.Rect, source, image.Point{}, draw.Src)
		if err := gif.Encode(&out, paletted, nil); err != nil {
			t.Fatal(err)
		}
		checkRendered(t, out.Bytes(), 1)
	})
	t.Run("heif of another brand", func(t *testing.T) {
		t.Parallel()
		photo, err := bimg.Resize(source, bimg.Options{Type: bimg.HEIF, Quality: 90})
		if err != nil {
			t.Fatal(err)
		}
		copy(photo[8:12], "MiHE")
		checkRendered(t, photo, 1)
	})
	t.Run("grey", func(t *testing.T) {
		t.Parallel()
		if _, err := Render(asJPEG(t, image.NewGray(image.Rect(0, 0, 600, 400))), 8, []int{160}, DefaultMaxPixels); err != nil {
			t.Error(err)
		}
	})
}

func checkRendered(t *testing.T, photo []byte, orientation int) {
	t.Helper()
	rendered, err := Render(photo, orientation, []int{480, 160}, DefaultMaxPixels)
	if err != nil {
		t.Fatal(err)
	}
	if rendered.Width != 600 || rendered.Height != 400 {
		t.Errorf("%d by %d, want 600 by 400", rendered.Width, rendered.Height)
	}
	for _, picture := range rendered.Pictures {
		checkCorners(t, picture.WebP)
	}
}
