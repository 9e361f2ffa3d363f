package corpus

import (
	"archive/zip"
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// archives are for whoever looks into them: the virus scanner, and the reader of office documents.
func archives(eicar string) []File {
	const zipType = "application/zip"
	return []File{
		{"a virus.com", "", []byte(eicar), []string{Infected}},
		{"a virus in an archive.zip", zipType, zipped("a.com", []byte(eicar)), []string{Infected}},
		{"a virus in archives in archives.zip", zipType, nestedZip([]byte(eicar), 6), []string{Infected}},
		{"archives deeper than are looked into.zip", zipType, nestedZip([]byte(eicar), 40), []string{Unscannable, Infected}},
		{"a gigabyte in a megabyte.zip", zipType, bomb(1100 << 20), []string{Unscannable}},
		{"fifty thousand files.zip", zipType, manyFiles(50_000), []string{Unscannable}},
		{"with a password.zip", zipType, encrypted(), []string{Unscannable}},
		{"a way out.zip", zipType, zipped("../../../../etc/cron.d/x", []byte("x")), []string{NoPicture}},
		{"lies of its size.zip", zipType, lying(), []string{NoPicture, Unscannable}},
	}
}

func zipped(name string, content []byte) []byte {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	f, _ := w.Create(name)
	_, _ = f.Write(content)
	_ = w.Close()
	return out.Bytes()
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
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for i := range n {
		f, _ := w.CreateHeader(&zip.FileHeader{Name: fmt.Sprint(i), Method: zip.Store})
		_, _ = io.WriteString(f, "x")
	}
	_ = w.Close()
	return out.Bytes()
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
func offices() []File {
	const docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	with := func(name string, thumbnail []byte) []byte {
		return office([2]string{"[Content_Types].xml", `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>`},
			[2]string{"_rels/.rels", `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/package/2006/relationships/metadata/thumbnail" Target="` + name + `"/></Relationships>`},
			[2]string{"word/document.xml", "<w/>"}, [2]string{name, string(thumbnail)})
	}
	return []File{
		{"a preview that is a bomb.docx", docx, with("docProps/thumbnail.png", newPNG(1_000_000, 1_000_000, 8, 2, 0, deflated(nil))), []string{TooLarge, NoPicture, Unsupported}},
		{"a preview of 64 megabytes.docx", docx, with("docProps/thumbnail.jpeg", zeros(1<<26)), []string{NoPicture, Unreadable, Limited, Unsupported, TooLarge}},
		{"a preview from outside.docx", docx, with("../../../../etc/passwd", []byte("x")), []string{NoPicture, Unsupported, Unreadable}},
		{"a preview that is a program.docx", docx, with("docProps/thumbnail.jpeg", []byte("MZ\x90\x00")), []string{NoPicture, Unreadable, Unsupported}},
	}
}

func office(files ...[2]string) []byte {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, f := range files {
		part, _ := w.Create(f[0])
		_, _ = io.WriteString(part, f[1])
	}
	_ = w.Close()
	return out.Bytes()
}

// drawings are AutoCAD's, with the address of a preview at 0x0D (Open Design Specification for .dwg, 3.2.6).
func drawings() []File {
	head := func(at uint32, rest []byte) []byte {
		return slices.Concat([]byte("AC1027\x00\x00\x00\x00\x00\x00\x00"), le32(nil, at), zeros(111), rest)
	}
	sentinel := []byte{0x1F, 0x25, 0x6D, 0x07, 0xD4, 0x36, 0x28, 0x28, 0x9D, 0x57, 0xCA, 0x3F, 0x9D, 0x44, 0x10, 0x2B}
	none := []string{NoPicture, Unsupported, Unreadable, TooLarge}
	return []File{
		{"a preview beyond the end.dwg", "image/vnd.dwg", head(0xFFFF_FFF0, nil), none},
		{"a preview of four gigabytes.dwg", "image/vnd.dwg", head(128, slices.Concat(sentinel, le32(nil, 0xFFFF_FFFF), []byte{1, 2}, le32(nil, 160, 0xFFFF_FFFF))), none},
		{"255 previews that are each other.dwg", "image/vnd.dwg", head(128, slices.Concat(sentinel, le32(nil, 4000), []byte{255}, bytes.Repeat(append([]byte{6}, le32(nil, 128, 128)...), 255))), none},
		{"a preview that is a bomb.dwg", "image/vnd.dwg", head(128, slices.Concat(sentinel, le32(nil, 4000), []byte{1, 6}, le32(nil, 158, 67), newPNG(1_000_000, 1_000_000, 8, 2, 0, deflated(nil)))), none},
	}
}
