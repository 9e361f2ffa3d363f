package processing

import (
	"archive/zip"
	"bytes"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/tramo/tramo/test/stack"
)

// archives are for whoever looks into them: the virus scanner, and the reader of office documents.
func archives(eicar string) []hostileFile {
	const zipType = "application/zip"
	return []hostileFile{
		{"a virus.com", "", []byte(eicar), []string{infected}},
		{"a virus in an archive.zip", zipType, zipped("a.com", []byte(eicar)), []string{infected}},
		{"a virus in archives in archives.zip", zipType, nestedZip([]byte(eicar), 6), []string{infected}},
		{"archives deeper than are looked into.zip", zipType, nestedZip([]byte(eicar), 40), []string{unscannable, infected}},
		{"a gigabyte in a megabyte.zip", zipType, bomb(1100 << 20), []string{unscannable}},
		{"fifty thousand files.zip", zipType, manyFiles(50_000), []string{unscannable}},
		{"with a password.zip", zipType, encrypted(), []string{unscannable}},
		{"a way out.zip", zipType, zipped("../../../../etc/cron.d/x", []byte("x")), []string{noThumbnail}},
		{"lies of its size.zip", zipType, lying(), []string{noThumbnail, unscannable}},
	}
}

func zipped(name string, content []byte) []byte {
	return stack.Zip(stack.ZipFile{Name: name, Content: string(content)})
}

func nestedZip(content []byte, depth int) []byte {
	for i := range depth {
		content = zipped(fmt.Sprintf("%d.zip", i), content)
	}
	return content
}

func bomb(size int) []byte {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	addZeros(w, "zeros", size)
	_ = w.Close()
	return out.Bytes()
}

// addZeros adds a file of so many zeros.
func addZeros(w *zip.Writer, name string, size int) {
	packed, sum := rawZeros(size), crc32.NewIEEE()
	block := zeros(1 << 20)
	for left := size; left > 0; left -= len(block) {
		_, _ = sum.Write(block[:min(left, len(block))])
	}
	f, _ := w.CreateRaw(&zip.FileHeader{
		Name: name, Method: zip.Deflate, CRC32: sum.Sum32(), CompressedSize64: uint64(len(packed)), UncompressedSize64: uint64(size),
	})
	_, _ = f.Write(packed)
}

func manyFiles(n int) []byte {
	files := make([]stack.ZipFile, n)
	for i := range files {
		files[i] = stack.ZipFile{Name: fmt.Sprint(i), Content: "x", Stored: true}
	}
	return stack.Zip(files...)
}

// encrypted says so in its headers (APPNOTE 6.3.10, 4.4.4, bit 0).
func encrypted() []byte {
	out := zipped("secret.txt", []byte("a text behind a password, of which nobody knows what it says"))
	out[6] |= 1
	central := bytes.Index(out, []byte("PK\x01\x02"))
	out[central+8] |= 1
	return out
}

// lying says that its one file is four gigabytes long.
func lying() []byte {
	out := zipped("a.txt", []byte("short"))
	central := bytes.Index(out, []byte("PK\x01\x02"))
	copy(out[central+24:], le32(nil, 0xFFFF_FFF0))
	return out
}

// offices are documents with a preview (ECMA-376, part 2; ODF 1.3, part 2, 3).
func offices() []hostileFile {
	const docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	with := func(name string, thumbnail []byte) []byte {
		return stack.Zip(stack.ZipFile{Name: "[Content_Types].xml", Content: `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>`},
			stack.ZipFile{Name: "_rels/.rels", Content: `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/package/2006/relationships/metadata/thumbnail" Target="` + name + `"/></Relationships>`},
			stack.ZipFile{Name: "word/document.xml", Content: "<w/>"}, stack.ZipFile{Name: name, Content: string(thumbnail)})
	}
	return []hostileFile{
		{"a preview that is a bomb.docx", docx, with("docProps/thumbnail.png", newPNG(1_000_000, 1_000_000, 8, 2, 0, deflated(nil))), []string{tooLarge, noThumbnail, unsupported}},
		{"a preview of 64 megabytes.docx", docx, with("docProps/thumbnail.jpeg", zeros(1<<26)), []string{noThumbnail, unreadable, limited, unsupported, tooLarge}},
		{"a preview from outside.docx", docx, with("../../../../etc/passwd", []byte("x")), []string{noThumbnail, unsupported, unreadable}},
		{"a preview that is a program.docx", docx, with("docProps/thumbnail.jpeg", []byte("MZ\x90\x00")), []string{noThumbnail, unreadable, unsupported}},
	}
}

