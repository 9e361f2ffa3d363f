package examine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// errNotJPEG means that the bytes do not begin as a JPEG does.
var errNotJPEG = errors.New("not a JPEG")

// The markers of ITU-T T.81, table B.1, that matter here.
const (
	markerTEM = 0x01
	markerRST = 0xD0 // to 0xD7
	markerSOI = 0xD8
	markerEOI = 0xD9
)

// TruncatedJPEG reports whether a JPEG ends before its end-of-image marker, as one does that was cut
// off on its way to the phone's storage. It walks the markers and decodes nothing. What follows the
// end, such as the video of a motion photo, does not matter. The error is the reader's, or says that
// it is no JPEG.
func TruncatedJPEG(r io.Reader) (bool, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	var start [2]byte
	if _, err := io.ReadFull(in, start[:]); err != nil || start != [2]byte{0xFF, markerSOI} {
		if err == nil || endOfInput(err) {
			err = errNotJPEG
		}
		return false, fmt.Errorf("read the JPEG's start: %w", err)
	}
	for {
		marker, err := nextMarker(in)
		if err == nil && marker == markerEOI {
			return false, nil
		}
		if err == nil && hasLength(marker) {
			err = skipSegment(in)
		}
		if endOfInput(err) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("walk the JPEG's markers: %w", err)
		}
	}
}

func endOfInput(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// nextMarker skips entropy-coded data, in which 0xFF is followed by 0 (T.81, F.1.2.3), fill bytes and
// garbage, as decoders do.
func nextMarker(in *bufio.Reader) (byte, error) {
	for {
		if _, err := in.ReadSlice(0xFF); errors.Is(err, bufio.ErrBufferFull) {
			continue
		} else if err != nil {
			return 0, err
		}
		marker := byte(0xFF)
		for marker == 0xFF {
			var err error
			if marker, err = in.ReadByte(); err != nil {
				return 0, err
			}
		}
		if marker != 0 {
			return marker, nil
		}
	}
}

// hasLength is false for the markers that stand alone, and for the start of another image, which
// only damage puts here.
func hasLength(marker byte) bool {
	return marker != markerTEM && (marker < markerRST || marker > markerSOI)
}

func skipSegment(in *bufio.Reader) error {
	var length [2]byte
	if _, err := io.ReadFull(in, length[:]); err != nil {
		return err
	}
	rest := int(length[0])<<8 | int(length[1])
	_, err := in.Discard(max(0, rest-len(length)))
	return err
}
