package vips

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/h2non/bimg"

	"github.com/tramo/tramo/test/stack"
)

// libvips reads its environment when the program is loaded, so the tests start once more with
// the one that the child process gets.
func TestMain(m *testing.M) {
	if os.Getenv("VIPS_BLOCK_UNTRUSTED") == "" {
		environment := append(os.Environ(), "VIPS_BLOCK_UNTRUSTED=1", "VIPS_CONCURRENCY=1")
		panic(syscall.Exec("/proc/self/exe", os.Args, environment))
	}
	if path := os.Getenv(renderAlone); path != "" {
		renderInSmallProcess(path)
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

// noisy is corners with noise that no compression takes away.
func noisy(width, height int) *image.RGBA {
	picture, rng := corners(width, height), rand.New(rand.NewPCG(7, 7))
	for i := range picture.Pix {
		if i%4 != 3 {
			picture.Pix[i] += byte(rng.IntN(24))
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
	stack.Must(t, jpeg.Encode(&out, picture, &jpeg.Options{Quality: 92}))
	return out.Bytes()
}

func asPNG(t *testing.T, picture image.Image) []byte {
	t.Helper()
	var out bytes.Buffer
	stack.Must(t, png.Encode(&out, picture))
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
	stack.Must(t, err)
	picture, err := png.Decode(bytes.NewReader(asPNG))
	stack.Must(t, err)
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
	checkCornersWithin(t, webp, 16)
}

func checkCornersWithin(t *testing.T, webp []byte, tolerance int) {
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
			if got, want := picture.At(x, y), cornerColour(left, top); !near(got, want, tolerance) {
				t.Errorf("left=%t top=%t: colour %v, want %v", left, top, got, want)
			}
		}
	}
}

func TestSmallPicturesAreNotEnlarged(t *testing.T) {
	t.Parallel()
	rendered, err := Render(asPNG(t, corners(200, 100)), 1, []int{1600, 480, 160}, DefaultMaxPixels)
	stack.Must(t, err)
	for i, want := range [][2]int{{200, 100}, {200, 100}, {160, 80}} {
		if got := rendered.Thumbnails[i]; got.Width != want[0] || got.Height != want[1] {
			t.Errorf("size %d is %d by %d, want %v", got.Size, got.Width, got.Height, want)
		}
		checkCorners(t, rendered.Thumbnails[i].WebP)
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
		for _, picture := range rendered.Thumbnails {
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
	stack.Must(t, err)
	thumbnail := decode(t, rendered.Thumbnails[0].WebP)
	if _, _, _, alpha := thumbnail.At(10, 50).RGBA(); alpha != 0 {
		t.Errorf("the left, transparent before the turn by 180°, has alpha %d", alpha)
	}
	if !near(thumbnail.At(150, 50), red, 16) {
		t.Errorf("the right is %v, want red", thumbnail.At(150, 50))
	}
}

// What is hidden below full transparency does not show as a dark fringe of what is not.
func TestNoFringe(t *testing.T) {
	t.Parallel()
	picture := image.NewNRGBA(image.Rect(0, 0, 600, 400))
	for i := 0; i < len(picture.Pix); i += 8 {
		copy(picture.Pix[i:], []byte{255, 255, 255, 255})
	}
	rendered, err := Render(asPNG(t, picture), 1, []int{160}, DefaultMaxPixels)
	stack.Must(t, err)
	got := color.NRGBAModel.Convert(decode(t, rendered.Thumbnails[0].WebP).At(80, 50)).(color.NRGBA)
	if got.R < 240 || got.A < 100 || got.A > 155 {
		t.Errorf("white lines are %v, want white, half transparent", got)
	}
}
