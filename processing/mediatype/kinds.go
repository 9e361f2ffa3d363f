package mediatype

import (
	"slices"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// spellings maps what browsers and phones write to the name used here.
var spellings = map[string]string{
	"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png",
	"image/heic-sequence": "image/heic", "image/heif-sequence": "image/heif", "image/dng": "image/x-adobe-dng",
	"application/vnd.dwg": "image/vnd.dwg", "image/dwg": "image/vnd.dwg",
	"application/dxf": dxfType, "application/x-dxf": dxfType, "image/x-dxf": dxfType, "drawing/x-dxf": dxfType, "drawing/dxf": dxfType,
	"application/ifc": ifcType, "application/x-ifc": ifcType, "model/ifc": ifcType, "application/step": stepType, "application/p21": stepType,
	"application/vnd.google-earth.kml": kmlType, "application/gpx": gpxType, "text/gpx": gpxType, "application/x-gpx+xml": gpxType,
	"application/x-koan": skpType, "application/vnd.koan": skpType, "application/x-sketchup": skpType, // by the table of old, .skp is music
	"application/msproject": "application/vnd.ms-project", "application/x-project": "application/vnd.ms-project",
	"application/x-rtf": "text/rtf", "text/richtext": "text/rtf", "text/comma-separated-values": "text/csv", "text/x-csv": "text/csv",
	"application/mp4": "video/mp4", "video/m4v": "video/x-m4v", "audio/x-m4a": "audio/mp4", "audio/m4a": "audio/mp4", "audio/mp4a-latm": "audio/mp4",
	"audio/x-aac": "audio/aac", "audio/aacp": "audio/aac", "audio/vnd.dlna.adts": "audio/aac", "audio/opus": "audio/ogg", "audio/x-opus+ogg": "audio/ogg",
	"audio/x-vorbis+ogg": "audio/ogg", "audio/amr-wb": "audio/amr", "audio/x-pn-wav": "audio/wav", "image/x-panasonic-raw2": "image/x-panasonic-rw2",
	"image/x-panasonic-raw": "image/x-panasonic-rw2", "application/vnd.ms-word": "application/msword",
	"binary/octet-stream": Unknown,
}

const skpType = "application/vnd.sketchup.skp"

// Canonical returns a media type in lower case, without parameters, in one spelling: the one here, or mimetype's.
func Canonical(mediaType string) string {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	if known, ok := spellings[mediaType]; ok {
		return known
	}
	if known := mimetype.Lookup(mediaType); known != nil {
		mediaType = known.String()
		if known, ok := spellings[mediaType]; ok {
			return known
		}
	}
	return mediaType
}

// parents say what a media type is a kind of, where mimetype does not know it, or says something else.
var parents = map[string][]string{
	"image/heic":          {"image/heif"}, // ISO/IEC 23008-12; to mimetype these are videos
	"image/heif":          nil,
	"image/avif":          nil,
	"image/x-adobe-dng":   {"image/tiff"}, // DNG 1.7, chapter 1
	"image/x-canon-cr2":   {"image/tiff"},
	"image/x-nikon-nef":   {"image/tiff"},
	"image/x-sony-arw":    {"image/tiff"},
	"image/x-pentax-pef":  {"image/tiff"},
	"image/x-samsung-srw": {"image/tiff"},

	dxfType:  {plainText}, // or binary, of which nobody is told
	ifcType:  {stepType},
	stepType: {plainText},
	kmlType:  {"text/xml"},
	gpxType:  {"text/xml"},

	"text/vbscript":          {plainText},
	"text/x-msdos-batch":     {plainText},
	"text/x-powershell":      {plainText},
	"text/x-ms-regedit":      {plainText},
	"text/x-windows-shell":   {plainText},
	"application/x-mswinurl": {plainText},
	"application/x-desktop":  {plainText},

	"application/vnd.ms-word.document.macroenabled.12":           {"application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
	"application/vnd.ms-excel.sheet.macroenabled.12":             {"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
	"application/vnd.ms-excel.sheet.binary.macroenabled.12":      {"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
	"application/vnd.ms-powerpoint.presentation.macroenabled.12": {"application/vnd.openxmlformats-officedocument.presentationml.presentation"},

	"application/vnd.visio":          {oleType},
	"application/vnd.ms-project":     {oleType},
	"application/vnd.autodesk.revit": {oleType},
	EncryptedOffice: {
		oleType,
		"application/vnd.openxmlformats-officedocument.wordprocessingml.document",
		"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
		"application/vnd.openxmlformats-officedocument.presentationml.presentation",
	},
}

// Kinds returns what a media type is: itself, and then what it is a kind of, the nearest first. A JSON is a text, and a spreadsheet
// of today is an archive.
func Kinds(mediaType string) []string {
	mediaType = Canonical(mediaType)
	kinds := []string{mediaType}
	above, ours := parents[mediaType]
	if m := mimetype.Lookup(mediaType); !ours && m != nil && m.Parent() != nil {
		above = []string{m.Parent().String()}
	}
	for _, parent := range above {
		if parent != Unknown { // of which everything is a kind
			kinds = append(kinds, Kinds(parent)...)
		}
	}
	return kinds
}

// IsA reports whether a media type is another one, or a kind of it.
func IsA(mediaType, kind string) bool { return slices.Contains(Kinds(mediaType), Canonical(kind)) }
