package corpus

func tiffs() []File {
	const side = 0xFFFF_FFFF
	return []File{
		{"sides of four billion.tif", "image/tiff", tiff(side, side, 1, 8, 1), []string{TooLarge, Unreadable}},
		{"a gigapixel without data.tif", "image/tiff", tiff(32_000, 32_000, 1, 8, 1), []string{TooLarge}},
		{"strips beyond the end.tif", "image/tiff", tiff(640, 480, 1, 0x7FFF_FFFF, 640*480), []string{Unreadable, Partial}},
		{"no strips.tif", "image/tiff", tiff(640, 480, 1, 0, 0), []string{Unreadable, Partial}},
		{"a directory that is its own next.tif", "image/tiff", ownNext(), []string{Drawn, Partial, Unreadable}},
		{"thirty thousand samples a pixel.tif", "image/tiff", tiff(64, 64, 30_000, 8, 64*64), []string{Unreadable, Unsupported, Drawn, Partial, TooLarge, Limited}},
		{"a directory of 65535 tags that are not there.tif", "image/tiff", le16(le32([]byte("II*\x00"), 8), 65_535), []string{Unreadable}},
		{"big and far away.tif", "image/tiff", append([]byte("II+\x00\x08\x00\x00\x00"), 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F), []string{Unreadable, Unsupported, NotAllowed, Mismatch}},
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
