package vips

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The tags of TIFF 6.0 and DNG 1.7 that lead to a preview.
const (
	tagSubfileType    = 254
	tagWidth          = 256
	tagHeight         = 257
	tagCompression    = 259
	tagPhotometric    = 262
	tagStripOffsets   = 273
	tagStripLengths   = 279
	tagSubIFDs        = 330
	tagJPEGOffset     = 513
	tagJPEGLength     = 514
	tagDNGVersion     = 50706
	photometricCFA    = 32803 // raw sensor data, behind colour filters
	photometricLinear = 34892 // the same, interpolated

	// The directories of an untrusted file may lead anywhere, and form circles.
	maxIFDs       = 32
	maxIFDEntries = 1024
	maxSide       = 1 << 20 // pixels, of any camera
)

// raw is the description of a DNG, by its tags.
type raw struct {
	width, height int    // of the full image, unturned; 0 if unknown
	preview       []byte // the largest JPEG inside that shows the image, or nil
	drawable      bool   // its first directory holds an image, not sensor data
}

// readDNG looks for the tags of a DNG in a TIFF, and for previews in its directories (DNG 1.7, chapter 2). It decodes nothing, and
// returns false for a TIFF that is no DNG.
func readDNG(input []byte) (raw, bool) {
	t, first, ok := openTIFF(input)
	if !ok {
		return raw{}, false
	}
	if ifd, known := t.ifd(first); !known || ifd[tagDNGVersion] == nil {
		return raw{}, false
	}
	var found raw
	largest := 0
	queue, seen := []int{first}, map[int]bool{}
	for len(queue) > 0 && len(seen) < maxIFDs {
		at := queue[0]
		queue = queue[1:]
		ifd, known := t.ifd(at)
		if !known || seen[at] {
			continue
		}
		seen[at] = true
		sensor := ifd.value(tagPhotometric) == photometricCFA || ifd.value(tagPhotometric) == photometricLinear
		if at == first {
			found.drawable = !sensor
		}
		width, height := ifd.value(tagWidth), ifd.value(tagHeight)
		if ifd.value(tagSubfileType) == 0 && 0 < width && width <= maxSide && 0 < height && height <= maxSide {
			found.width, found.height = width, height
		}
		if preview := t.preview(ifd); !sensor && preview != nil && len(preview) > largest {
			found.preview, largest = preview, len(preview)
		}
		queue = append(queue, ifd[tagSubIFDs]...)
		queue = append(queue, ifd[nextIFD]...)
	}
	return found, true
}

// resolve replaces a DNG by its preview. claimed is the full image's size.
func (s source) resolve() (from source, claimed raw, err error) {
	if s.kind != tiffFormat {
		return s, raw{}, nil
	}
	dng, is := readDNG(s.bytes)
	switch {
	case !is:
		return s, raw{}, nil
	case dng.preview != nil:
		return source{dng.preview, jpegFormat}, dng, nil
	case dng.drawable:
		return s, dng, nil
	}
	return s, raw{}, fmt.Errorf("%w: it is raw, and carries no preview", ErrUnsupported)
}

// tiffFile is a classic TIFF (TIFF 6.0, section 2).
type tiffFile struct {
	bytes []byte
	order binary.ByteOrder
}

// directory holds the first values of each tag, as far as they are whole numbers.
type directory map[int][]int

// nextIFD is no tag: it is where the next directory begins.
const nextIFD = -1

func (d directory) value(tag int) int {
	if values := d[tag]; len(values) > 0 {
		return values[0]
	}
	return 0
}

func openTIFF(input []byte) (file tiffFile, first int, ok bool) {
	file.bytes = input
	switch {
	case bytes.HasPrefix(input, []byte("II*\x00")):
		file.order = binary.LittleEndian
	case bytes.HasPrefix(input, []byte("MM\x00*")):
		file.order = binary.BigEndian
	default:
		return file, 0, false
	}
	at, ok := file.number(4, 4)
	return file, at, ok
}

// number reads an unsigned number of 1, 2 or 4 bytes.
func (f tiffFile) number(at, size int) (int, bool) {
	if at < 0 || at > len(f.bytes)-size {
		return 0, false
	}
	switch size {
	case 1:
		return int(f.bytes[at]), true
	case 2:
		return int(f.order.Uint16(f.bytes[at:])), true
	}
	return int(f.order.Uint32(f.bytes[at:])), true
}

func (f tiffFile) ifd(at int) (directory, bool) {
	count, ok := f.number(at, 2)
	if !ok || count == 0 || count > maxIFDEntries {
		return nil, false
	}
	found := directory{}
	for entry := at + 2; entry < at+2+12*count; entry += 12 {
		tag, ok := f.number(entry, 2)
		if !ok {
			return nil, false
		}
		if values := f.values(entry); values != nil {
			found[tag] = values
		}
	}
	if next, ok := f.number(at+2+12*count, 4); ok && next > 0 {
		found[nextIFD] = []int{next}
	}
	return found, true
}

// values returns the first numbers of an entry, or nil if they are none.
func (f tiffFile) values(entry int) []int {
	kind, _ := f.number(entry+2, 2)
	count, ok := f.number(entry+4, 4)
	size := map[int]int{1: 1, 3: 2, 4: 4, 13: 4}[kind] // BYTE, SHORT, LONG, IFD
	if !ok || size == 0 || count == 0 {
		return nil
	}
	at := entry + 8
	if size*count > 4 {
		if at, ok = f.number(at, 4); !ok {
			return nil
		}
	}
	var values []int
	for i := range min(count, maxIFDs) {
		value, ok := f.number(at+i*size, size)
		if !ok {
			return nil
		}
		values = append(values, value)
	}
	return values
}

// preview returns the JPEG that a directory holds in one piece, as much of it as there is, or nil.
func (f tiffFile) preview(d directory) []byte {
	at, length := d.value(tagJPEGOffset), d.value(tagJPEGLength)
	if compression := d.value(tagCompression); at == 0 && (compression == 6 || compression == 7) && len(d[tagStripOffsets]) == 1 {
		at, length = d.value(tagStripOffsets), d.value(tagStripLengths)
	}
	if at <= 0 || length <= 0 || at >= len(f.bytes) {
		return nil
	}
	jpeg := f.bytes[at:min(len(f.bytes), at+length)]
	if sniff(jpeg) != jpegFormat || lossless(jpeg) {
		return nil
	}
	return jpeg
}

// lossless reports whether a JPEG is of the kind that holds raw data (ITU-T T.81, annex H), which shows nothing.
func lossless(jpeg []byte) bool {
	for at := 2; at+4 <= len(jpeg) && jpeg[at] == 0xFF; {
		marker := jpeg[at+1]
		switch {
		case marker == 0xC3:
			return true
		case 0xC0 <= marker && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC, marker == 0xDA:
			return false
		}
		at += 2 + int(binary.BigEndian.Uint16(jpeg[at+2:]))
	}
	return false
}
