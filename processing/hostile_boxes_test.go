package processing

import (
	"slices"
)

// boxes are files of ISO/IEC 14496-12: HEIF, AVIF, MP4.
func boxes() []hostileFile {
	return []hostileFile{
		{"a head and nothing.heic", "image/heic", ftyp("heic", "mif1", "heic"), []string{unreadable}},
		{"boxes in boxes.heic", "image/heic", append(ftyp("heic", "mif1"), nested(4000)...), []string{unreadable}},
		{"a box of exabytes.heic", "image/heic", slices.Concat(ftyp("heic", "mif1"), be32(nil, 1), []byte("meta"), be32(nil, 0x7FFF_FFFF, 0xFFFF_FFFF)), []string{unreadable}},
		{"a million items.heic", "image/heic", append(ftyp("heic", "mif1"), box("meta", append(zeros(4), box("iinf", be32(nil, 0x0100_0000, 1_000_000))...))...), []string{unreadable}},
		{"garbage.avif", "image/avif", append(ftyp("avif", "mif1", "avif"), bytesOf(4000)...), []string{unreadable}},
	}
}

func box(name string, data []byte) []byte {
	return slices.Concat(be32(nil, uint32(len(data)+8)), []byte(name), data)
}

func ftyp(brands ...string) []byte {
	data := append([]byte(brands[0]), 0, 0, 0, 0)
	for _, b := range brands[1:] {
		data = append(data, b...)
	}
	return box("ftyp", data)
}

func nested(depth int) []byte {
	var inner []byte
	for range depth {
		inner = box("meta", append(zeros(4), inner...))
	}
	return inner
}

// bytesOf are n bytes that mean nothing.
func bytesOf(n int) []byte {
	out, x := make([]byte, n), uint32(2463534242)
	for i := range out {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		out[i] = byte(x)
	}
	return out
}

// mp4 has no track: only what it is told to hold.
func mp4(data []byte) []byte {
	return slices.Concat(ftyp("isom", "isom", "iso2", "avc1", "mp41"), box("mdat", data))
}

func videos() []hostileFile {
	none := []string{unreadable, unsupported, limited, noThumbnail}
	return []hostileFile{
		{"no track.mp4", "video/mp4", mp4(bytesOf(64 << 10)), none},
		{"a playlist of our files.mp4", "video/mp4", append(ftyp("isom", "mp42"), "\n#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"...), none},
		{"a list of files to join.mov", "video/quicktime", append(ftyp("qt  "), "\nffconcat version 1.0\nfile /etc/passwd\n"...), none},
		{"references to other files.mov", "video/quicktime", append(ftyp("qt  "), box("moov", box("rmra", box("rmda", box("rdrf", slices.Concat(zeros(4), []byte("url "), be32(nil, 18), []byte("file:///etc/passwd"))))))...), none},
		{"a film of four billion samples.mp4", "video/mp4", append(ftyp("isom"), box("moov", box("trak", box("mdia", box("minf", box("stbl", box("stsz", be32(zeros(4), 1, 0xFFFF_FFFF)))))))...), none},
	}
}
