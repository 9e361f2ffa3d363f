package processing

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

func pngs() []hostileFile {
	return []hostileFile{
		{"67 bytes that claim a terapixel.png", "image/png", newPNG(1_000_000, 1_000_000, 8, 2, 0, deflated(nil)), []string{tooLarge}},
		{"30000² of one bit.png", "image/png", newPNG(30_000, 30_000, 1, 0, 0, deflatedZeros(30_000*(30_000/8+1))), []string{tooLarge}},
		{"30000² of one bit, interlaced.png", "image/png", newPNG(30_000, 30_000, 1, 0, 1, deflatedZeros(interlaced(30_000))), []string{tooLarge}},
		{"12000² of one bit, interlaced.png", "image/png", newPNG(12_000, 12_000, 1, 0, 1, deflatedZeros(interlaced(12_000))), []string{drawn, limited, tooLarge}},
		{"9000² of 16 bit RGBA.png", "image/png", newPNG(9000, 9000, 16, 6, 0, deflatedZeros(9000*(9000*8+1))), []string{drawn, limited, tooLarge}},
		{"one row of a hundred million.png", "image/png", newPNG(100_000_000, 1, 8, 0, 0, nil), []string{unreadable, unsupported, tooLarge, limited}},
		{"no side at all.png", "image/png", newPNG(0, 0, 8, 2, 0, nil), []string{unreadable}},
		{"negative side.png", "image/png", newPNG(0xFFFF_FFFF, 0xFFFF_FFFF, 8, 2, 0, nil), []string{unreadable, tooLarge}},
		{"no data.png", "image/png", newPNG(64, 64, 8, 2, 0, nil), []string{unreadable}},
		{"a quarter of a gigabyte of text.png", "image/png", textPNG(), []string{drawn, limited, unreadable}},
		{"a profile that unpacks to a quarter of a gigabyte.png", "image/png", profilePNG(), []string{drawn, limited, unreadable}},
	}
}

// newPNG puts one together (PNG, third edition, 5); pixels are its filtered rows, compressed, or nil for none.
func newPNG(width, height uint32, depth, colour, interlace byte, pixels []byte, more ...[]byte) []byte {
	header := append(be32(nil, width, height), depth, colour, 0, 0, interlace)
	chunks := [][]byte{[]byte("\x89PNG\r\n\x1a\n"), pngChunk("IHDR", header)}
	chunks = append(chunks, more...)
	if pixels != nil {
		chunks = append(chunks, pngChunk("IDAT", pixels))
	}
	return slices.Concat(append(chunks, pngChunk("IEND", nil))...)
}

func pngChunk(name string, data []byte) []byte {
	body := append([]byte(name), data...)
	out := append(be32(nil, uint32(len(data))), body...)
	return be32(out, crc32.ChecksumIEEE(body))
}

func deflated(data []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, _ = w.Write(data)
	_ = w.Close()
	return out.Bytes()
}

// deflatedZeros is what zlib makes of n zeros (RFC 1950), put together from one piece: to compress gigabytes takes long.
func deflatedZeros(n int) []byte {
	const modulus = 65_521 // of Adler-32, whose low half stays 1
	return be32(append([]byte{0x78, 0x01}, rawZeros(n)...), uint32(n%modulus)<<16|1)
}

// rawZeros is the same without zlib's frame (RFC 1951).
func rawZeros(n int) []byte {
	const piece = 1 << 20
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestCompression)
	_, _ = w.Write(make([]byte, piece))
	_ = w.Flush() // so that it ends with a byte, and refers to nothing before it
	whole := bytes.Repeat(out.Bytes(), n/piece)
	out.Reset()
	w.Reset(&out)
	_, _ = w.Write(make([]byte, n%piece))
	_ = w.Close()
	return append(whole, out.Bytes()...)
}

func zeros(n int) []byte { return make([]byte, n) }

// interlaced is at least as many bytes as the seven passes of a square of one bit take (PNG, 8.2).
func interlaced(side int) int { return side*(side/8+8)*2 + 64 }

func onePixel() []byte { return deflated([]byte{0, 200, 30, 30}) }

