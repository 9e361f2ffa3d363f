// Package mediatype detects the media type of a file by its bytes, never by its name, and decides whether it is accepted and
// whether it matches the declared type.
package mediatype

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// HeadSize is how many of a file's first bytes Detect looks at, at most.
const HeadSize = 64 << 10

// Unknown is the type of bytes that Detect does not recognize.
const Unknown = "application/octet-stream"

// Detect names the media type of a file by its first bytes, without parameters. It never fails: what it does not know is Unknown. Of
// a container it may know no more than that it is one; Inspect looks further.
func Detect(head []byte) string {
	head = head[:min(len(head), HeadSize)]
	for _, known := range signatures {
		if strings.HasPrefix(string(head[:min(len(head), len(known.begins))]), known.begins) {
			return known.mediaType
		}
	}
	for _, known := range []func([]byte) string{dwgType, isoMediaType, zipHeadType} {
		if mediaType := known(head); mediaType != "" {
			return mediaType
		}
	}
	detected := mimetype.Detect(head)
	mediaType := Canonical(detected.String())
	switch {
	case mediaType == "image/tiff":
		return tiffType(head)
	case IsA(mediaType, plainText):
		return textType(head, detected)
	}
	return mediaType
}

// signatures are what files begin with that mimetype does not know.
var signatures = []struct{ begins, mediaType string }{
	{"II+\x00\x08\x00\x00\x00", "image/tiff"}, // BigTIFF, of files that may pass 4 GiB, as orthomosaics do
	{"MM\x00+\x00\x08\x00\x00", "image/tiff"},
	{"\xFF\xFE\xFF\x0ES\x00k\x00e\x00t\x00c\x00h\x00U\x00p\x00", skpType}, // PRONOM fmt/1197
	{"AutoCAD Binary DXF\r\n\x1A\x00", dxfType},
	{"IIRO", "image/x-olympus-orf"}, {"IIRS", "image/x-olympus-orf"}, {"MMOR", "image/x-olympus-orf"},
	{"IIU\x00", "image/x-panasonic-rw2"},
	{"FUJIFILMCCD-RAW ", "image/x-fuji-raf"},
}

// dwgType knows every AutoCAD drawing since release 14 by its version, AC1014 to AC1032, or returns "".
func dwgType(head []byte) string {
	if len(head) >= 6 && string(head[:4]) == "AC10" && isDigit(head[4]) && isDigit(head[5]) {
		return "image/vnd.dwg"
	}
	return ""
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isoMediaType tells HEIF and AVIF from video by their brands (ISO/IEC 23008-12, annex B;
// ISO/IEC 14496-12, 4.3), or returns "". Sony and Canon write major brands that are mistaken for
// MP4 elsewhere.
func isoMediaType(head []byte) string {
	if len(head) < 16 || string(head[4:8]) != "ftyp" {
		return ""
	}
	major := string(head[8:12])
	switch major {
	case "qt  ":
		return "video/quicktime"
	case "crx ":
		return "image/x-canon-cr3"
	case "MSNV": // Sony's films, which mimetype takes for sound
		return "video/mp4"
	}
	if known := heifBrand(major); known != "" {
		return known
	}
	size := min(binary.BigEndian.Uint32(head), uint32(len(head)), 512)
	generic := slices.Contains([]string{"mif1", "msf1", "miaf", "MiHE", "MiHB", "MiPr", "jpeg", "jpgs"}, major)
	for at := uint32(16); at+4 <= size; at += 4 {
		brand := string(head[at : at+4])
		if known := heifBrand(brand); known != "" && generic {
			return known
		}
	}
	if generic {
		return "image/heif"
	}
	return ""
}

func heifBrand(brand string) string {
	switch brand {
	case "heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs":
		return "image/heic"
	case "avif", "avis":
		return "image/avif"
	}
	return ""
}

// The tags of a TIFF's first directory that tell the raw files of cameras apart (TIFF 6.0; DNG 1.7, chapter 4).
const (
	tagSubfileType = 0x00FE
	tagCompression = 0x0103
	tagMake        = 0x010F
	tagSubIFDs     = 0x014A
	tagDNGVersion  = 0xC612
)

// rawMakers are the makers whose raw files keep a small image in the first directory of a TIFF, and the photo in others.
var rawMakers = []struct{ begins, mediaType string }{
	{"NIKON", "image/x-nikon-nef"}, {"SONY", "image/x-sony-arw"}, {"SAMSUNG", "image/x-samsung-srw"},
}

// tiffType tells the raw files of cameras from other TIFFs, by the first directory.
func tiffType(head []byte) string {
	if len(head) >= 10 && string(head[8:10]) == "CR" {
		return "image/x-canon-cr2"
	}
	tags, maker := readTags(head)
	if _, ok := tags[tagDNGVersion]; ok {
		return "image/x-adobe-dng"
	}
	const reduced, pentax = 1, 65535
	if strings.HasPrefix(maker, "PENTAX") && tags[tagCompression] == pentax {
		return "image/x-pentax-pef"
	}
	if _, ok := tags[tagSubIFDs]; ok && tags[tagSubfileType] == reduced {
		for _, known := range rawMakers {
			if strings.HasPrefix(maker, known.begins) {
				return known.mediaType
			}
		}
	}
	return "image/tiff"
}

// readTags returns the first value of each tag in a TIFF's first directory, as far as it is in the head, and who made the camera.
func readTags(head []byte) (tags map[uint16]uint32, maker string) {
	const entrySize, short = 12, 3
	tags = make(map[uint16]uint32)
	if len(head) < 8 {
		return tags, ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[0] == 'M' {
		order = binary.BigEndian
	}
	at := int64(order.Uint32(head[4:]))
	if at+2 > int64(len(head)) {
		return tags, ""
	}
	entries := head[at+2:]
	for range order.Uint16(head[at:]) {
		if len(entries) < entrySize {
			break
		}
		tag, value := order.Uint16(entries), order.Uint32(entries[8:])
		if order.Uint16(entries[2:]) == short {
			value = uint32(order.Uint16(entries[8:]))
		}
		if tag == tagMake && int64(value) < int64(len(head)) {
			maker, _, _ = strings.Cut(strings.ToUpper(string(head[value:min(int64(value)+32, int64(len(head)))])), "\x00")
		}
		tags[tag] = value
		entries = entries[entrySize:]
	}
	return tags, maker
}
