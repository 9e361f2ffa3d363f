// Package vips turns a stranger's picture into small WebPs: bytes in, pictures out. It is the
// only place that links libvips (through bimg), imports nothing of ours, and is meant to run in a
// child process without credentials. It refuses everything that is not a photograph's format,
// and pictures too large to decode, before libvips sees their pixels.
//
// The process that calls it sets VIPS_BLOCK_UNTRUSTED=1 and VIPS_CONCURRENCY=1 in its environment
// before it starts: libvips reads both once, when the program is loaded.
package vips

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"

	"github.com/h2non/bimg"
)

// DefaultMaxPixels is the largest picture decoded unless the caller says otherwise: 16,383², the
// most that a WebP or an old JPEG tool can have on both sides.
const DefaultMaxPixels = 268_402_689

// webpQuality is what a photo of a building site needs to be read at 1600 pixels; higher doubles
// the bytes for nothing a person sees.
const webpQuality = 78

// intermediateQuality keeps the one lossy step before WebP invisible. From 90 on libvips also
// stops subsampling the colours.
const intermediateQuality = 95

// Picture is one rendered size. Width and Height are in pixels; Size is the long side asked for,
// which Width and Height stay below when the original is smaller.
//
// It is an alias of a plain struct, as is Rendered, so that package processing, which must build
// without cgo, can accept Render as a function value without importing this package.
type Picture = struct {
	Size, Width, Height int
	WebP                []byte
}

// Rendered is a picture in every size asked for, in that order. Width and Height are the
// original's, in pixels, held upright.
type Rendered = struct {
	Width, Height int
	Partial       bool   // it shows a part: the rest is missing or damaged
	Placeholder   string // ThumbHash, base64
	Pictures      []Picture
}

// Render draws input in the given sizes (pixels of the long side, never enlarged) as WebP in
// sRGB, upright, without EXIF, XMP or ICC. orientation is the EXIF one, 1 to 8 (EXIF 2.32, 4.6.4,
// tag 0x0112); anything else means upright. It is ignored for HEIF and AVIF, whose rotation
// is a property of the file that the decoder has already applied.
//
// The errors are ErrNotAPicture, ErrTooManyPixels (more than maxPixels; 0 means DefaultMaxPixels),
// ErrUnsupported (perhaps a sound file, in a flavour that this libvips cannot read), ErrUnreadable
// and ErrOutOfMemory. A JPEG or PNG that is cut
// off is no error: what is missing is drawn grey or black.
func Render(input []byte, orientation int, sizes []int, maxPixels int) (Rendered, error) {
	// Nothing is ever asked for twice in a process that sees one file.
	bimg.VipsCacheSetMax(0)
	bimg.VipsCacheSetMaxMem(0)

	maxPixels = cmp.Or(maxPixels, DefaultMaxPixels)

	kind := sniff(input)
	if kind == notAPicture {
		return Rendered{}, ErrNotAPicture
	}
	if kind == heif {
		input = withKnownBrand(input)
		orientation = 1
	}
	head, err := readHead(input, maxPixels)
	if err != nil {
		return Rendered{}, err
	}
	upright := turnFor(orientation).apply(head.Size)
	rendered := Rendered{Width: upright.Width, Height: upright.Height}
	if len(sizes) == 0 {
		return rendered, nil
	}

	largest := slices.Max(sizes)
	small, format, err := decodeOnce(input, head, largest)
	if err != nil {
		return Rendered{}, err
	}
	if small, err = turnUpright(small, orientation, format); err != nil {
		return Rendered{}, err
	}
	width, height := fit(upright, largest)
	for _, size := range sizes {
		picture, err := encode(small, bimg.ImageSize{Width: width, Height: height}, upright, size)
		if err != nil {
			return Rendered{}, err
		}
		rendered.Pictures = append(rendered.Pictures, picture)
	}
	return rendered, nil
}

// readHead reads the header only, and refuses what would decode to more than maxPixels. Frames
// do not multiply it: bimg decodes the first one.
func readHead(input []byte, maxPixels int) (bimg.ImageMetadata, error) {
	head, err := bimg.Metadata(input)
	runtime.KeepAlive(input)
	if err != nil {
		return bimg.ImageMetadata{}, fmt.Errorf("read the picture's header: %w", classify(err))
	}
	width, height := head.Size.Width, head.Size.Height
	if width < 1 || height < 1 {
		return bimg.ImageMetadata{}, fmt.Errorf("%w: it is %d by %d pixels", ErrUnreadable, width, height)
	}
	if width > maxPixels/height {
		return bimg.ImageMetadata{}, fmt.Errorf("%w: %d by %d, at most %d", ErrTooManyPixels, width, height, maxPixels)
	}
	return head, nil
}

