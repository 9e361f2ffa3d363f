package mediatype

import (
	"archive/zip"
	"bytes"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// isoFile begins an ISO base media file with the given brands, the major one first.
func isoFile(brands ...string) string {
	all := brands[0] + "\x00\x00\x00\x00" + strings.Join(brands[1:], "")
	return "\x00\x00\x00" + string(rune(8+len(all))) + "ftyp" + all + "\x00\x00\x00\x08mdat"
}

func TestDetectType(t *testing.T) {
	t.Parallel()
	dng := "II*\x00\x08\x00\x00\x00\x02\x00" + "\xFE\x00\x04\x00\x01\x00\x00\x00\x01\x00\x00\x00" + "\x12\xC6\x01\x00\x04\x00\x00\x00\x01\x04\x00\x00"
	for _, c := range []struct{ name, head, want string }{
		{"jpeg", "\xFF\xD8\xFF\xE0\x00\x10JFIF\x00", "image/jpeg"},
		{"png", "\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR", "image/png"},
		{"webp", "RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"},
		{"tiff for orthomosaics", "II+\x00\x08\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00", "image/tiff"},
		{"tiff", "II*\x00\x08\x00\x00\x00\x00\x00", "image/tiff"},
		{"dng", dng, "image/x-adobe-dng"},
		{"tiff with a directory beyond the head", "MM\x00*\xFF\xFF\xFF\xFF", "image/tiff"},
		{"iphone", isoFile("heic", "mif1", "heic"), "image/heic"},
		{"heif of any codec", isoFile("mif1", "mif1", "unci"), "image/heif"},
		{"heic behind mif1", isoFile("mif1", "mif1", "heic"), "image/heic"},
		{"sony", isoFile("MiHE", "mif1", "heix"), "image/heic"},
		{"canon", isoFile("jpeg", "mif1"), "image/heif"},
		{"avif", isoFile("avif", "mif1"), "image/avif"},
		{"avif behind mif1", isoFile("mif1", "avif"), "image/avif"},
		{"mp4", isoFile("isom", "isom", "iso2", "avc1", "mp41"), "video/mp4"},
		{"mp4 of a phone", isoFile("mp42", "isom", "mp42"), "video/mp4"},
		{"quicktime", isoFile("qt  ", "qt  "), "video/quicktime"},
		{"dwg 2013", "AC1027\x00\x00\x00\x00\x00", "image/vnd.dwg"},
		{"dwg 2018", "AC1032\x00\x00\x00\x00\x00", "image/vnd.dwg"},
		{"a text that begins like one", "AC10 is the room", "text/plain"},
		{"dwg r14", "AC1014\x00\x00\x00\x00\x00", "image/vnd.dwg"},
		{"dwg 2000", "AC1015\x00\x00\x00\x00\x00", "image/vnd.dwg"},
		{"dwg 2004", "AC1018\x00\x00\x00\x00\x00", "image/vnd.dwg"},
		{"dwg 2007", "AC1021\x00\x00\x00\x00\x00", "image/vnd.dwg"},
		{"dwg 2010", "AC1024\x00\x00\x00\x00\x00", "image/vnd.dwg"},
		{"quicktime of old, without a brand", "\x00\x00\x00\x08wide\x00\x00\x10\x00mdat", "video/quicktime"},
		{"3gp of an old phone", isoFile("3gp4", "isom", "3gp4"), "video/3gpp"},
		{"3gp of a newer one", isoFile("3gp5", "3gp5", "isom"), "video/3gpp"},
		{"a playlist that is called mp4", "#EXTM3U\n#EXT-X-VERSION:3\nfile:///etc/passwd\n", "application/vnd.apple.mpegurl"},
		{"pdf", "%PDF-1.7\n", "application/pdf"},
		{"text", "hormigón\n", "text/plain"},
		{"zip", "PK\x03\x04\x14\x00\x00\x00\x08\x00", "application/zip"},
		{"unknown", "\x00\x01\x02\x03", Unknown},
		{"a header cut off", "\x00\x00\x00\x18ftyp", Unknown},
	} {
		if got := Detect([]byte(c.head)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Office documents are known by their main part, wherever the program that wrote them put it.
func TestDetectOffice(t *testing.T) {
	t.Parallel()
	const office = "application/vnd.openxmlformats-officedocument."
	part := func(name, content string) stack.ZipFile { return stack.ZipFile{Name: name, Content: content} }
	thumbnail := stack.ZipFile{Name: "docProps/thumbnail.jpeg", Content: strings.Repeat("jpeg", 10<<10), Stored: true}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"docx", stack.OfficeDocument(stack.Word, "", nil), office + "wordprocessingml.document"},
		{"xlsx", stack.OfficeDocument(stack.Excel, "", nil), office + "spreadsheetml.sheet"},
		{"pptx", stack.OfficeDocument(stack.PowerPoint, "", nil), office + "presentationml.presentation"},
		{"pptx with its preview first", stack.Zip(part("[Content_Types].xml", "<Types/>"), thumbnail, part("ppt/presentation.xml", "<p/>")), office + "presentationml.presentation"},
		{"docx of a program that writes its types last", stack.Zip(part("word/numbering.xml", "<n/>"), part("word/document.xml", "<d/>"), part("[Content_Types].xml", "<Types/>")), office + "wordprocessingml.document"},
		{"odt", stack.OpenDocument(nil), "application/vnd.oasis.opendocument.text"},
		{"photos in an archive", stack.Zip(part("photos/1.jpg", "\xFF\xD8\xFF")), "application/zip"},
	} {
		if got := Detect(c.data); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	// A document stored inside of an archive does not make it one.
	inner := stack.ZipFile{Name: "report.docx", Content: string(stack.OfficeDocument(stack.Word, "", nil)), Stored: true}
	archive := bytes.NewBuffer(nil)
	w := zip.NewWriter(archive)
	file, err := w.CreateRaw(&zip.FileHeader{Name: inner.Name, CompressedSize64: uint64(len(inner.Content)), UncompressedSize64: uint64(len(inner.Content))})
	stack.Must(t, err)
	if _, err := file.Write([]byte(inner.Content)); err != nil {
		t.Fatal(err)
	}
	stack.Must(t, w.Close())
	if got := Detect(archive.Bytes()); got != "application/zip" {
		t.Errorf("an archive with a document in it: %s", got)
	}
}

func TestTypePolicy(t *testing.T) {
	t.Parallel()
	policy, err := ParsePolicy(" image/*, application/PDF ,,text/plain")
	stack.Must(t, err)
	for mediaType, want := range map[string]bool{
		"image/jpeg": true, "IMAGE/HEIC": true, "application/acad": true, "application/pdf": true, "text/plain; charset=utf-8": true,
		"video/mp4": false, "text/html": false, "": false, "image": false, "imagery/jpeg": false,
	} {
		if got := policy.Allows(mediaType); got != want {
			t.Errorf("%q: %t, want %t", mediaType, got, want)
		}
	}
	if (Policy{}).Allows("image/jpeg") {
		t.Error("the zero policy allows something")
	}
	if !(Policy{Allowed: []string{"*/*"}}).Allows("a/b") {
		t.Error("*/* does not allow everything")
	}
	for _, list := range []string{"", " , ", "jpeg", "image/", "*/jpeg", "image/jpeg image/png"} {
		if _, err := ParsePolicy(list); err == nil {
			t.Errorf("%q was accepted", list)
		}
	}
	standard, err := ParsePolicy(Accepted)
	if err != nil || len(standard.Allowed) != 53 {
		t.Errorf("the default list has %d entries, %v", len(standard.Allowed), err)
	}
}

func TestMismatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		declared, detected string
		want               bool
	}{
		{"image/jpeg", "image/heic", false},
		{"image/jpeg", "video/mp4", true},
		{"image/jpeg", "text/html", true},
		{"image/jpeg", Unknown, true},
		{"video/mp4", Unknown, true},
		{"video/mp4", "audio/mp4", false},
		{"application/pdf", Unknown, true},
		{"application/pdf", "text/html", true},
		{"application/pdf", "application/pdf", false},
		{"application/msword", Unknown, false},
		{"application/vnd.ms-excel", "text/csv", false},
		{"text/plain", "application/zip", false},
		{"text/plain", "image/png", true},
		{"application/acad", "image/vnd.dwg", false},
		{"image/x-dwg", "image/vnd.dwg", false},
		{"application/zip", "image/jpeg", true},
		{"", "image/jpeg", false},
		{Unknown, "image/jpeg", false},
		{"Image/JPG; name=x", "image/jpeg", false},
		// A type and what it is a kind of.
		{"image/png", "image/apng", false},
		{"text/plain", "message/rfc822", false},
		{"text/plain", "image/x-portable-bitmap", false},
		{"image/vnd.dxf", "text/plain", false},
		{"application/dxf", "image/vnd.dxf", false},
		{"application/ogg", "audio/ogg", false},
		{"application/x-step", "text/plain", false},
		{"application/json", "message/rfc822", false},
		{"application/vnd.ms-excel", EncryptedOffice, false},
		// Families that exclude each other.
		{"video/mp4", "image/heic", true},
		{"image/jpeg", "image/vnd.dwg", true},
		{"audio/ogg", "image/jpeg", true},
		{"text/plain", "video/mp4", true},
	} {
		if got := Mismatch(c.declared, c.detected); got != c.want {
			t.Errorf("declared %q, detected %q: %t, want %t", c.declared, c.detected, got, c.want)
		}
	}
}

func FuzzDetectType(f *testing.F) {
	f.Add([]byte(isoFile("mif1", "heic")))
	f.Add([]byte("MM\x00*\xFF\xFF\xFF\xFF"))
	f.Add(stack.OfficeDocument(stack.Word, "", nil))
	f.Fuzz(func(t *testing.T, head []byte) {
		if got := Detect(head); !typePattern.MatchString(got) {
			t.Errorf("%q is not a media type", got)
		}
	})
}