// textPNG has text that unpacks to a quarter of a gigabyte (PNG, 11.3.3.3).
func textPNG() []byte {
	return newPNG(1, 1, 8, 2, 0, onePixel(), pngChunk("zTXt", append([]byte("XML:com.adobe.xmp\x00\x00"), deflatedZeros(1<<28)...)))
}

func profilePNG() []byte {
	return newPNG(1, 1, 8, 2, 0, onePixel(), pngChunk("iCCP", append([]byte("p3\x00\x00"), deflatedZeros(1<<28)...)))
}

func gifs() []hostileFile {
	return []hostileFile{
		{"a hundred thousand frames.gif", "image/gif", gif(64, 64, slices.Repeat(frame(64, 64), 100_000)), []string{drawn, unreadable, tooLarge, limited}},
		{"a screen of four gigapixels.gif", "image/gif", gif(65_535, 65_535, frame(1, 1)), []string{tooLarge, drawn} /* libnsgif goes by the frames */},
		{"a frame larger than its screen.gif", "image/gif", gif(4, 4, frame(65_535, 65_535)), []string{drawn, partial, unreadable, unsupported, tooLarge, limited}},
		{"no frame.gif", "image/gif", gif(4, 4, nil), []string{unreadable}},
		{"a comment without end.gif", "image/gif", gif(4, 4, slices.Concat([]byte{0x21, 0xFE}, slices.Repeat(append([]byte{255}, zeros(255)...), 4096))), []string{unreadable}},
	}
}

// gif is a GIF89a with a palette of two colours.
func gif(width, height uint16, frames []byte) []byte {
	out := le16([]byte("GIF89a"), width, height)
	out = append(out, 0x80, 0, 0, 200, 30, 30, 255, 255, 255)
	return append(append(out, frames...), 0x3B)
}

// frame is one that says its first pixel and then ends (GIF89a, appendix F): the others are up to the reader.
func frame(width, height uint16) []byte {
	out := le16([]byte{0x2C}, 0, 0, width, height)
	return append(out, 0, 2, 2, 0x44, 0x01, 0)
}

