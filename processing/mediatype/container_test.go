package mediatype

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

func inspect(data []byte) Found { return Inspect(bytes.NewReader(data), int64(len(data))) }

// A document of Office 97-2003 is known by its directory, wherever in the file that is.
func TestInspectOLE(t *testing.T) {
	t.Parallel()
	only := func(streams ...string) []byte {
		parts := make([]stack.OLEStream, len(streams)+1)
		parts[0] = stack.OLEStream{Name: "\x01CompObj", Content: strings.Repeat("x", 100<<10)}
		for i, s := range streams {
			parts[i+1] = stack.OLEStream{Name: s}
		}
		return stack.CompoundFile([16]byte{}, parts...)
	}
	installer := [16]byte{0x84, 0x10, 0x0C, 0, 0, 0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, 0x46}
	user := strings.Repeat("\x00", 12) + "\xDF\xC4\xD1\xF3"
	for name, c := range map[string]struct {
		data []byte
		want Found
	}{
		"doc":                                {stack.Word97(0, false), Found{"application/msword", false}},
		"doc, directory behind 64 KiB":       {stack.Word97(200<<10, false), Found{"application/msword", false}},
		"doc, of more sectors than a header": {stack.Word97(9<<20, false), Found{"application/msword", false}},
		"doc with a password":                {stack.Word97(100<<10, true), Found{"application/msword", true}},
		"xls":                                {stack.Excel97(20_000, false), Found{"application/vnd.ms-excel", false}},
		"xls with a password":                {stack.Excel97(20_000, true), Found{"application/vnd.ms-excel", true}},
		"xls of Excel 95":                    {only("Book"), Found{"application/vnd.ms-excel", false}},
		"xls of a program that shouts":       {only("WORKBOOK"), Found{"application/vnd.ms-excel", false}},
		"ppt":                                {only("PowerPoint Document", "Current User"), Found{"application/vnd.ms-powerpoint", false}},
		"ppt with a password": {stack.CompoundFile([16]byte{}, stack.OLEStream{Name: "PowerPoint Document", Content: strings.Repeat("x", 90<<10)},
			stack.OLEStream{Name: "Current User", Content: user}), Found{"application/vnd.ms-powerpoint", true}},
		"docx with a password":   {stack.EncryptedOffice(), Found{EncryptedOffice, true}},
		"mpp":                    {only("\x01CompObj", "   114"), Found{"application/vnd.ms-project", false}},
		"rvt":                    {only("BasicFileInfo", "RevitPreview4.0"), Found{"application/vnd.autodesk.revit", false}},
		"msg":                    {only("__properties_version1.0"), Found{"application/vnd.ms-outlook", false}},
		"installer":              {stack.CompoundFile(installer, stack.OLEStream{Name: "x", Content: strings.Repeat("x", 90<<10)}), Found{"application/x-ms-installer", false}},
		"something else":         {only("Contents"), Found{"application/x-ole-storage", false}},
		"cut off before the end": {stack.Word97(100<<10, false)[:64<<10], Found{"application/x-ole-storage", false}},
	} {
		if got := inspect(c.data); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// An archive is known by its list of files, at its end, whatever comes first.
func TestInspectZip(t *testing.T) {
	t.Parallel()
	const office, odf = "application/vnd.openxmlformats-officedocument.", "application/vnd.oasis.opendocument."
	part := func(name, content string) stack.ZipFile { return stack.ZipFile{Name: name, Content: content} }
	big := stack.ZipFile{Name: "docProps/thumbnail.jpeg", Content: strings.Repeat("jpeg", 50<<10), Stored: true}
	types := part("[Content_Types].xml", "<Types/>")
	for name, c := range map[string]struct {
		data []byte
		want Found
	}{
		"docx behind a large preview": {stack.Zip(big, types, part("word/document.xml", "<d/>")), Found{office + "wordprocessingml.document", false}},
		"docx of SharePoint":          {stack.Zip(big, types, part("word/document2.xml", "<d/>")), Found{office + "wordprocessingml.document", false}},
		"docx with a workbook in it":  {stack.Zip(types, part("word/document.xml", ""), part("word/embeddings/Book1.xlsx", "PK\x03\x04")), Found{office + "wordprocessingml.document", false}},
		"xlsx":                        {stack.Zip(big, types, part("xl/workbook.xml", "<w/>")), Found{office + "spreadsheetml.sheet", false}},
		"xlsm":                        {stack.Zip(types, part("xl/workbook.xml", "<w/>"), part("xl/vbaProject.bin", "")), Found{"application/vnd.ms-excel.sheet.macroenabled.12", false}},
		"xlsb":                        {stack.Zip(types, part("xl/workbook.bin", "")), Found{"application/vnd.ms-excel.sheet.binary.macroenabled.12", false}},
		"ods whose type is not first": {stack.Zip(part("content.xml", "<o/>"), part("mimetype", odf+"spreadsheet")), Found{odf + "spreadsheet", false}},
		"odp":                         {stack.Zip(part("mimetype", odf+"presentation\n")), Found{odf + "presentation", false}},
		"odt with a password":         {stack.Zip(part("mimetype", odf+"text"), part("META-INF/manifest.xml", "<manifest:encryption-data/>")), Found{odf + "text", true}},
		"a mimetype that is none":     {stack.Zip(part("mimetype", odf+"text\x00<script>")), Found{zipType, false}},
		"kmz":                         {stack.Zip(part("files/1.jpg", "x"), part("doc.kml", "<kml/>")), Found{kmzType, false}},
		"kmz that is not called doc":  {stack.Zip(part("Obra 14.kml", "<kml/>"), part("files/1.jpg", "x")), Found{kmzType, false}},
		"an archive with a kml in it": {stack.Zip(part("plan.kml", "<kml/>"), part("acta.txt", "x")), Found{zipType, false}},
		"a program for a phone":       {stack.Zip(big, part("word/document.xml", ""), part("classes.dex", "")), Found{"application/vnd.android.package-archive", false}},
		"a Java program":              {stack.Zip(big, part("a.class", ""), part("META-INF/MANIFEST.MF", "")), Found{"application/java-archive", false}},
		"an archive that begins with an empty file": {stack.Zip(stack.ZipFile{Stored: true}, part("photos/1.jpg", "x")), Found{zipType, false}},
		"an archive":                 {stack.Zip(part("photos/1.jpg", "\xFF\xD8\xFF")), Found{zipType, false}},
		"an archive without its end": {stack.Zip(big, types, part("xl/workbook.xml", "<w/>"))[:100<<10], Found{zipType, false}},
	} {
		if got := inspect(c.data); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	locked := stack.Zip(part("a.txt", "a"))
	for _, signature := range []struct {
		bytes string
		flags int
	}{{"PK\x03\x04", 6}, {"PK\x01\x02", 8}} {
		locked[bytes.Index(locked, []byte(signature.bytes))+signature.flags] |= 1
	}
	if got := inspect(locked); got != (Found{zipType, true}) {
		t.Errorf("an archive with a password: %+v", got)
	}
}

// Whatever a directory says, reading it ends, and gives a media type.
func FuzzInspect(f *testing.F) {
	f.Add(stack.Word97(1<<10, true))
	f.Add(stack.Excel97(10, true))
	f.Add(stack.OfficeDocument(stack.Word, "", nil))
	f.Add(stack.OpenDocument(nil))
	f.Add([]byte(oleSignature))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := inspect(data); !typePattern.MatchString(got.Type) {
			t.Errorf("%q is not a media type", got.Type)
		}
	})
}
