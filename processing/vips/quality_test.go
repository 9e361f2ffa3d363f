package vips

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/h2non/bimg"

	"github.com/tramo/tramo/test/stack"
)

// luma is an image's brightness, 0 to 255, row by row (ITU-R BT.601).
type luma struct {
	width, height int
	at            []float64
}

func lumaOf(picture image.Image) luma {
	bounds := picture.Bounds()
	l := luma{bounds.Dx(), bounds.Dy(), make([]float64, 0, bounds.Dx()*bounds.Dy())}
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			r, g, b, _ := picture.At(x, y).RGBA()
			l.at = append(l.at, (0.299*float64(r)+0.587*float64(g)+0.114*float64(b))/257)
		}
	}
	return l
}

func (l luma) times(other luma) luma {
	product := luma{l.width, l.height, make([]float64, len(l.at))}
	for i := range l.at {
		product.at[i] = l.at[i] * other.at[i]
	}
	return product
}

// blurred is the mean of the 11 by 11 pixels around each, by a Gaussian of 1.5 pixels, where there are as many.
func (l luma) blurred() luma {
	const side, sigma = 11, 1.5
	var window [side]float64
	sum := 0.0
	for i := range window {
		window[i] = math.Exp(-float64((i-side/2)*(i-side/2)) / (2 * sigma * sigma))
		sum += window[i]
	}
	across := luma{l.width - side + 1, l.height, nil}
	for y := range across.height {
		for x := range across.width {
			mean := 0.0
			for i, weight := range window {
				mean += weight / sum * l.at[y*l.width+x+i]
			}
			across.at = append(across.at, mean)
		}
	}
	down := luma{across.width, l.height - side + 1, nil}
	for y := range down.height {
		for x := range down.width {
			mean := 0.0
			for i, weight := range window {
				mean += weight / sum * across.at[(y+i)*across.width+x]
			}
			down.at = append(down.at, mean)
		}
	}
	return down
}

// ssim is the mean structural similarity of two images of one size, 1 if they are the same (Wang, Bovik, Sheikh, Simoncelli:
// Image Quality Assessment, IEEE Transactions on Image Processing 13, 2004).
func ssim(t *testing.T, a, b image.Image) float64 {
	t.Helper()
	const c1, c2 = (0.01 * 255) * (0.01 * 255), (0.03 * 255) * (0.03 * 255)
	x, y := lumaOf(a), lumaOf(b)
	if x.width != y.width || x.height != y.height {
		t.Fatalf("%d by %d pixels beside %d by %d", x.width, x.height, y.width, y.height)
	}
	meanX, meanY, xx, yy, xy := x.blurred(), y.blurred(), x.times(x).blurred(), y.times(y).blurred(), x.times(y).blurred()
	sum := 0.0
	for i := range meanX.at {
		mx, my := meanX.at[i], meanY.at[i]
		sum += (2*mx*my + c1) * (2*(xy.at[i]-mx*my) + c2) / ((mx*mx + my*my + c1) * (xx.at[i] - mx*mx + yy.at[i] - my*my + c2))
	}
	return sum / float64(len(meanX.at))
}

// plan is what scaling spoils first: a drawing's fine lines, and rings that get finer and finer.
func plan(width, height int) *image.RGBA {
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			value := 245.0
			switch {
			case x%37 == 0, y%53 < 2, (3*x+2*y)%101 < 3, (x+5*y)%211 < 4 && x > width/2:
				value = 20
			case x < height/2 && y > height/2:
				dx, dy := float64(x-height/4), float64(y-3*height/4)
				value = 128 + 100*math.Cos((dx*dx+dy*dy)*math.Pi/float64(height))
			}
			picture.Set(x, y, color.Gray{uint8(value)})
		}
	}
	return picture
}

// formerly draws an image as record 19 had it: libvips decodes all pixels and scales them, and libwebp encodes at its default
// effort, 4. It returns the pixels, too.
func formerly(t *testing.T, photo []byte, orientation int, sizes []int) (pictures []image.Image, webps [][]byte) {
	t.Helper()
	stack.Must(t, exclusively(func() error {
		all, err := source{photo, jpegFormat}.decode(how{size: sizes[0], turn: turnFor(orientation)})
		if err != nil {
			return err
		}
		defer all.close()
		for _, size := range sizes {
			if err := all.shrink(size); err != nil {
				return err
			}
			pictures = append(pictures, all.image())
		}
		return nil
	}))
	for _, picture := range pictures {
		webp, err := bimg.Resize(asPNG(t, picture), bimg.Options{Type: bimg.WEBP, Quality: 78, NoAutoRotate: true, StripMetadata: true})
		stack.Must(t, err)
		webp, err = pixelsOnly(webp)
		stack.Must(t, err)
		webps = append(webps, webp)
	}
	return pictures, webps
}