func jpegs(photo []byte) []hostileFile {
	return []hostileFile{
		{"four gigapixels.jpg", "image/jpeg", claiming(photo, 65_500, 65_500), []string{tooLarge}},
		{"no height.jpg", "image/jpeg", claiming(photo, 1200, 0), []string{unreadable, unsupported}},
		{"higher than its data.jpg", "image/jpeg", claiming(photo, binary.BigEndian.Uint16(photo[frameOf(photo)+7:]), 60_000), []string{partial, unreadable, tooLarge, limited}},
		{"six thousand scans.jpg", "image/jpeg", scans(6_000), []string{drawn, partial, limited, unreadable, unsupported}},
		{"a circle of directories.jpg", "image/jpeg", withSegment(photo, 0xE1, circle()), []string{drawn}},
		{"a tag of 64 GB.jpg", "image/jpeg", withSegment(photo, 0xE1, hugeTag()), []string{drawn}},
		{"a billion laughs in XMP.jpg", "image/jpeg", withSegment(photo, 0xE1, laughs()), []string{drawn}},
		{"thousands of tags.jpg", "image/jpeg", withSegment(photo, 0xE1, manyTags()), []string{drawn}},
		{"a profile of nothing.jpg", "image/jpeg", withSegment(photo, 0xE2, append([]byte("ICC_PROFILE\x00\x01\x01"), bytes.Repeat([]byte{0xFF}, 4000)...)), []string{drawn}},
		{"a profile in 255 parts, one there.jpg", "image/jpeg", withSegment(photo, 0xE2, append([]byte("ICC_PROFILE\x00\x07\xFF"), zeros(4000)...)), []string{drawn}},
		{"ten thousand comments.jpg", "image/jpeg", withSegments(photo, 10_000), []string{drawn}},
		{"a video behind it.jpg", "image/jpeg", append(slices.Clone(photo), mp4(zeros(1<<20))...), []string{drawn}},
		{"only its first bytes.jpg", "image/jpeg", photo[:200], []string{unreadable}},
		{"two starts.jpg", "image/jpeg", append([]byte{0xFF, 0xD8}, photo...), []string{drawn, partial, unreadable}},
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

func tiffs() []hostileFile {
	const side = 0xFFFF_FFFF
	return []hostileFile{
		{"sides of four billion.tif", "image/tiff", tiff(side, side, 1, 8, 1), []string{tooLarge, unreadable}},
		{"a gigapixel without data.tif", "image/tiff", tiff(32_000, 32_000, 1, 8, 1), []string{tooLarge}},
		{"strips beyond the end.tif", "image/tiff", tiff(640, 480, 1, 0x7FFF_FFFF, 640*480), []string{unreadable, partial}},
		{"no strips.tif", "image/tiff", tiff(640, 480, 1, 0, 0), []string{unreadable, partial}},
		{"a directory that is its own next.tif", "image/tiff", ownNext(), []string{drawn, partial, unreadable}},
		{"thirty thousand samples a pixel.tif", "image/tiff", tiff(64, 64, 30_000, 8, 64*64), []string{unreadable, unsupported, drawn, partial, tooLarge, limited}},
		{"a directory of 65535 tags that are not there.tif", "image/tiff", le16(le32([]byte("II*\x00"), 8), 65_535), []string{unreadable}},
		{"big and far away.tif", "image/tiff", append([]byte("II+\x00\x08\x00\x00\x00"), 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F), []string{unreadable, unsupported, notAllowed, mismatch}},
	}
}

// tiff is one strip, uncompressed (TIFF 6.0, section 3), that says what it likes of its data.
func tiff(width, height uint32, samples uint16, offset, length uint32) []byte {
	out := le16(le32([]byte("II*\x00"), 8), 9)
	tag := func(id, kind uint16, value uint32) {
		out = le32(le16(out, id, kind), 1, value)
	}
	tag(256, 4, width)
	tag(257, 4, height)
	tag(258, 3, 8)
	tag(259, 3, 1)
	tag(262, 3, 1)
	tag(273, 4, offset)
	tag(277, 3, uint32(samples))
	tag(278, 4, height)
	tag(279, 4, length)
	return le32(out, 0)
}

func ownNext() []byte {
	out := tiff(8, 8, 1, 8, 64)
	return le32(out[:len(out)-4], 8)
}

// svgs are refused for what they are, by whatever name they come, and never drawn.
func svgs() []hostileFile {
	const open = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="100" height="100">`
	entities := `<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "` + strings.Repeat("x", 1000) + `"><!ENTITY b "` + strings.Repeat("&a;", 1000) +
		`"><!ENTITY c "` + strings.Repeat("&b;", 1000) + `">]>` + open + `<text>&c;</text></svg>`
	refused := []string{notAllowed, mismatch}
	return []hostileFile{
		{"entities that unfold.svg", "image/svg+xml", []byte(entities), refused},
		{"a file from outside.svg", "image/svg+xml", []byte(open + `<image xlink:href="file:///etc/passwd" width="100" height="100"/></svg>`), refused},
		{"a page from outside.svg", "image/svg+xml", []byte(open + `<image xlink:href="http://127.0.0.1:1/" width="9" height="9"/></svg>`), refused},
		{"a filter that never ends.svg", "image/svg+xml", []byte(open + `<filter id="f"><feGaussianBlur stdDeviation="100000"/>` +
			strings.Repeat(`<feTurbulence numOctaves="1000"/>`, 1000) + `</filter><rect filter="url(#f)" width="1e6" height="1e6"/></svg>`), refused},
		{"a script, said to be a photo.jpg", "image/jpeg", []byte(open + `<script>alert(1)</script></svg>`), refused},
		{"deeper than any stack.svg", "image/svg+xml", append([]byte(open), bytes.Repeat([]byte("<g>"), 100_000)...), refused},
		{"PostScript, said to be a photo.jpg", "image/jpeg", []byte("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"), refused},
		{"a drawing of ImageMagick's.png", "image/png", []byte("push graphic-context\nviewbox 0 0 9 9\nfill 'url(https://127.0.0.1/x\"|touch /tmp/owned\")'\npop graphic-context\n"), refused},
	}
}
