package vips

import (
	"bytes"
	"slices"
)

// format is as much as Render has to know of a file before libvips may see it.
type format int

const (
	notAPicture format = iota
	raster
	heif
)

// sniff lets through only JPEG, PNG, GIF, WebP, TIFF, HEIF and AVIF. bimg itself would try SVG,
// PDF and whatever ImageMagick can read.
func sniff(input []byte) format {
	switch {
	case bytes.HasPrefix(input, []byte{0xFF, 0xD8, 0xFF}),
		bytes.HasPrefix(input, []byte("\x89PNG\r\n\x1a\n")),
		bytes.HasPrefix(input, []byte("GIF8")),
		bytes.HasPrefix(input, []byte("II*\x00")),
		bytes.HasPrefix(input, []byte("MM\x00*")):
		return raster
	case len(input) >= 12 && string(input[:4]) == "RIFF" && string(input[8:12]) == "WEBP":
		return raster
	case isHEIF(input):
		return heif
	}
	return notAPicture
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

// withKnownBrand returns input with a major brand that bimg recognises; bimg looks at no other.
// libheif decides by the boxes and the compatible brands, so that nothing else changes.
func withKnownBrand(input []byte) []byte {
	known := []string{"heic", "mif1", "msf1", "heis", "hevc", "avif"}
	if slices.Contains(known, string(input[8:12])) {
		return input
	}
	renamed := bytes.Clone(input)
	copy(renamed[8:12], "mif1")
	return renamed
}
