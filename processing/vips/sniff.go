package vips

import (
	"bytes"
	"slices"
)

// format is as much as Render has to know of a file before libvips may see it. The numbers are decode.h's.
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

// sniff lets through only JPEG, PNG, GIF, WebP, TIFF, BigTIFF, HEIF and AVIF. libvips itself would try SVG, PDF and whatever
// ImageMagick can read.
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

// isHEIF looks at the compatible brands too: Sony writes "MiHE" as the major one.
func isHEIF(input []byte) bool {
	brands := brandsOf(input)
	return slices.ContainsFunc(brands, func(brand string) bool { return slices.Contains(heifBrands, brand) })
}

// brandsOf returns the major brand and the compatible ones of an ISO base media file
// (ISO/IEC 14496-12, 4.3), at most 32, or nil.
func brandsOf(input []byte) []string {
	if len(input) < 16 || string(input[4:8]) != "ftyp" {
		return nil
	}
	size := int(input[0])<<24 | int(input[1])<<16 | int(input[2])<<8 | int(input[3])
	brands := []string{string(input[8:12])}
	for at := 16; at+4 <= min(size, len(input)) && len(brands) < 32; at += 4 {
		brands = append(brands, string(input[at:at+4]))
	}
	return brands
}
