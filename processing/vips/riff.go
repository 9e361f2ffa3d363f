package vips

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// The flags of a VP8X chunk that announce metadata (RFC 9649, 2.7).
const metadataFlags = 0x20 | 0x08 | 0x04 // ICC, EXIF, XMP

// pixelsOnly returns a WebP with only the chunks that hold pixels. libvips 8.14.1 writes an EXIF chunk even
// when it is to strip metadata: with the source's GPS position, or else 200 useless bytes.
func pixelsOnly(webp []byte) ([]byte, error) {
	if len(webp) < 12 || string(webp[:4]) != "RIFF" || string(webp[8:12]) != "WEBP" {
		return nil, fmt.Errorf("%w: libvips made no WebP of it", ErrUnreadable)
	}
	kept := slices.Clone(webp[:12])
	for rest := webp[12:]; len(rest) >= 8; {
		size := 8 + int(binary.LittleEndian.Uint32(rest[4:]))
		size += size % 2
		if size > len(rest) {
			return nil, fmt.Errorf("%w: libvips made a broken WebP of it", ErrUnreadable)
		}
		switch string(rest[:4]) {
		case "VP8X":
			start := len(kept)
			kept = append(kept, rest[:size]...)
			kept[start+8] &^= metadataFlags
		case "ALPH", "VP8 ", "VP8L":
			kept = append(kept, rest[:size]...)
		}
		rest = rest[size:]
	}
	binary.LittleEndian.PutUint32(kept[4:], uint32(len(kept)-8))
	return kept, nil
}
