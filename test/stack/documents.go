package stack

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

// What an entry of a drawing's image data may be.
const (
	DWGBitmap   = 2 // a device-independent bitmap
	DWGMetafile = 3
	DWGPNG      = 6
)

// A DWGEntry is one picture in a drawing's image data.
type DWGEntry struct {
	Code byte
	Data []byte
}

// DWG begins an AutoCAD drawing of a version such as "AC1015", with image data that holds the entries. It has no
// drawing.
func DWG(version string, entries ...DWGEntry) []byte {
	const seeker, sentinels = 0x80, 16
	file := make([]byte, seeker)
	copy(file, version)
	if len(entries) == 0 {
		return file
	}
	binary.LittleEndian.PutUint32(file[0x0D:], seeker)
	file = append(file, 0x1F, 0x25, 0x6D, 0x07, 0xD4, 0x36, 0x28, 0x28, 0x9D, 0x57, 0xCA, 0x3F, 0x9D, 0x44, 0x10, 0x2B)
	at, size := seeker+sentinels+4+1+9*len(entries), 0
	for _, e := range entries {
		size += len(e.Data)
	}
	file = binary.LittleEndian.AppendUint32(file, uint32(1+9*len(entries)+size))
	file = append(file, byte(len(entries)))
	for _, e := range entries {
		file = append(file, e.Code)
		file = binary.LittleEndian.AppendUint32(file, uint32(at))
		file = binary.LittleEndian.AppendUint32(file, uint32(len(e.Data)))
		at += len(e.Data)
	}
	for _, e := range entries {
		file = append(file, e.Data...)
	}
	return append(file, 0xE0, 0xDA, 0x92, 0xF8, 0x2B, 0xC9, 0xD7, 0xD7, 0x62, 0xA8, 0x35, 0xC0, 0x62, 0xBB, 0xEF, 0xD4)
}

// A ZipFile is one file of an archive.
type ZipFile struct {
	Name, Content string
	Stored        bool // not compressed
}

// Zip makes an archive.
func Zip(files ...ZipFile) []byte {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range files {
		header := &zip.FileHeader{Name: f.Name, Method: zip.Deflate}
		if f.Stored {
			header.Method = zip.Store
		}
		part, err := w.CreateHeader(header)
		if err == nil {
			_, err = part.Write([]byte(f.Content))
		}
		if err != nil {
			panic(err) // memory has no errors
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// The main part of each kind of Office document.
const (
	Word       = "word/document.xml"
	Excel      = "xl/workbook.xml"
	PowerPoint = "ppt/presentation.xml"
)

// OfficeDocument makes an Office Open XML document whose preview is the part named, such as "docProps/thumbnail.jpeg".
// Without a name it has none.
func OfficeDocument(main, thumbnailName string, thumbnail []byte) []byte {
	relation := ""
	if thumbnailName != "" {
		relation = `<Relationship Id="rId9" Type="http://schemas.openxmlformats.org/package/2006/relationships/metadata/thumbnail" Target="` + thumbnailName + `"/>`
	}
	files := []ZipFile{
		{Name: "[Content_Types].xml", Content: `<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>`},
		{Name: "_rels/.rels", Content: `<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="` +
			main + `"/>` + relation + `</Relationships>`},
		{Name: main, Content: "<document/>"},
	}
	if thumbnailName != "" {
		files = append(files, ZipFile{Name: strings.TrimPrefix(thumbnailName, "/"), Content: string(thumbnail)})
	}
	return Zip(files...)
}

// OpenDocument makes an OpenDocument text with a preview, or without if it is nil.
func OpenDocument(thumbnail []byte) []byte {
	files := []ZipFile{
		{Name: "mimetype", Content: "application/vnd.oasis.opendocument.text", Stored: true},
		{Name: "content.xml", Content: "<office/>"},
	}
	if thumbnail != nil {
		files = append(files, ZipFile{Name: "Thumbnails/thumbnail.png", Content: string(thumbnail), Stored: true})
	}
	return Zip(files...)
}

// PDFConfig says what PDF makes. The zero value is one empty page of A4.
type PDFConfig struct {
	Title    string
	MediaBox string // "0 0 595 842"
	Content  string // of each page, in the operators of ISO 32000-1
	Pages    int    // 1
	Objects  []string
	Trailer  string // more of it, such as "/Encrypt 4 0 R"
}

// RedCorner is the content of a page that is white, and red where it begins, in the lower left.
const RedCorner = "1 0 0 rg 0 0 200 200 re f"

// PDF makes a document. Objects are added to it as they are, from number 4 on.
func PDF(c PDFConfig) []byte {
	if c.MediaBox == "" {
		c.MediaBox = "0 0 595 842"
	}
	pages := max(c.Pages, 1)
	objects := []string{"<< /Type /Catalog /Pages 2 0 R >>", "", fmt.Sprintf("<< /Title (%s) >>", c.Title)}
	objects = append(objects, c.Objects...)
	content := len(objects) + 1
	objects = append(objects, fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", len(c.Content), c.Content))
	var kids strings.Builder
	for i := range pages {
		fmt.Fprintf(&kids, "%d 0 R ", content+1+i)
		objects = append(objects, fmt.Sprintf("<< /Type /Page /Parent 2 0 R /MediaBox [%s] /Contents %d 0 R /Resources << /XObject << /F 4 0 R >> >> >>", c.MediaBox, content))
	}
	objects[1] = fmt.Sprintf("<< /Type /Pages /Count %d /Kids [%s] >>", pages, kids.String())

	return PDFObjects("/Info 3 0 R "+c.Trailer, objects)
}

// PDFObjects makes a document of objects, the first of which is its catalogue, with more in its trailer.
func PDFObjects(trailer string, objects []string) []byte {
	var out bytes.Buffer
	out.WriteString("%PDF-1.7\n")
	offsets := make([]int, len(objects))
	for i, object := range objects {
		offsets[i] = out.Len()
		fmt.Fprintf(&out, "%d 0 obj\n%s\nendobj\n", i+1, object)
	}
	table := out.Len()
	fmt.Fprintf(&out, "xref\n0 %d\n0000000000 65535 f \n", len(objects)+1)
	for _, offset := range offsets {
		fmt.Fprintf(&out, "%010d 00000 n \n", offset)
	}
	fmt.Fprintf(&out, "trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n", len(objects)+1, trailer, table)
	return out.Bytes()
}
