package facts

import (
	"encoding/binary"
	"errors"
	"io"
)

// eachBox calls found with the name of each box between two places of a file, and where its content is (ISO/IEC 14496-12, 4.2). It ends
// at what is no box: there the file was cut, or a list of QuickTime ends. A box that goes on beyond its container is cut.
func eachBox(r io.ReadSeeker, from, to int64, found func(name string, from, to int64) error) error {
	for at := from; to-at >= 8; {
		if _, err := r.Seek(at, io.SeekStart); err != nil {
			return err
		}
		var head [16]byte
		n, err := io.ReadFull(r, head[:min(16, to-at)])
		if n < 8 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return ended(err)
		}
		size, behind := int64(binary.BigEndian.Uint32(head[:])), int64(8)
		switch size {
		case 0:
			size = to - at
		case 1:
			size, behind = int64(binary.BigEndian.Uint64(head[8:])), 16
		}
		if size < behind {
			return nil
		}
		size = min(size, to-at)
		if err := found(string(head[4:8]), at+min(behind, size), at+size); err != nil {
			return err
		}
		at += size
	}
	return nil
}

// boxContent reads a box that is looked at as a whole: of a longer one, nothing.
func boxContent(r io.ReadSeeker, from, to int64) (cursor, error) {
	if to-from > maxChunk {
		return nil, nil
	}
	content, err := readAt(r, from, to-from)
	return content, ended(err)
}
