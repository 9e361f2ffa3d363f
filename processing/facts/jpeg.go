package facts

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// A jpegHeader is what a JPEG says before its first pixel.
type jpegHeader struct {
	exif []byte   // from its TIFF header on
	xmp  [][]byte // at most maxPackets
	old  tags     // of the time before EXIF
	rest []byte   // a JPEG of the frame's header and the IPTC, for imagemeta
}

// readJPEGHeader collects the segments of a JPEG that are wanted (ITU-T T.81, B.1.1; EXIF 2.32, 4.7.2; XMP specification part 3, 1.1.3).
// As decoders do, it goes on at the next marker where there are bytes between two segments.
func readJPEGHeader(r io.Reader) (h jpegHeader, err error) {
	in := bufio.NewReader(r)
	h.rest, h.old = []byte{0xff, markerSOI}, tags{}
	for {
		marker, err := nextMarker(in)
		if err != nil || marker == markerSOS || marker == markerEOI {
			return h, ended(err)
		}
		if marker <= 0x01 || marker >= 0xd0 && marker <= markerSOI { // a stray byte, or a marker without a segment
			continue
		}
		var length [2]byte
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return h, ended(err)
		}
		content := make([]byte, max(2, binary.BigEndian.Uint16(length[:]))-2)
		n, err := io.ReadFull(in, content)
		h.keep(marker, length, content[:n])
		if err != nil {
			return h, ended(err)
		}
	}
}

// ended is nil for the end of a file: many photos were cut, and what came until then counts.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// xmpHeader is before the XMP of a JPEG.
const xmpHeader = "http://ns.adobe.com/xap/1.0/\x00"

const (
	markerSOI   = 0xd8
	markerEOI   = 0xd9
	markerSOS   = 0xda
	markerAPP0  = 0xe0
	markerAPP1  = 0xe1
	markerAPP12 = 0xec
	markerAPP13 = 0xed
)

// nextMarker skips what is before the next marker.
func nextMarker(in *bufio.Reader) (byte, error) {
	previous := byte(0)
	for {
		b, err := in.ReadByte()
		if err != nil || previous == 0xff && b != 0xff {
			return b, err
		}
		previous = b
	}
}

func (h *jpegHeader) keep(marker byte, length [2]byte, content []byte) {
	switch {
	case marker == markerAPP1 && bytes.HasPrefix(content, []byte("Exif\x00")) && len(content) > 6:
		if h.exif == nil {
			h.exif = content[6:]
		}
	case marker == markerAPP1:
		if packet, ok := bytes.CutPrefix(content, []byte(xmpHeader)); ok && len(h.xmp) < maxPackets {
			h.xmp = append(h.xmp, packet)
		}
	case marker == markerAPP0, marker == markerAPP12:
		h.old.keepOldTime(marker, content)
	case marker == markerAPP13 && bytes.HasPrefix(content, []byte("Photoshop 3.0\x00")), isFrame(marker):
		h.rest = append(append(append(h.rest, 0xff, marker), length[:]...), content...)
	}
}

// isFrame reports whether a segment has the image's dimensions. imagemeta knows three kinds of frames.
func isFrame(marker byte) bool { return marker >= 0xc0 && marker <= 0xc2 }
