package facts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
)

// imagemeta stops at the first entry of a directory that it cannot read, as if all behind it were lost; cameras write such entries.
// So what is sound is copied into a TIFF of its own, which imagemeta then reads. What no fact can come from is left out: other
// images' directories, too.

// maxIPTC is the largest IPTC in a TIFF, in bytes, that imagemeta reads.
const maxIPTC = 64 << 10

// An exifEntry is one of a directory (TIFF 6.0, section 2), with its value as it is in the file.
type exifEntry struct {
	tag, kind uint16
	count     uint32
	value     []byte
}

// The kinds of an entry.
const (
	kindText        = 2
	kindShort       = 3
	kindLong        = 4
	kindRational    = 5
	kindSigned      = 10 // rational
	kindFloat       = 11
	kindDouble      = 12
	kindIFD         = 13 // a long that leads to a directory (TIFF Technical Note 1)
	tagSubIFDs      = 0x014a
	tagXMP          = 0x02bc
	tagIPTC         = 0x83bb
	tagExif         = 0x8769
	tagGPS          = 0x8825
	tagInterop      = 0xa005
	tagLatitude     = 2 // and the following of the GPS directory (EXIF 2.32, 4.6.6)
	tagLongitude    = 4
	tagGPSTime      = 7
	tagToLatitude   = 0x14
	tagToLongitude  = 0x16
	exifHead        = 8  // bytes, before the first directory
	exifEntryLength = 12 // bytes
)

// elsewhere are the entries that lead out of a directory: imagemeta would follow them to where nothing was copied.
var elsewhere = []uint16{tagSubIFDs, tagXMP, tagExif, tagGPS, tagInterop}

// kindSizes are in bytes, by kind.
var kindSizes = [...]uint64{1: 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4}

var errNoTIFF = errors.New("it does not begin as a TIFF")

// An exifSource is where EXIF is read from: at the beginning is a TIFF's header.
type exifSource struct {
	r     io.ReadSeeker
	order interface {
		binary.ByteOrder
		binary.AppendByteOrder
	}
	left    int // entries that may still be kept
	tooMany bool
}

// soundEXIF returns what is sound of the EXIF in r, as a TIFF, and the packet of XMP that is in its first directory. tooMany says that
// there are more entries than are kept.
func soundEXIF(r io.ReadSeeker) (exif, xmp []byte, tooMany bool, err error) {
	s := exifSource{r: r, left: maxTags}
	head := s.read(0, exifHead)
	switch {
	case len(head) < exifHead:
		return nil, nil, false, errNoTIFF
	case bytes.HasPrefix(head, []byte("MM")):
		s.order = binary.BigEndian
	case bytes.HasPrefix(head, []byte("II")):
		s.order = binary.LittleEndian
	default:
		return nil, nil, false, errNoTIFF
	}
	var first, camera, gps []exifEntry
	for _, e := range s.directory(s.order.Uint32(head[4:])) {
		switch e.tag {
		case tagXMP:
			xmp = e.value
		case tagExif:
			camera = append(camera, s.directory(s.leadsTo(e))...)
		case tagGPS:
			gps = append(gps, s.definedGPS(s.directory(s.leadsTo(e)))...)
		}
		first = append(first, e)
	}
	for _, entries := range []*[]exifEntry{&first, &camera, &gps} {
		*entries = slices.DeleteFunc(*entries, func(e exifEntry) bool { return slices.Contains(elsewhere, e.tag) })
	}
	return s.write(head, first, camera, gps), xmp, s.tooMany, nil
}

// read returns the bytes that there are.
func (s *exifSource) read(at uint32, size uint64) []byte {
	if _, err := s.r.Seek(int64(at), io.SeekStart); err != nil {
		return nil
	}
	content := make([]byte, size)
	n, _ := io.ReadFull(s.r, content)
	return content[:n]
}

// directory returns the entries of a directory that can be read. It may be cut off.
func (s *exifSource) directory(at uint32) (entries []exifEntry) {
	if at < exifHead {
		return nil
	}
	number := s.read(at, 2)
	if len(number) < 2 {
		return nil
	}
	table := s.read(at+2, exifEntryLength*uint64(s.order.Uint16(number)))
	for raw := range slices.Chunk(table, exifEntryLength) {
		if len(raw) < exifEntryLength {
			break
		}
		e, ok := s.entry(raw)
		if !ok {
			continue
		}
		if s.left == 0 {
			s.tooMany = true
			break
		}
		s.left--
		entries = append(entries, e)
	}
	return entries
}