// Thumbnails are as good as those of a full decode and libwebp's default effort: of the similarity to the unencoded pixels that
// these have, they have 98 %, in at most 10 % more bytes for all sizes of a photo.
func TestThumbnailsAreAsGoodAsTheSlowWay(t *testing.T) {
	t.Parallel()
	sizes := []int{800, 240, 80} // 2.5 times smaller, as 1,600 pixels of a photo of 12 megapixels are
	photo := func(seed uint64) []byte { return stack.Photo(stack.PhotoConfig{Width: 2000, Height: 1500, Seed: seed}) }
	drawing := asJPEG(t, plan(2000, 1500))
	for _, c := range []struct {
		name        string
		photo       []byte
		orientation int
	}{
		{"photo", photo(1), 1},
		{"photo, mirrored", photo(2), 2},
		{"photo, upside down", photo(3), 3},
		{"photo, upside down and mirrored", photo(4), 4},
		{"photo on its side and mirrored", photo(5), 5},
		{"photo on its side", photo(6), 6},
		{"photo on its other side and mirrored", photo(7), 7},
		{"photo on its other side", photo(8), 8},
		{"drawing", drawing, 1},
		{"drawing on its side", drawing, 6},
		{"progressive drawing", progressive(t, drawing), 1},
		{"photo of odd sides", stack.Photo(stack.PhotoConfig{Width: 2001, Height: 1333, Seed: 9}), 1},
		{"photo that libjpeg shrinks", stack.Photo(stack.PhotoConfig{Width: 3300, Height: 2400, Seed: 10}), 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pictures, webps := formerly(t, c.photo, c.orientation, sizes)
			rendered, err := Render(c.photo, c.orientation, sizes, DefaultMaxPixels)
			stack.Must(t, err)
			bytesNow, bytesThen := 0, 0
			for i, picture := range pictures {
				now, then := rendered.Thumbnails[i].WebP, webps[i]
				good, best := ssim(t, decode(t, now), picture), ssim(t, decode(t, then), picture)
				t.Logf("%d pixels: %d bytes (%d), SSIM %.4f (%.4f)", sizes[i], len(now), len(then), good, best)
				if good < 0.98*best {
					t.Errorf("%d pixels: SSIM %.4f, formerly %.4f", sizes[i], good, best)
				}
				bytesNow, bytesThen = bytesNow+len(now), bytesThen+len(then)
			}
			if 10*bytesNow > 11*bytesThen {
				t.Errorf("%d bytes in all sizes, formerly %d", bytesNow, bytesThen)
			}
		})
	}
}

// gradient is redder to the right and greener to the bottom, without edges.
func gradient(width, height int) *image.RGBA {
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			picture.SetRGBA(x, y, color.RGBA{uint8(100 + 60*x/width), uint8(100 + 60*y/height), 130, 255})
		}
	}
	return picture
}

// A JPEG of any kind, of any number of pixels, has the colours that libvips decodes it to.
func TestJPEGHasItsColours(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	kinds := map[string][]byte{}
	for _, side := range [][2]int{{1, 1}, {3, 2}, {7, 16}, {17, 15}, {601, 399}, {5, 900}} {
		name := fmt.Sprintf("%d by %d", side[0], side[1])
		picture := gradient(side[0], side[1])
		write(t, in(name+".png"), asPNG(t, picture))
		vipsTool(t, "jpegsave", in(name+".png"), in(name+".jpg"), "--Q", "95", "--subsample-mode", "off")
		full := read(t, in(name+".jpg"))
		kinds[name+", 4:4:4"], kinds[name+", 4:2:0"] = full, asJPEG(t, picture)
		kinds[name+", RGB"] = append([]byte("\xFF\xD8\xFF\xEE\x00\x0EAdobe\x00\x64\x00\x00\x00\x00\x00"), full[2:]...)
		vipsTool(t, "icc_transform", in(name+".png"), in("cmyk.v"), "cmyk", "--input-profile", "srgb")
		vipsTool(t, "jpegsave", in("cmyk.v"), in("cmyk.jpg"), "--Q", "95")
		kinds[name+", CMYK"] = read(t, in("cmyk.jpg"))
		grey := image.NewGray(picture.Rect)
		for i := range grey.Pix {
			grey.Pix[i] = byte(i * 255 / len(grey.Pix))
		}
		var out bytes.Buffer
		stack.Must(t, jpeg.Encode(&out, grey, nil))
		kinds[name+", grey"] = out.Bytes()
		// Some cameras say of a single component that it has two samples for each.
		doubled := bytes.Clone(out.Bytes())
		doubled[bytes.Index(doubled, []byte("\xFF\xC0"))+11] = 0x22
		kinds[name+", grey, 2 by 2"] = doubled
	}
	for _, sampling := range []string{"422", "440", "411"} {
		path := in(sampling + ".jpg")
		stack.Must(t, exec.CommandContext(t.Context(), "ffmpeg", "-loglevel", "error", "-i", in("601 by 399.png"), "-pix_fmt", "yuvj"+sampling+"p", "-q:v", "2", path).Run())
		kinds[sampling] = read(t, path)
	}
	for name, photo := range kinds {
		for _, h := range []how{{size: 1000}, {size: 240}, {size: 100, turn: turnFor(6)}, {size: 50, turn: turnFor(4)}} {
			checkSameColours(t, fmt.Sprintf("%s at %d pixels", name, h.size), photo, h)
		}
	}
}

func checkSameColours(t *testing.T, name string, photo []byte, h how) {
	t.Helper()
	stack.Must(t, exclusively(func() error {
		want, err := source{photo, jpegFormat}.decode(h)
		if err != nil {
			return err
		}
		defer want.close()
		got, err := source{photo, jpegFormat}.decodeJPEG(h)
		if err != nil {
			return err
		}
		defer got.close()
		if got.width() != want.width() || got.height() != want.height() || got.bands() != want.bands() || got.partial {
			t.Errorf("%s: %d by %d by %d, partial %t, want %d by %d by %d", name, got.width(), got.height(), got.bands(), got.partial,
				want.width(), want.height(), want.bands())
			return nil
		}
		off := 0
		for i, value := range want.bytes() {
			delta := int(value) - int(got.bytes()[i])
			off += max(delta, -delta)
		}
		if mean := float64(off) / float64(len(want.bytes())); mean > 3 {
			t.Errorf("%s: a value is off by %.1f on average", name, mean)
		}
		return nil
	}))
}