// decodeOnce decodes the original the only time, to a stripped intermediate of at most size
// pixels on the long side, still unrotated. Everything later starts from it: three sizes from the
// original cost more than twice the CPU, and libvips 8.14.1 does not strip a WebP.
func decodeOnce(input []byte, head bimg.ImageMetadata, size int) ([]byte, bimg.ImageType, error) {
	width, height := fit(head.Size, size)
	options := bimg.Options{
		Width: width, Height: height, Force: true,
		NoAutoRotate:  true, // bimg 1.1.9 reads freed memory when it rotates by itself
		StripMetadata: true,
		Type:          bimg.JPEG,
		Quality:       intermediateQuality,
	}
	if head.Alpha {
		options.Type, options.Quality, options.Compression = bimg.PNG, 0, 1
	}
	if head.Profile && (head.Space == "srgb" || head.Space == "rgb16") {
		// Wide-gamut phones: dropping the profile would drop the colours. Elsewhere (CMYK, grey) libvips
		// has converted already, and bimg frees the image twice if it could not.
		options.OutputICC = "srgb"
	}
	small, err := resize(input, head.Size, options)
	if err != nil && options.OutputICC != "" {
		options.OutputICC = "" // a broken profile costs its colours, not the picture
		small, err = resize(input, head.Size, options)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("decode the picture: %w", err)
	}
	return small, options.Type, nil
}

// turnUpright is a call of its own: asked to turn and to resize at once, bimg reloads the smaller
// picture from the unturned bytes.
func turnUpright(small []byte, orientation int, format bimg.ImageType) ([]byte, error) {
	turn := turnFor(orientation)
	if turn == (turning{}) {
		return small, nil
	}
	options := bimg.Options{
		NoAutoRotate: true, Rotate: turn.clockwise, Flip: turn.mirror,
		StripMetadata: true, Type: format,
	}
	if format == bimg.PNG {
		options.Compression = 1
	} else {
		options.Quality = intermediateQuality
	}
	turned, err := process(small, options)
	if err != nil {
		return nil, fmt.Errorf("turn the picture upright: %w", err)
	}
	return turned, nil
}

func encode(small []byte, from, original bimg.ImageSize, size int) (Picture, error) {
	width, height := fit(original, size)
	webp, err := resize(small, from, bimg.Options{
		Width: width, Height: height, Force: true,
		NoAutoRotate: true, StripMetadata: true,
		Type: bimg.WEBP, Quality: webpQuality,
	})
	if err != nil {
		return Picture{}, fmt.Errorf("encode the picture at %d pixels: %w", size, err)
	}
	if webp, err = pixelsOnly(webp); err != nil {
		return Picture{}, err
	}
	return Picture{Size: size, Width: width, Height: height, WebP: webp}, nil
}

// resize brings a picture of the given dimensions to options.Width by options.Height. libvips
// shrinks both sides by one whole factor first, and aborts the process (JPEG) or fails when a side
// would vanish, which a stranger's 1 by 3,000 pixels is enough for: such a picture goes in
// steps too small for a whole factor.
func resize(input []byte, from bimg.ImageSize, options bimg.Options) ([]byte, error) {
	long, target := max(from.Width, from.Height), max(options.Width, options.Height)
	if thin := min(from.Width, from.Height)*target < 2*long; thin {
		for ; long > 2*target; long = max(from.Width, from.Height) {
			from = bimg.ImageSize{Width: (from.Width + 1) / 2, Height: (from.Height + 1) / 2}
			step := bimg.Options{Width: from.Width, Height: from.Height, Force: true, NoAutoRotate: true, Type: bimg.PNG, Compression: 1}
			var err error
			if input, err = process(input, step); err != nil {
				return nil, err
			}
		}
	}
	return process(input, options)
}

// process keeps input alive for as long as libvips reads it: bimg hands over a bare pointer, which
// libvips follows lazily, when it saves.
func process(input []byte, options bimg.Options) ([]byte, error) {
	output, err := bimg.Resize(input, options)
	runtime.KeepAlive(input)
	if err != nil {
		return nil, classify(err)
	}
	return output, nil
}

// fit returns the dimensions with a long side of at most size pixels, never enlarged, never 0.
func fit(original bimg.ImageSize, size int) (width, height int) {
	long := max(original.Width, original.Height)
	if long <= size {
		return original.Width, original.Height
	}
	scale := func(side int) int { return max(1, (side*size+long/2)/long) }
	return scale(original.Width), scale(original.Height)
}

// turning is what makes a picture upright: first clockwise degrees, then left and right swapped.
type turning struct {
	clockwise bimg.Angle
	mirror    bool
}

func turnFor(orientation int) turning {
	switch orientation {
	case 2:
		return turning{0, true}
	case 3:
		return turning{bimg.D180, false}
	case 4:
		return turning{bimg.D180, true}
	case 5:
		return turning{bimg.D90, true}
	case 6:
		return turning{bimg.D90, false}
	case 7:
		return turning{bimg.D270, true}
	case 8:
		return turning{bimg.D270, false}
	default:
		return turning{}
	}
}

func (t turning) apply(size bimg.ImageSize) bimg.ImageSize {
	if t.clockwise == bimg.D90 || t.clockwise == bimg.D270 {
		return bimg.ImageSize{Width: size.Height, Height: size.Width}
	}
	return size
}
