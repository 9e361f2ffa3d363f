package corpus

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"hash/crc32"
	"slices"
)

func pngs() []File {
	return []File{
		{"67 bytes that claim a terapixel.png", "image/png", newPNG(1_000_000, 1_000_000, 8, 2, 0, deflated(nil)), []string{TooLarge}},
		{"30000² of one bit.png", "image/png", newPNG(30_000, 30_000, 1, 0, 0, deflatedZeros(30_000*(30_000/8+1))), []string{TooLarge}},
		{"30000² of one bit, interlaced.png", "image/png", newPNG(30_000, 30_000, 1, 0, 1, deflatedZeros(interlaced(30_000))), []string{TooLarge}},
		{"12000² of one bit, interlaced.png", "image/png", newPNG(12_000, 12_000, 1, 0, 1, deflatedZeros(interlaced(12_000))), []string{Drawn, Limited, TooLarge}},
		{"9000² of 16 bit RGBA.png", "image/png", newPNG(9000, 9000, 16, 6, 0, deflatedZeros(9000*(9000*8+1))), []string{Drawn, Limited, TooLarge}},
		{"one row of a hundred million.png", "image/png", newPNG(100_000_000, 1, 8, 0, 0, nil), []string{Unreadable, Unsupported, TooLarge, Limited}},
		{"no side at all.png", "image/png", newPNG(0, 0, 8, 2, 0, nil), []string{Unreadable}},
		{"negative side.png", "image/png", newPNG(0xFFFF_FFFF, 0xFFFF_FFFF, 8, 2, 0, nil), []string{Unreadable, TooLarge}},
		{"no data.png", "image/png", newPNG(64, 64, 8, 2, 0, nil), []string{Unreadable}},
		{"a quarter of a gigabyte of text.png", "image/png", textPNG(), []string{Drawn, Limited, Unreadable}},
		{"a profile that unpacks to a quarter of a gigabyte.png", "image/png", profilePNG(), []string{Drawn, Limited, Unreadable}},
	}
}

// newPNG puts one together (PNG, third edition, 5); pixels are its filtered rows, compressed, or nil for none.
func newPNG(width, height uint32, depth, colour, interlace byte, pixels []byte, more ...[]byte) []byte {
	header := append(be32(nil, width, height), depth, colour, 0, 0, interlace)
	chunks := [][]byte{[]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", header)}
	chunks = append(chunks, more...)
	if pixels != nil {
		chunks = append(chunks, chunk("IDAT", pixels))
	}
	return slices.Concat(append(chunks, chunk("IEND", nil))...)
}

func chunk(name string, data []byte) []byte {
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
	return newPNG(1, 1, 8, 2, 0, onePixel(), chunk("zTXt", append([]byte("XML:com.adobe.xmp\x00\x00"), deflatedZeros(1<<28)...)))
}

func profilePNG() []byte {
	return newPNG(1, 1, 8, 2, 0, onePixel(), chunk("iCCP", append([]byte("p3\x00\x00"), deflatedZeros(1<<28)...)))
}
