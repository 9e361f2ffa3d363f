package corpus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

func jpegs(photo []byte) []File {
	return []File{
		{"four gigapixels.jpg", "image/jpeg", claiming(photo, 65_500, 65_500), []string{TooLarge}},
		{"no height.jpg", "image/jpeg", claiming(photo, 1200, 0), []string{Unreadable, Unsupported}},
		{"higher than its data.jpg", "image/jpeg", claiming(photo, binary.BigEndian.Uint16(photo[frameOf(photo)+7:]), 60_000), []string{Partial, Unreadable, TooLarge, Limited}},
		{"six thousand scans.jpg", "image/jpeg", scans(6_000), []string{Drawn, Partial, Limited, Unreadable, Unsupported}},
		{"a circle of directories.jpg", "image/jpeg", withSegment(photo, 0xE1, circle()), []string{Drawn}},
		{"a tag of 64 GB.jpg", "image/jpeg", withSegment(photo, 0xE1, hugeTag()), []string{Drawn}},
		{"a billion laughs in XMP.jpg", "image/jpeg", withSegment(photo, 0xE1, laughs()), []string{Drawn}},
		{"thousands of tags.jpg", "image/jpeg", withSegment(photo, 0xE1, manyTags()), []string{Drawn}},
		{"a profile of nothing.jpg", "image/jpeg", withSegment(photo, 0xE2, append([]byte("ICC_PROFILE\x00\x01\x01"), bytes.Repeat([]byte{0xFF}, 4000)...)), []string{Drawn}},
		{"a profile in 255 parts, one there.jpg", "image/jpeg", withSegment(photo, 0xE2, append([]byte("ICC_PROFILE\x00\x07\xFF"), zeros(4000)...)), []string{Drawn}},
		{"ten thousand comments.jpg", "image/jpeg", withSegments(photo, 10_000), []string{Drawn}},
		{"a video behind it.jpg", "image/jpeg", append(slices.Clone(photo), mp4(zeros(1<<20))...), []string{Drawn}},
		{"only its first bytes.jpg", "image/jpeg", photo[:200], []string{Unreadable}},
		{"two starts.jpg", "image/jpeg", append([]byte{0xFF, 0xD8}, photo...), []string{Drawn, Partial, Unreadable}},
	}
}

// frameOf finds the SOF0 of a baseline JPEG (ITU-T T.81, B.2.2).
func frameOf(jpeg []byte) int { return bytes.Index(jpeg, []byte{0xFF, 0xC0}) }

// claiming is the photo with other dimensions in its frame header.
func claiming(photo []byte, width, height uint16) []byte {
	out, at := slices.Clone(photo), frameOf(photo)
	binary.BigEndian.PutUint16(out[at+5:], height)
	binary.BigEndian.PutUint16(out[at+7:], width)
	return out
}

// withSegment puts a segment behind the start of the image.
func withSegment(photo []byte, marker byte, data []byte) []byte {
	head := binary.BigEndian.AppendUint16([]byte{0xFF, marker}, uint16(len(data)+2))
	return slices.Concat(photo[:2], head, data, photo[2:])
}

func withSegments(photo []byte, n int) []byte {
	return slices.Concat(photo[:2], bytes.Repeat([]byte{0xFF, 0xFE, 0, 6, 'x', 'x', 'x', 'x'}, n), photo[2:])
}

// tiffHead is EXIF's beginning, with the first directory at 8.
func tiffHead() []byte { return le32([]byte("Exif\x00\x00II*\x00"), 8) }

// circle has a directory whose next one is itself, and an EXIF directory that is it as well.
func circle() []byte {
	out := le16(tiffHead(), 1, 0x8769, 4)
	return le32(out, 1, 8, 8)
}

// hugeTag announces a description of 64 GB.
func hugeTag() []byte {
	out := le16(tiffHead(), 2, 0x010E, 12)
	out = le32(out, 0xFFFF_FFFF, 26)
	out = le16(out, 0x9286, 7)
	return le32(out, 0xFFFF_FFF0, 26, 0)
}

// manyTags is a directory of 5,000 tags whose values lie over one another.
func manyTags() []byte {
	const n = 5000
	out := le16(tiffHead(), n)
	for i := range n {
		out = le16(out, uint16(0x9000+i), 2)
		out = le32(out, 4000, 8)
	}
	return le32(out, 0)
}

// laughs is XMP with entities that unfold to a billion.
func laughs() []byte {
	var out strings.Builder
	out.WriteString("http://ns.adobe.com/xap/1.0/\x00<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a0 \"ha\">")
	for i := range 12 {
		fmt.Fprintf(&out, `<!ENTITY a%d "%s">`, i+1, strings.Repeat(fmt.Sprintf("&a%d;", i), 10))
	}
	out.WriteString(`<!ENTITY file SYSTEM "file:///etc/passwd">]><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">` +
		`<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="&a12;&file;"/></rdf:RDF></x:xmpmeta>`)
	return []byte(out.String())
}

// scans is a grey progressive JPEG of 16 megapixels, each of whose scans refines all blocks by nothing (ITU-T T.81,
// G.1.2.2): some 200 bytes that cost a pass over the whole picture.
func scans(n int) []byte {
	const side = 4096
	const blocks = side / 8 * (side / 8)
	segment := func(marker byte, data ...byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{0xFF, marker}, uint16(len(data)+2)), data...)
	}
	table := func(class byte, symbol byte) []byte { // one code, a 0 of one bit
		return segment(0xC4, append([]byte{class, 1}, append(zeros(15), symbol)...)...)
	}
	out := slices.Concat([]byte{0xFF, 0xD8}, segment(0xDB, append([]byte{0}, bytes.Repeat([]byte{1}, 64)...)...),
		segment(0xC2, 8, side>>8, side&0xFF, side>>8, side&0xFF, 1, 1, 0x11, 0), table(0x00, 0), table(0x10, 0xE0),
		// The DC of every block: the code for no difference.
		segment(0xDA, 1, 1, 0, 0, 0, 0), zeros(blocks/8))
	// EOB14 covers 2^14 blocks and as many more as the 14 bits behind it say.
	var w bits
	for left := blocks; left > 0; {
		run := min(left, 1<<15-1)
		if run < 1<<14 {
			break // what is left ends with the scan: a reader fills it up
		}
		w.put(0, 1)
		w.put(uint32(run-1<<14), 14)
		left -= run
	}
	scan := slices.Concat(segment(0xDA, 1, 1, 0, 1, 63, 0), w.flush())
	return slices.Concat(out, bytes.Repeat(scan, n), []byte{0xFF, 0xD9})
}

// bits writes entropy-coded data (ITU-T T.81, F.1.2.3: a zero behind each 0xFF).
type bits struct {
	out   []byte
	held  uint64
	count uint
}

func (b *bits) put(value uint32, n uint) {
	b.held, b.count = b.held<<n|uint64(value), b.count+n
	for b.count >= 8 {
		b.count -= 8
		next := byte(b.held >> b.count)
		if b.out = append(b.out, next); next == 0xFF {
			b.out = append(b.out, 0)
		}
	}
}

func (b *bits) flush() []byte {
	if b.count > 0 {
		b.put(1<<(8-b.count)-1, 8-b.count)
	}
	return b.out
}
