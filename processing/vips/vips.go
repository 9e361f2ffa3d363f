// Package vips turns an untrusted image into small WebPs: bytes in, thumbnails out. It is the
// only package that links libvips, imports nothing of ours, and is meant to run in a
// child process without credentials. It refuses formats other than those of
// photographs, and images too large to decode, before libvips sees their pixels.
//
// A thin layer of C of our own decodes untrusted bytes and encodes the result, because bimg cannot tell a whole image from
// a damaged one, nor set libwebp's effort (docs/explanation/decisions/0019-libvips-decodes-bimg-encodes.md and
// 0041-our-own-jpeg-and-webp.md). bimg initializes libvips.
//
// The process that calls it sets VIPS_BLOCK_UNTRUSTED=1 and VIPS_CONCURRENCY=1 in its environment
// before it starts: libvips reads both once, when the program is loaded.
package vips

import (
	"cmp"
	"fmt"
	"slices"
)

// DefaultMaxPixels is the largest image decoded unless the caller says otherwise: 16,383², the
// most that a WebP or an old JPEG tool can have on both sides.
const DefaultMaxPixels = 268_402_689

// maxFrames is the limit of frames, pages or images in a file. Only the first is decoded, but the decoders look for all.
const maxFrames = 10_000

// webpQuality keeps a photo of a building site legible at 1600 pixels; a higher one doubles the bytes
// without a visible difference. Since libwebp takes less effort, 77 makes the bytes that 78 made before.
const webpQuality = 77

// Thumbnail is one rendered size. Width and Height are in pixels; Size is the long side asked for,
// which Width and Height stay below when the original is smaller.
//
// It is an alias of a plain struct, as is Rendered, so that package examine, which must build
// without cgo, can accept Render as a function value without importing this package.
type Thumbnail = struct {
	Size, Width, Height int
	WebP                []byte
}

// Rendered is an image in every size asked for, in that order. Width and Height are the
// original's, in pixels, held upright.
type Rendered = struct {
	Width, Height int
	Partial       bool   // it shows a part: the rest is missing or damaged
	Placeholder   string // ThumbHash, base64
	Thumbnails    []Thumbnail
}

// Render draws input in the given sizes (pixels of the long side, never enlarged) as WebP in
// sRGB, upright, without EXIF, XMP or ICC. orientation is the EXIF one, 1 to 8 (EXIF 2.32, 4.6.4,
// tag 0x0112); anything else means upright. It is ignored for HEIF and AVIF, whose rotation
// is a property of the file that the decoder has already applied. Of several frames or pages it draws the first, of a DNG
// the largest preview inside.
//
// The errors are ErrNotAnImage, ErrTooManyPixels (more than maxPixels; 0 means DefaultMaxPixels; or more than 10,000 frames),
// ErrUnsupported (perhaps an intact file, of a kind that this libvips cannot read), ErrUnreadable
// and ErrOutOfMemory. A image of which a part can be shown is no error, but Partial. Render may take a JPEG without
// its end for whole: the caller walks its markers.
//
// Calls wait for each other.
func Render(input []byte, orientation int, sizes []int, maxPixels int) (Rendered, error) {
	var rendered Rendered
	err := exclusively(func() (err error) {
		rendered, err = render(input, orientation, sizes, cmp.Or(maxPixels, DefaultMaxPixels))
		return err
	})
	return rendered, err
}

