package facts

import (
	"bytes"
	"fmt"
	"io"
)

// maxPackets is how many XMP packets of a file are read: of a phone's, two.
const maxPackets = 4

// heifItems finds the EXIF of a HEIF or an AVIF, from its TIFF header on, and the XMP of all its images (ISO/IEC
// 23008-12, annex A; ISO/IEC 14496-12, 8.11). imagemeta does so, too, but a crafted EXIF makes it read a hundred
// million tags in memory, where limitedSeeker cannot stop it.
func heifItems(r io.ReadSeeker) (exif []byte, xmp [][]byte, err error) {
	content, err := metaBox(r)
	if err != nil || content == nil {
		return nil, nil, err
	}
	meta := heifMeta{places: map[uint64]itemPlace{}}
	for rest := cursor(content); len(rest) >= 8; {
		name, content := rest.box()
		switch name {
		case "iinf":
			meta.readInfos(content)
		case "iloc":
			meta.readPlaces(content)
		case "idat":
			meta.idat = content
		}
	}
	if exif, err = meta.item(r, meta.exif); err != nil {
		return nil, nil, err
	}
	if len(exif) > 0 { // preceded by how far the header is (ISO/IEC 23008-12, A.2.1)
		c := cursor(exif)
		ahead := c.uint(4)
		exif = c.skip(ahead)
	}
	for _, id := range meta.xmp {
		packet, err := meta.item(r, id)
		if err != nil {
			return exif, xmp, err
		}
		xmp = append(xmp, packet)
	}
	return exif, xmp, nil
}

// metaBox returns the content of the file's meta box behind its version, or nil if there is none.
func metaBox(r io.ReadSeeker) (content []byte, err error) {
	end, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	err = eachBox(r, 0, end, func(name string, from, to int64) error {
		if name != "meta" || to-from < 4 {
			return nil
		}
		if content, err = readAt(r, from+4, to-from-4); err != nil {
			return err
		}
		return io.EOF
	})
	return content, ended(err)
}

func readAt(r io.ReadSeeker, at, size int64) ([]byte, error) {
	if size > maxChunk {
		return nil, fmt.Errorf("%w: %d bytes at once", errMetadataTooLarge, size)
	}
	if _, err := r.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	content := make([]byte, size)
	_, err := io.ReadFull(r, content)
	return content, err
}

// heifMeta is the part of a meta box about the items that are read.
type heifMeta struct {
	exif   uint64   // the item's number, 0 for none
	xmp    []uint64 // likewise
	places map[uint64]itemPlace
	idat   []byte
}

type itemPlace struct {
	inIdat  bool
	extents [][2]uint64 // offset and length
}

func (m *heifMeta) readInfos(c cursor) {
	if c.uint(4)>>24 == 0 {
		c.uint(2) // how many; they are counted by their boxes
	} else {
		c.uint(4)
	}
	for len(c) >= 8 {
		name, info := c.box()
		version := info.uint(4) >> 24
		if name != "infe" || version < 2 {
			continue
		}
		id := info.uint(int(2 * (version - 1))) // 2 or 4 bytes
		info.uint(2)                            // protection
		switch kind := string(info.take(4)); {
		case kind == "Exif" && m.exif == 0:
			m.exif = id
		case kind == "mime" && len(m.xmp) < maxPackets:
			if _, contentType, ok := bytes.Cut(info, []byte{0}); ok && bytes.HasPrefix(contentType, []byte("application/rdf+xml\x00")) {
				m.xmp = append(m.xmp, id)
			}
		}
	}
}

func (m *heifMeta) readPlaces(c cursor) {
	version := c.uint(4) >> 24
	sizes := c.uint(2)
	offset, length, base, index := int(sizes>>12), int(sizes>>8&15), int(sizes>>4&15), int(sizes&15)
	if version == 0 {
		index = 0
	}
	number := 2
	if version >= 2 {
		number = 4
	}
	for n := c.uint(number); n > 0 && len(c) > 0; n-- {
		id := c.uint(number)
		var place itemPlace
		if version > 0 {
			method := c.uint(2) & 15
			place.inIdat = method == 1
		}
		c.uint(2) // the file: this one
		start := c.uint(base)
		for e := c.uint(2); e > 0 && len(c) > 0; e-- {
			c.uint(index)
			at := start + c.uint(offset)
			place.extents = append(place.extents, [2]uint64{at, c.uint(length)})
		}
		m.places[id] = place
	}
}

// item returns an item's content, nil for item 0.
func (m *heifMeta) item(r io.ReadSeeker, id uint64) (content []byte, err error) {
	if id == 0 {
		return nil, nil
	}
	for _, extent := range m.places[id].extents {
		at, length := extent[0], extent[1]
		if at > 1<<48 || length > maxChunk || len(content)+int(length) > maxChunk {
			return nil, errMetadataTooLarge
		}
		if m.places[id].inIdat {
			c := cursor(cursor(m.idat).skip(at))
			content = append(content, c.take(length)...)
			continue
		}
		part, err := readAt(r, int64(at), int64(length))
		if err != nil {
			return nil, err
		}
		content = append(content, part...)
	}
	return content, nil
}

// A cursor is the unread rest of a box. Numbers past its end are zero.
type cursor []byte

func (c *cursor) take(n uint64) []byte {
	taken := (*c)[:min(n, uint64(len(*c)))]
	*c = (*c)[len(taken):]
	return taken
}

// skip returns the rest behind the next n bytes.
func (c cursor) skip(n uint64) []byte {
	return c[min(n, uint64(len(c))):]
}

// uint reads a number of n bytes, at most 8.
func (c *cursor) uint(n int) (number uint64) {
	for _, b := range c.take(uint64(n)) {
		number = number<<8 | uint64(b)
	}
	return number
}

// box reads the next box. Its content may end early.
func (c *cursor) box() (name string, content cursor) {
	size := c.uint(4)
	name = string(c.take(4))
	switch size {
	case 0: // to the end
		return name, c.take(uint64(len(*c)))
	case 1:
		size = c.uint(8)
		return name, c.take(max(size, 16) - 16)
	}
	return name, c.take(max(size, 8) - 8)
}
