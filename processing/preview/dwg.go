package preview

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image/png"

	"golang.org/x/image/bmp"
)

// Where a drawing has the offset of its image data (Open Design Specification for .dwg files 5.4.1, chapters on the file
// headers of R13 to R15, R2004 and R2007: "image seeker", "preview address", each at 0x0D).
const imageSeeker = 0x0D

// imageSentinel begins the image data (same, chapter on the section AcDb:Preview). Then come its size, the number of its
// entries, and of each a code, where it begins in the file and its length.
var imageSentinel = []byte{0x1F, 0x25, 0x6D, 0x07, 0xD4, 0x36, 0x28, 0x28, 0x9D, 0x57, 0xCA, 0x3F, 0x9D, 0x44, 0x10, 0x2B}

// The codes of entries. 1 is an undocumented header.
const (
	entryBMP = 2 // a device-independent bitmap, without the header of a file
	entryWMF = 3
	entryPNG = 6 // since 2013
)

const entrySize = 9

var errDWG = errors.New("the drawing's image data is invalid")

// fromDWG reads drawings of AutoCAD R14 to 2018, whose image data all have the same layout. A PNG is preferred: it is
// the larger one where there are two.
func fromDWG(data []byte) ([]byte, error) {
	entries, err := dwgEntries(data)
	if err != nil {
		return nil, err
	}
	var bitmap []byte
	metafile := false
	for ; len(entries) >= entrySize; entries = entries[entrySize:] {
		switch entries[0] {
		case entryPNG:
			if picture, err := cut(data, entries[1:]); err != nil || len(picture) > 0 {
				return picture, err
			}
		case entryBMP:
			if bitmap, err = cut(data, entries[1:]); err != nil {
				return nil, err
			}
		case entryWMF:
			metafile = true
		}
	}
	switch {
	case len(bitmap) > 0:
		return pngOf(bitmap)
	case metafile:
		return nil, ErrFormat
	}
	return nil, nil
}

// dwgEntries returns the table of the image data, or nothing if the drawing has none.
func dwgEntries(data []byte) ([]byte, error) {
	if len(data) < imageSeeker+4 {
		return nil, nil
	}
	at := uint64(binary.LittleEndian.Uint32(data[imageSeeker:]))
	if at == 0 {
		return nil, nil
	}
	const head = 16 + 4 + 1 // sentinel, size, number of entries
	if at+head > uint64(len(data)) || !bytes.Equal(data[at:at+16], imageSentinel) {
		return nil, fmt.Errorf("%w: no sentinel at %d", errDWG, at)
	}
	table := data[at+head:]
	return table[:min(len(table), entrySize*int(data[at+head-1]))], nil
}

// cut returns the bytes that an entry points at, once its numbers are checked.
func cut(data, entry []byte) ([]byte, error) {
	start, length := uint64(binary.LittleEndian.Uint32(entry)), uint64(binary.LittleEndian.Uint32(entry[4:]))
	if start+length > uint64(len(data)) {
		return nil, fmt.Errorf("%w: %d bytes at %d, of %d", errDWG, length, start, len(data))
	}
	if length > Limit {
		return nil, ErrTooLarge
	}
	return data[start : start+length], nil
}

// pngOf puts before a device-independent bitmap the header that makes it a file (MS-WMF 2.2.2.9; BITMAPFILEHEADER of the
// Windows API), and makes it a PNG, because libvips reads no BMP.
func pngOf(dib []byte) ([]byte, error) {
	const fileHeader, infoHeader = 14, 40
	if len(dib) < infoHeader {
		return nil, fmt.Errorf("%w: a bitmap of %d bytes", errDWG, len(dib))
	}
	depth := binary.LittleEndian.Uint16(dib[14:])
	colours := binary.LittleEndian.Uint32(dib[32:])
	if colours == 0 && depth <= 8 {
		colours = 1 << depth
	}
	if depth > 8 {
		colours = 0
	}
	file := make([]byte, fileHeader, fileHeader+len(dib))
	copy(file, "BM")
	binary.LittleEndian.PutUint32(file[2:], uint32(cap(file)))
	binary.LittleEndian.PutUint32(file[10:], fileHeader+binary.LittleEndian.Uint32(dib)+4*colours)
	file = append(file, dib...)

	// Its pixels are not compressed: a size of more than eight a byte is false, and would be allocated first.
	config, err := bmp.DecodeConfig(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("read the drawing's bitmap: %w", err)
	}
	if config.Width < 1 || config.Height < 1 || config.Width > 8*len(dib)/config.Height {
		return nil, fmt.Errorf("%w: a bitmap of %d by %d in %d bytes", errDWG, config.Width, config.Height, len(dib))
	}
	picture, err := bmp.Decode(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("read the drawing's bitmap: %w", err)
	}
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		return nil, fmt.Errorf("write the drawing's bitmap as PNG: %w", err)
	}
	return out.Bytes(), nil
}