func render(input []byte, orientation int, sizes []int, maxPixels int) (Rendered, error) {
	from := source{input, sniff(input)}
	switch from.kind {
	case notAnImage:
		return Rendered{}, ErrNotAnImage
	case heifFormat:
		orientation = 1
	}
	from, full, err := from.resolve()
	if err != nil {
		return Rendered{}, err
	}
	claimed, err := from.readHead(maxPixels)
	if err != nil {
		return Rendered{}, err
	}
	turn := turnFor(orientation)
	width, height := turn.apply(cmp.Or(full.width, claimed.width), cmp.Or(full.height, claimed.height))
	rendered := Rendered{Width: width, Height: height}
	if len(sizes) == 0 {
		return rendered, nil
	}
	largest := slices.Max(sizes)
	original, err := from.decodeAll(how{shrink: shrinkFor(claimed, largest), size: largest, turn: turn})
	if err != nil {
		return Rendered{}, fmt.Errorf("decode the image: %w", err)
	}
	defer original.close()
	rendered.Partial = original.partial
	if rendered.Thumbnails, err = original.encodeAll(sizes); err != nil {
		return Rendered{}, err
	}
	if rendered.Placeholder, err = original.placeholder(); err != nil {
		return Rendered{}, fmt.Errorf("hash the image: %w", err)
	}
	return rendered, nil
}

// readHead reads the header only, and refuses what would decode to more than maxPixels. Frames
// do not multiply it: the first is decoded.
func (s source) readHead(maxPixels int) (head, error) {
	claimed, err := s.head()
	if err != nil {
		return head{}, fmt.Errorf("read the image's header: %w", err)
	}
	if claimed.width < 1 || claimed.height < 1 {
		return head{}, fmt.Errorf("%w: it is %d by %d pixels", ErrUnreadable, claimed.width, claimed.height)
	}
	if claimed.width > maxPixels/claimed.height {
		return head{}, fmt.Errorf("%w: %d by %d, at most %d", ErrTooManyPixels, claimed.width, claimed.height, maxPixels)
	}
	if claimed.frames > maxFrames {
		return head{}, fmt.Errorf("%w: %d frames, at most %d", ErrTooManyPixels, claimed.frames, maxFrames)
	}
	return claimed, nil
}

// shrinkFor is how much smaller libjpeg may decode a JPEG, for less than decoding it all. It averages blocks of pixels, so
// a factor of two is left for the better filter, as vips_thumbnail leaves it. libvips 8.14 aborts the process when a side
// would vanish, as with 20,000 by 3 pixels.
func shrinkFor(claimed head, size int) int {
	for _, shrink := range []int{8, 4, 2} {
		if max(claimed.width, claimed.height) >= 2*shrink*size && min(claimed.width, claimed.height) >= 2*shrink {
			return shrink
		}
	}
	return 1
}

// encodeAll makes a Thumbnail of each size, and leaves p as small as the smallest: each is scaled from the next larger one,
// which looks the same as if it were scaled from the largest, and takes half the work.
func (p *pixels) encodeAll(sizes []int) ([]Thumbnail, error) {
	thumbnails := make([]Thumbnail, len(sizes))
	descending := func(a, b int) int { return cmp.Compare(sizes[b], sizes[a]) }
	order := make([]int, len(sizes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, descending)
	for _, i := range order {
		if err := p.shrink(sizes[i]); err != nil {
			return nil, fmt.Errorf("scale the image to %d pixels: %w", sizes[i], err)
		}
		webp, err := p.webp()
		if err != nil {
			return nil, fmt.Errorf("encode the image at %d pixels: %w", sizes[i], err)
		}
		thumbnails[i] = Thumbnail{Size: sizes[i], Width: p.width(), Height: p.height(), WebP: webp}
	}
	return thumbnails, nil
}

// turning makes an image upright: first clockwise degrees, then left and right swapped.
type turning struct {
	clockwise int
	mirror    bool
}

// turnings are those of EXIF's orientations.
var turnings = [...]turning{2: {0, true}, {180, false}, {180, true}, {90, true}, {90, false}, {270, true}, {270, false}}

func turnFor(orientation int) turning {
	if orientation < 0 || orientation >= len(turnings) {
		return turning{}
	}
	return turnings[orientation]
}

func (t turning) apply(width, height int) (turnedWidth, turnedHeight int) {
	if t.clockwise%180 != 0 {
		return height, width
	}
	return width, height
}