// entry reads one with its value, if that is sound and no larger than what is looked at.
func (s *exifSource) entry(raw []byte) (e exifEntry, ok bool) {
	e = exifEntry{tag: s.order.Uint16(raw), kind: s.order.Uint16(raw[2:]), count: s.order.Uint32(raw[4:])}
	if e.kind == 0 || int(e.kind) >= len(kindSizes) {
		return e, false
	}
	limit := uint64(maxTagSize)
	switch e.tag {
	case tagXMP:
		limit = maxXMP
	case tagIPTC:
		limit = maxIPTC
	}
	size := kindSizes[e.kind] * uint64(e.count)
	if size == 0 || size > limit {
		return e, false
	}
	if size <= 4 {
		e.value = raw[8 : 8+size]
	} else if e.value = s.read(s.order.Uint32(raw[8:]), size); uint64(len(e.value)) < size {
		return e, false
	}
	if e.kind == kindText { // it ends at its first NUL, whatever is behind
		e.value, _, _ = bytes.Cut(e.value, []byte{0})
		e.count = uint32(len(e.value))
		return e, e.count > 0
	}
	return e, e.count > 1 || s.defined(e, 0)
}

// defined reports whether the i-th number of an entry is one: no fraction of 0, for one.
func (s *exifSource) defined(e exifEntry, i int) bool {
	switch e.kind {
	case kindRational, kindSigned:
		return s.order.Uint32(e.value[8*i+4:]) != 0
	case kindFloat:
		return finite(float64(math.Float32frombits(s.order.Uint32(e.value[4*i:])))) != nil
	case kindDouble:
		return finite(math.Float64frombits(s.order.Uint64(e.value[8*i:]))) != nil
	}
	return true
}

// leadsTo is where the directory is that an entry names, or 0.
func (s *exifSource) leadsTo(e exifEntry) uint32 {
	switch e.kind {
	case kindShort:
		return uint32(s.order.Uint16(e.value))
	case kindLong, kindIFD:
		return s.order.Uint32(e.value)
	}
	return 0
}

// definedGPS leaves out coordinates and times of which a part is undefined. Of a coordinate the seconds may be: cameras that write
// minutes with fractions write 0/0. Seconds and minutes may also be missing; imagemeta wants all three.
func (s *exifSource) definedGPS(entries []exifEntry) []exifEntry {
	return slices.DeleteFunc(entries, func(e exifEntry) bool {
		switch e.tag {
		case tagLatitude, tagLongitude, tagGPSTime, tagToLatitude, tagToLongitude:
		default:
			return false
		}
		for i := range int(min(e.count, 3)) {
			if s.defined(e, i) {
				continue
			}
			if e.tag == tagGPSTime || i < 2 || e.kind != kindRational && e.kind != kindSigned {
				return true
			}
			s.order.PutUint32(e.value[8*i:], 0)
			s.order.PutUint32(e.value[8*i+4:], 1)
		}
		return false
	})
}

// write returns a TIFF of three directories.
func (s *exifSource) write(head []byte, first, camera, gps []exifEntry) []byte {
	const pointer = 4 // bytes
	out := slices.Clone(head[:exifHead])
	s.order.PutUint16(out[2:], 42)
	s.order.PutUint32(out[4:], exifHead)
	camerasAt := exifHead + directoryLength(first) + 2*exifEntryLength
	lead := func(tag uint16, at int) exifEntry {
		return exifEntry{tag, kindLong, 1, s.order.AppendUint32(make([]byte, 0, pointer), uint32(at))}
	}
	first = append(first, lead(tagExif, camerasAt), lead(tagGPS, camerasAt+directoryLength(camera)))
	for _, entries := range [][]exifEntry{first, camera, gps} {
		out = s.appendDirectory(out, entries)
	}
	return out
}

// directoryLength is in bytes, with the values.
func directoryLength(entries []exifEntry) int {
	length := 2 + 4
	for _, e := range entries {
		length += exifEntryLength
		if len(e.value) > 4 {
			length += len(e.value)
		}
	}
	return length
}

func (s *exifSource) appendDirectory(out []byte, entries []exifEntry) []byte {
	behind := len(out) + 2 + exifEntryLength*len(entries) + 4
	out = s.order.AppendUint16(out, uint16(len(entries)))
	var values []byte
	for _, e := range entries {
		out = s.order.AppendUint16(out, e.tag)
		out = s.order.AppendUint16(out, e.kind)
		out = s.order.AppendUint32(out, e.count)
		if len(e.value) > 4 {
			out = s.order.AppendUint32(out, uint32(behind+len(values)))
			values = append(values, e.value...)
		} else {
			out = append(out, append(slices.Clone(e.value), 0, 0, 0, 0)[:4]...)
		}
	}
	return append(s.order.AppendUint32(out, 0), values...)
}
