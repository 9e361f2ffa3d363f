package corpus

import (
	"bytes"
	"compress/zlib"
	"hash/crc32"
	"slices"
)

func pngs() []File {
	return []File{
		{"67 bytes that claim a terapixel.png", "image/png", png(1_000_000, 1_000_000, 8, 2, 0, []byte{}), []string{TooLarge}},
		{"30000² of one bit.png", "image/png", png(30_000, 30_000, 1, 0, 0, zeros(30_000*(30_000/8+1))), []string{TooLarge}},
		{"30000² of one bit, interlaced.png", "image/png", png(30_000, 30_000, 1, 0, 1, zeros(interlaced(30_000))), []string{TooLarge}},
		{"12000² of one bit, interlaced.png", "image/png", png(12_000, 12_000, 1, 0, 1, zeros(interlaced(12_000))), []string{Drawn, Limited, TooLarge}},
		{"9000² of 16 bit RGBA.png", "image/png", png(9000, 9000, 16, 6, 0, zeros(9000*(9000*8+1))), []string{Drawn, Limited, TooLarge}},
		{"one row of a hundred million.png", "image/png", png(100_000_000, 1, 8, 0, 0, nil), []string{Unreadable, Unsupported, TooLarge, Limited}},
		{"no side at all.png", "image/png", png(0, 0, 8, 2, 0, nil), []string{Unreadable}},
		{"negative side.png", "image/png", png(0xFFFF_FFFF, 0xFFFF_FFFF, 8, 2, 0, nil), []string{Unreadable, TooLarge}},
		{"no data.png", "image/png", png(64, 64, 8, 2, 0, nil), []string{Unreadable}},
		{"a quarter of a gigabyte of text.png", "image/png", textPNG(), []string{Drawn, Limited, Unreadable}},
		{"a profile that unpacks to a quarter of a gigabyte.png", "image/png", profilePNG(), []string{Drawn, Limited, Unreadable}},
	}
}

// png puts one together (PNG, third edition, 5); pixels are its filtered rows, before compression.
func png(width, height uint32, depth, colour, interlace byte, pixels []byte, more ...[]byte) []byte {
	header := append(be32(nil, width, height), depth, colour, 0, 0, interlace)
	chunks := [][]byte{[]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", header)}
	chunks = append(chunks, more...)
	if pixels != nil {
		chunks = append(chunks, chunk("IDAT", deflated(pixels)))
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
	w, _ := zlib.NewWriterLevel(&out, zlib.BestSpeed)
	_, _ = w.Write(data)
	_ = w.Close()
	return out.Bytes()
}

func zeros(n int) []byte { return make([]byte, n) }

// interlaced is at least as many bytes as the seven passes of a square of one bit take (PNG, 8.2).
func interlaced(side int) int { return side*(side/8+8)*2 + 64 }

func onePixel() []byte { return []byte{0, 200, 30, 30} }

// textPNG has text that unpacks to a quarter of a gigabyte (PNG, 11.3.3.3).
func textPNG() []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	block := zeros(1 << 20)
	for range 1 << 8 {
		_, _ = w.Write(block)
	}
	_ = w.Close()
	return png(1, 1, 8, 2, 0, onePixel(), chunk("zTXt", append([]byte("XML:com.adobe.xmp\x00\x00"), out.Bytes()...)))
}

func profilePNG() []byte {
	return png(1, 1, 8, 2, 0, onePixel(), chunk("iCCP", append([]byte("p3\x00\x00"), deflated(zeros(1<<28))...)))
}
