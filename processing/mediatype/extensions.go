package mediatype

import (
	"path"
	"slices"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// extensions are those that files of a type have, the usual one first, where mimetype knows none or fewer. None is one that a
// system runs.
var extensions = map[string]string{
	"image/jpeg": ".jpg .jpeg .jpe .jfif", "image/tiff": ".tif .tiff", "image/heic": ".heic .heics .hif", "image/heif": ".heif .heifs .hif",
	"image/x-adobe-dng": ".dng", "image/x-canon-cr2": ".cr2", "image/x-canon-cr3": ".cr3", "image/x-nikon-nef": ".nef .nrw",
	"image/x-sony-arw": ".arw .sr2 .srf", "image/x-fuji-raf": ".raf", "image/x-olympus-orf": ".orf", "image/x-panasonic-rw2": ".rw2 .rwl",
	"image/x-pentax-pef": ".pef", "image/x-samsung-srw": ".srw", "image/vnd.dwg": ".dwg .dwt .dws", dxfType: ".dxf",
	"video/mp4": ".mp4 .m4v .m4a .m4b", "video/quicktime": ".mov .qt", "video/3gpp": ".3gp .3gpp .3ga", "audio/mp4": ".m4a .m4b",
	"audio/ogg": ".ogg .oga .opus .spx", "audio/amr": ".amr .awb",
	plainText:  ".txt .text .log .md .csv .tsv .tab .asc .xyz .pts .pnt .dat .gsi .nmea .prj .tfw .jgw .pgw .wld .prn .lst .yml .yaml .json .geojson",
	"text/csv": ".csv", "text/rtf": ".rtf .doc", "text/xml": ".xml", ifcType: ".ifc", stepType: ".stp .step .p21",
	kmlType: ".kml", gpxType: ".gpx", zipType: ".zip .ifczip .bcf .bcfzip .dwfx .3mf", kmzType: ".kmz",
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document":   ".docx .dotx",
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet":         ".xlsx .xltx",
	"application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx .ppsx .potx",
	"application/vnd.ms-word.document.macroenabled.12":                          ".docm .dotm",
	"application/vnd.ms-excel.sheet.macroenabled.12":                            ".xlsm .xltm",
	"application/vnd.ms-excel.sheet.binary.macroenabled.12":                     ".xlsb",
	"application/vnd.ms-powerpoint.presentation.macroenabled.12":                ".pptm .ppsm .potm",
	EncryptedOffice:                  ".docx .xlsx .pptx .docm .xlsm .xlsb .pptm",
	"application/msword":             ".doc .dot",
	"application/vnd.ms-excel":       ".xls .xlt",
	"application/vnd.ms-powerpoint":  ".ppt .pps .pot",
	"application/vnd.ms-project":     ".mpp .mpt",
	"application/vnd.visio":          ".vsd .vss .vst",
	"application/vnd.autodesk.revit": ".rvt .rfa .rte .rft",
	skpType:                          ".skp .skb",
	Unknown:                          ".bin .dat .e57 .las .laz .nwd .nwc .rcp .rcs .dgn .3dm .skp .mpp",
}

// Extensions returns the extensions that names of files of a media type may have, in lower case: its own, the usual one first, and
// those of what it is a kind of. What runs has none of its own. There is always one.
func Extensions(mediaType string) (all []string) {
	for _, kind := range Kinds(mediaType) {
		if Runs(kind) {
			continue
		}
		all = append(all, strings.Fields(extensions[kind])...)
		if m := mimetype.Lookup(kind); m != nil && m.Extension() != "" {
			all = append(all, m.Extension())
		}
	}
	if len(all) == 0 {
		all = strings.Fields(extensions[Unknown])
	}
	return all
}

// HasExtension reports whether a file's name has an extension of its media type.
func HasExtension(mediaType, name string) bool {
	return slices.Contains(Extensions(mediaType), strings.ToLower(path.Ext(name)))
}
