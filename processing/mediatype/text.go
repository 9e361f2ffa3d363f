package mediatype

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"unicode/utf16"

	"github.com/gabriel-vasile/mimetype"
)

const plainText = "text/plain"

// The texts that mimetype does not know, by what they begin with, behind blanks and a byte order mark. Those that run come first.
var texts = []struct {
	begins    *regexp.Regexp
	mediaType string
}{
	{regexp.MustCompile(`^#! ?/`), "text/x-shellscript"}, // of any interpreter
	{regexp.MustCompile(`(?i)^@?echo +o(n|ff)\b|^@(setlocal|rem|cls|start|cmd|powershell)\b`), "text/x-msdos-batch"},
	{regexp.MustCompile(`(?i)^(option +explicit|on +error +resume +next)\b`), "text/vbscript"},
	{regexp.MustCompile(`(?i)^#requires +-`), "text/x-powershell"},
	{regexp.MustCompile(`(?i)^\[(internetshortcut|\{000214a0-)`), "application/x-mswinurl"},
	{regexp.MustCompile(`(?i)^\[(autorun|\.shellclassinfo|shell)\]`), "text/x-windows-shell"},
	{regexp.MustCompile(`(?i)^\[desktop entry\]`), "application/x-desktop"},
	{regexp.MustCompile(`(?i)^(windows registry editor|regedit4\b)`), "text/x-ms-regedit"},
	// ISO 10303-21; buildingSMART's name for an IFC.
	{regexp.MustCompile(`(?is)^ISO-10303-21;.*?FILE_SCHEMA *\( *\( *'IFC`), ifcType},
	{regexp.MustCompile(`(?i)^ISO-10303-21;`), stepType},
	{regexp.MustCompile(`^(999\r?\n[^\n]*\n *)*0\r?\n *SECTION\r?\n`), dxfType}, // AutoCAD DXF reference: comments may come first
	{xmlRoot("kml"), kmlType},
	{xmlRoot("gpx"), gpxType}, // of any version
}

const (
	ifcType  = "application/x-step"
	stepType = "model/step"
	dxfType  = "image/vnd.dxf"
	kmlType  = "application/vnd.google-earth.kml+xml"
	gpxType  = "application/gpx+xml"
)

// xmlRoot matches an XML document by the name of its root.
func xmlRoot(name string) *regexp.Regexp {
	return regexp.MustCompile(`(?s)^(<\?xml.*?\?>)?(\s|<!--.*?-->)*<([A-Za-z]+:)?` + name + `[\s>]`)
}

// textType names a text more precisely than mimetype does, which has called it detected.
func textType(head []byte, detected *mimetype.MIME) string {
	head = decoded(head)
	begin := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xEF\xBB\xBF")), " \t\r\n")
	named := Canonical(detected.String())
	if named == plainText {
		named = Canonical(mimetype.Detect(begin).String()) // of UTF-16, only now
	}
	for _, known := range texts {
		if known.begins.Match(begin) && (!Runs(named) || !Runs(known.mediaType)) { // mimetype knows some interpreters by name
			return known.mediaType
		}
	}
	switch named {
	case "image/x-portable-bitmap", "image/x-portable-graymap", "image/x-portable-pixmap", Unknown:
		return plainText // a list of surveyed points begins with P1 far more often than a bitmap in digits
	}
	return named
}

// decoded returns a text with the byte order mark of UTF-16 in UTF-8, and any other as it is.
func decoded(head []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(head, []byte("\xFF\xFE")):
		order = binary.LittleEndian
	case bytes.HasPrefix(head, []byte("\xFE\xFF")):
		order = binary.BigEndian
	default:
		return head
	}
	units := make([]uint16, 0, len(head)/2)
	for at := 2; at+1 < len(head); at += 2 {
		units = append(units, order.Uint16(head[at:]))
	}
	return []byte(string(utf16.Decode(units)))
}