// drawings are AutoCAD's, with the address of a preview at 0x0D (Open Design Specification for .dwg, 3.2.6).
func drawings() []hostileFile {
	head := func(at uint32, rest []byte) []byte {
		return slices.Concat([]byte("AC1027\x00\x00\x00\x00\x00\x00\x00"), le32(nil, at), zeros(111), rest)
	}
	sentinel := []byte{0x1F, 0x25, 0x6D, 0x07, 0xD4, 0x36, 0x28, 0x28, 0x9D, 0x57, 0xCA, 0x3F, 0x9D, 0x44, 0x10, 0x2B}
	none := []string{noThumbnail, unsupported, unreadable, tooLarge}
	return []hostileFile{
		{"a preview beyond the end.dwg", "image/vnd.dwg", head(0xFFFF_FFF0, nil), none},
		{"a preview of four gigabytes.dwg", "image/vnd.dwg", head(128, slices.Concat(sentinel, le32(nil, 0xFFFF_FFFF), []byte{1, 2}, le32(nil, 160, 0xFFFF_FFFF))), none},
		{"255 previews that are each other.dwg", "image/vnd.dwg", head(128, slices.Concat(sentinel, le32(nil, 4000), []byte{255}, bytes.Repeat(append([]byte{6}, le32(nil, 128, 128)...), 255))), none},
		{"a preview that is a bomb.dwg", "image/vnd.dwg", head(128, slices.Concat(sentinel, le32(nil, 4000), []byte{1, 6}, le32(nil, 158, 67), newPNG(1_000_000, 1_000_000, 8, 2, 0, deflated(nil)))), none},
	}
}

func pdfs() []hostileFile {
	drawable := []string{drawn, limited}
	return []hostileFile{
		{"fifty thousand pages.pdf", "application/pdf", pdf(50_000, "0 0 200 200", "1 0 0 rg 0 0 200 200 re f"), drawable},
		{"a page of kilometres.pdf", "application/pdf", pdf(1, "0 0 9000000 9000000", "1 0 0 rg 0 0 9000000 9000000 re f"), append(drawable, unreadable, unsupported)},
		{"a page of nothing.pdf", "application/pdf", pdf(1, "0 0 0 0", ""), append(drawable, unreadable, unsupported)},
		{"a thin page.pdf", "application/pdf", pdf(1, "0 0 1 14400", "1 0 0 rg 0 0 1 14400 re f"), append(drawable, unreadable, unsupported)},
		{"two million operators.pdf", "application/pdf", pdf(1, "0 0 2000 2000", strings.Repeat("0 0 m 2000 2000 l S\n", 2_000_000)), drawable},
		{"a form that contains itself.pdf", "application/pdf", recursive(), drawable},
		{"JavaScript and a launch.pdf", "application/pdf", bytes.Replace(pdf(1, "0 0 200 200", "0 0 9 9 re f"), []byte("/Type /Catalog"),
			[]byte("/Type /Catalog /OpenAction << /S /Launch /F (/bin/sh) >> /AA << /WC << /S /JavaScript /JS (app.alert(1)) >> >>"), 1), drawable},
		{"a head and nothing.pdf", "application/pdf", []byte("%PDF-1.7\n"), []string{unreadable, unsupported}},
		{"garbage.pdf", "application/pdf", append([]byte("%PDF-1.7\n"), bytesOf(100_000)...), []string{unreadable, unsupported}},
		{"pages that are their own parents.pdf", "application/pdf", bytes.Replace(pdf(1, "0 0 200 200", ""), []byte("/Kids [4 0 R ]"), []byte("/Kids [2 0 R ]"), 1), []string{drawn, limited, unreadable, unsupported}},
	}
}

// pdf writes so many pages that share one content (ISO 32000-1, 7.7.3), with a cross-reference table that is true.
func pdf(pages int, mediaBox, content string) []byte {
	var kids strings.Builder
	for i := range pages {
		fmt.Fprintf(&kids, "%d 0 R ", i+4)
	}
	objects := []string{
		"<< /Type /Catalog /Pages 2 0 R >>",
		fmt.Sprintf("<< /Type /Pages /Count %d /Kids [%s] /MediaBox [%s] >>", pages, kids.String(), mediaBox),
		fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", len(content), content),
	}
	for range pages {
		objects = append(objects, "<< /Type /Page /Parent 2 0 R /Contents 3 0 R /Resources << >> >>")
	}
	return stack.PDFObjects("", objects)
}

func recursive() []byte {
	form := "/F Do /F Do /F Do"
	return stack.PDFObjects("", []string{
		"<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Count 1 /Kids [4 0 R ] /MediaBox [0 0 200 200] >>",
		fmt.Sprintf("<< /Type /XObject /Subtype /Form /BBox [0 0 200 200] /Resources << /XObject << /F 3 0 R >> >> /Length %d >>\nstream\n%s\nendstream", len(form), form),
		"<< /Type /Page /Parent 2 0 R /Contents 5 0 R /Resources << /XObject << /F 3 0 R >> >> >>",
		"<< /Length 5 >>\nstream\n/F Do\nendstream",
	})
}
