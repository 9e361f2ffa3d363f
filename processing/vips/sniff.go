package vips

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// format selects the loader of a file. The numbers are tramo_decode.h's.
type format int

const (
	notAnImage format = iota
	jpegFormat
	pngFormat
	gifFormat
	webpFormat
	tiffFormat
	heifFormat
)

// sniff lets through only JPEG, PNG, GIF, WebP, TIFF, BigTIFF, HEIF and AVIF. libvips itself would try SVG, PDF and all
// formats of ImageMagick.
func sniff(input []byte) format {
	begins := func(magic string) bool { return bytes.HasPrefix(input, []byte(magic)) }
	switch {
	case begins("\xFF\xD8\xFF"):
		return jpegFormat
	case begins("\x89PNG\r\n\x1a\n"):
		return pngFormat
	case begins("GIF8"):
		return gifFormat
	case begins("II*\x00"), begins("MM\x00*"), begins("II+\x00"), begins("MM\x00+"):
		return tiffFormat
	case len(input) >= 12 && begins("RIFF") && string(input[8:12]) == "WEBP":
		return webpFormat
	case isHEIF(input):
		return heifFormat
	}
	return notAnImage
}

// heifBrands are the brands of ISO/IEC 23008-12 (HEIF), 10 and annex B, and of AVIF.
var heifBrands = []string{"heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1", "avif", "avis"}

// isHEIF looks at the major brand and at the first 31 compatible ones (ISO/IEC 14496-12, 4.3): Sony writes "MiHE" as the major one.
func isHEIF(input []byte) bool {
	if len(input) < 16 || string(input[4:8]) != "ftyp" {
		return false
	}
	known := slices.Contains(heifBrands, string(input[8:12]))
	end := min(int(binary.BigEndian.Uint32(input)), len(input), 16+4*31)
	for at := 16; at+4 <= end && !known; at += 4 {
		known = slices.Contains(heifBrands, string(input[at:at+4]))
	}
	return known
}
