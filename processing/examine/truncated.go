package examine

import (
	"bytes"
	"encoding/binary"
)

// The markers of ITU-T T.81, table B.1, that matter here.
const (
	markerTEM = 0x01
	markerRST = 0xD0 // to 0xD7
	markerSOI = 0xD8
	markerEOI = 0xD9
)

// truncatedJPEG reports whether a JPEG ends before its end-of-image marker, as one does that was cut off on its way to the phone's
// storage. It walks the markers and decodes nothing. What follows the end, such as the video of a motion photo, does not matter.
func truncatedJPEG(jpeg []byte) bool {
	for rest := jpeg[min(2, len(jpeg)):]; ; {
		// Entropy-coded data, in which 0xFF is followed by 0 (T.81, F.1.2.3), fill bytes and garbage are skipped, as decoders do.
		next := bytes.IndexByte(rest, 0xFF)
		if next < 0 {
			return true
		}
		for rest = rest[next:]; len(rest) > 0 && rest[0] == 0xFF; {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return true
		}
		marker := rest[0]
		rest = rest[1:]
		switch {
		case marker == markerEOI:
			return false
		case marker == 0, marker == markerTEM, marker >= markerRST && marker <= markerSOI:
			continue // it stands alone; another image's start is only there by damage
		case len(rest) < 2:
			return true
		}
		rest = rest[min(max(2, int(binary.BigEndian.Uint16(rest))), len(rest)):]
	}
}

// truncatedPNG reports whether a PNG ends before the end of IEND, its last chunk (PNG, third edition, sections 5.3 and 11.2.4).
// Decoders stop at the last pixel.
func truncatedPNG(png []byte) bool {
	const signature, frame = 8, 12 // bytes: of the file, and of a chunk around its data
	rest := png[min(signature, len(png)):]
	for len(rest) >= frame && string(rest[4:8]) != "IEND" {
		rest = rest[min(frame+int(binary.BigEndian.Uint32(rest)), len(rest)):]
	}
	return len(rest) < frame
}
