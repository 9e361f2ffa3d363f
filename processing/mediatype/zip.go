package mediatype

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"io"
	"path"
	"strings"
)

// zipLimit is how much of an archive is read for its list of files, in bytes: that of 20,000 files, when documents have some hundred.
const zipLimit = 2 << 20

// partLimit is how much is unpacked of a file inside of an archive, in bytes.
const partLimit = 256 << 10

// officeParts are the main parts of Office Open XML documents, under the names that all programs give them, and the type
// that each makes of an archive (ECMA-376 part 1, 11.3.10, 12.3.23, 13.3.6).
var officeParts = map[string]string{
	"word/document.xml":    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	"xl/workbook.xml":      "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	"ppt/presentation.xml": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}

// zipParts are other files that make more of an archive. The first that is there decides: what runs comes first, and a document with
// macros before one without.
var zipParts = []struct{ name, mediaType string }{
	{"androidmanifest.xml", "application/vnd.android.package-archive"},
	{"classes.dex", "application/vnd.android.package-archive"},
	{"meta-inf/manifest.mf", "application/java-archive"},
	{"word/vbaproject.bin", "application/vnd.ms-word.document.macroenabled.12"},
	{"xl/workbook.bin", "application/vnd.ms-excel.sheet.binary.macroenabled.12"},
	{"xl/vbaproject.bin", "application/vnd.ms-excel.sheet.macroenabled.12"},
	{"ppt/vbaproject.bin", "application/vnd.ms-powerpoint.presentation.macroenabled.12"},
	{"visio/document.xml", "application/vnd.ms-visio.drawing.main+xml"},
	{"doc.kml", kmzType},
}

const kmzType = "application/vnd.google-earth.kmz"

// inspectZip looks into the list of files of an archive. found keeps what the head told if there is none.
func inspectZip(file io.ReaderAt, size int64, found *Found) {
	source := &boundedReaderAt{source: file, left: zipLimit + 128<<10, size: size} // its end is looked for in the last 65 KiB, twice
	archive, err := zip.NewReader(source, size)
	if err != nil {
		return
	}
	source.left = 4 * partLimit
	found.Type = zipType // whatever the first bytes looked like
	files := make(map[string]*zip.File, len(archive.File))
	for _, f := range archive.File {
		files[strings.ToLower(f.Name)] = f
		found.Protected = found.Protected || f.Flags&1 != 0 // APPNOTE 6.3.10, 4.4.4
	}
	for _, known := range zipParts {
		if _, ok := files[known.name]; ok {
			found.Type = known.mediaType
			return
		}
	}
	if _, ok := files["[content_types].xml"]; ok {
		for _, f := range archive.File { // SharePoint calls a main part word/document2.xml, too
			if known := officeFolder(strings.ToLower(f.Name)); known != "" {
				found.Type = known
				return
			}
		}
	}
	for _, f := range archive.File {
		if known, ok := officeParts[strings.ToLower(f.Name)]; ok {
			found.Type = known
			return
		}
	}
	switch named := strings.TrimSpace(string(unpack(files["mimetype"]))); { // ODF 1.3 part 2, 3.3
	case strings.HasPrefix(named, "application/vnd.oasis.opendocument.") && typePattern.MatchString(named):
		found.Type = named
		manifest := unpack(files["meta-inf/manifest.xml"])
		found.Protected = found.Protected || bytes.Contains(manifest, []byte("encryption-data")) // 4.4
	case named == "application/epub+zip":
		found.Type = named
	case isKMZ(files):
		found.Type = kmzType
	}
}

// officeFolder returns the type of the Office documents that keep their parts in the folder of a part, or "".
func officeFolder(part string) string {
	folder, _, _ := strings.Cut(part, "/")
	for main, mediaType := range officeParts {
		if path.Dir(main) == folder && part != folder {
			return mediaType
		}
	}
	return ""
}

// isKMZ reports whether the only file in the root of an archive is a KML (OGC 07-147r2, annex C).
func isKMZ(files map[string]*zip.File) bool {
	roots, kml := 0, false
	for name := range files {
		if !strings.Contains(name, "/") {
			roots++
			kml = strings.HasSuffix(name, ".kml")
		}
	}
	return roots == 1 && kml
}

// unpack returns the beginning of a file of an archive, of at most partLimit bytes; nothing of one that is not there.
func unpack(file *zip.File) []byte {
	if file == nil {
		return nil
	}
	content, err := file.Open()
	if err != nil {
		return nil
	}
	defer func() { _ = content.Close() }()
	unpacked, _ := io.ReadAll(io.LimitReader(content, partLimit)) // damage at its end costs only that
	return unpacked
}

// zipHeadType names a document by its main part, if that is within the head, or returns "". mimetype looks only at 4 KiB,
// which a preview may fill, and gives up on documents that do not begin as Microsoft's do.
func zipHeadType(head []byte) string {
	const localHeader = 30 // APPNOTE 6.3.10, 4.3.7
	signature := []byte("PK\x03\x04")
	for bytes.HasPrefix(head, signature) && len(head) > localHeader {
		flags, packed := binary.LittleEndian.Uint16(head[6:]), binary.LittleEndian.Uint32(head[18:])
		name, extra := int(binary.LittleEndian.Uint16(head[26:])), int(binary.LittleEndian.Uint16(head[28:]))
		if localHeader+name+extra > len(head) {
			return ""
		}
		if known, ok := officeParts[string(head[localHeader:localHeader+name])]; ok {
			return known
		}
		head = head[localHeader+name+extra:]
		if lengthFollows := flags&8 != 0; lengthFollows { // it stands behind the content, which ends where the next begins
			packed = uint32(max(0, bytes.Index(head, signature)))
		}
		head = head[min(uint64(packed), uint64(len(head))):]
	}
	return ""
}
