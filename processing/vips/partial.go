package vips

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// decoded is the part of an image that could be decoded.
type decoded struct {
	pixels
	partial bool
}

// decodeAll decodes as much of an image as there is. A part in one colour, which is how missing
// pixels look, shows nothing and is ErrUnreadable.
func (s source) decodeAll(h how) (decoded, error) {
	all, err := s.wholeOrPart(h)
	if err == nil && all.partial && all.uniform() {
		all.close()
		return decoded{}, fmt.Errorf("%w: nothing of it is left", ErrUnreadable)
	}
	return all, err
}

func (s source) wholeOrPart(h how) (decoded, error) {
	if s.kind == jpegFormat {
		return s.wholeOrPartJPEG(h)
	}
	h.strict = true
	whole, err := s.decode(h)
	if err == nil {
		return decoded{whole, false}, nil
	}
	if errors.Is(err, ErrOutOfMemory) || errors.Is(err, ErrUnsupported) {
		return decoded{}, err
	}
	h.strict = false
	if part, lenientErr := s.decode(h); lenientErr == nil {
		return decoded{part, true}, nil
	}
	return s.upperRows(h, err)
}

// wholeOrPartJPEG decodes once, because libjpeg continues after damage.
func (s source) wholeOrPartJPEG(h how) (decoded, error) {
	all, err := s.decodeJPEG(h)
	if err == nil || errors.Is(err, ErrOutOfMemory) {
		return all, err
	}
	if ended, cut := wholeSegments(s.bytes); cut {
		// libjpeg gives up on a segment that ends too early, though it may have read enough scans before it.
		if part, endedErr := (source{ended, jpegFormat}).decodeJPEG(h); endedErr == nil {
			part.partial = true
			return part, nil
		}
	}
	return decoded{}, err
}

// upperRows decodes the rows above the first that cannot be read, of an image whose decoder gives up there. why is
// the error if there are none.
func (s source) upperRows(h how, why error) (decoded, error) {
	if errors.Is(why, ErrOutOfMemory) {
		return decoded{}, why
	}
	rows, err := s.rows()
	if err != nil || rows == 0 {
		return decoded{}, why
	}
	h.rows = rows
	part, err := s.decode(h)
	if err != nil {
		return decoded{}, why
	}
	return decoded{part, true}, nil
}

// wholeSegments ends a JPEG before the marker segment that it is cut off in, if it is cut off in one.
func wholeSegments(jpeg []byte) (ended []byte, cut bool) {
	for at := 2; ; {
		next := bytes.IndexByte(jpeg[min(at, len(jpeg)):], 0xFF)
		if next < 0 {
			return nil, false
		}
		at += next
		if at+1 < len(jpeg) && !hasLength(jpeg[at+1]) {
			at++ // entropy-coded data, or fill bytes
			continue
		}
		if at+4 > len(jpeg) || at+2+int(binary.BigEndian.Uint16(jpeg[at+2:])) > len(jpeg) {
			return append(bytes.Clone(jpeg[:at]), 0xFF, 0xD9), true
		}
		at += 2 + int(binary.BigEndian.Uint16(jpeg[at+2:]))
	}
}

// hasLength is false of what stands alone behind 0xFF (ITU-T T.81, table B.1).
func hasLength(marker byte) bool {
	return marker >= 0xC0 && marker != 0xFF && (marker < 0xD0 || marker > 0xD9)
}
