package preview_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/image/bmp"

	"github.com/tramo/tramo/processing/preview"
	"github.com/tramo/tramo/test/stack"
)

const (
	dwg  = "image/vnd.dwg"
	docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	odt  = "application/vnd.oasis.opendocument.text"
)

// flag is a picture of 8 by 4 pixels: red above, blue below.
func flag() *image.Paletted {
	picture := image.NewPaletted(image.Rect(0, 0, 8, 4), color.Palette{color.RGBA{255, 0, 0, 255}, color.RGBA{0, 0, 255, 255}})
	for i := range picture.Pix {
		picture.Pix[i] = byte(i / 16)
	}
	return picture
}

func encoded(t testing.TB, encode func(*bytes.Buffer) error) []byte {
	t.Helper()
	var out bytes.Buffer
	stack.Must(t, encode(&out))
	return out.Bytes()
}

func pngFlag(t testing.TB) []byte {
	return encoded(t, func(out *bytes.Buffer) error { return png.Encode(out, flag()) })
}

func jpegFlag(t testing.TB) []byte {
	return encoded(t, func(out *bytes.Buffer) error { return jpeg.Encode(out, flag(), nil) })
}

// dib is a bitmap as it is in a drawing: the file that Go writes, without its header.
func dib(t testing.TB, picture image.Image) []byte {
	return encoded(t, func(out *bytes.Buffer) error { return bmp.Encode(out, picture) })[14:]
}

func isFlag(t *testing.T, name string, data []byte) {
	t.Helper()
	picture, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	above, _, _, _ := picture.At(1, 0).RGBA()
	_, _, below, _ := picture.At(6, 3).RGBA()
	if picture.Bounds().Dx() != 8 || picture.Bounds().Dy() != 4 || above < 0xE000 || below < 0xE000 {
		t.Errorf("%s: not the flag: %v, %v above, %v below", name, picture.Bounds(), picture.At(1, 0), picture.At(6, 3))
	}
}

func TestEmbedded(t *testing.T) {
	t.Parallel()
	trueColour := image.NewRGBA(flag().Bounds())
	for y := range 4 {
		for x := range 8 {
			trueColour.Set(x, y, flag().At(x, y))
		}
	}
	// AutoCAD writes an entry of 80 zero bytes first, whose code is 1.
	header := stack.DWGEntry{Code: 1, Data: make([]byte, 80)}
	bitmap := stack.DWGEntry{Code: stack.DWGBitmap, Data: dib(t, flag())}
	pngEntry := stack.DWGEntry{Code: stack.DWGPNG, Data: pngFlag(t)}
	metafile := stack.DWGEntry{Code: stack.DWGMetafile, Data: []byte("\xD7\xCD\xC6\x9A")}
	for name, c := range map[string]struct {
		mediaType string
		data      []byte
	}{
		"dwg r14 with a bitmap":           {dwg, stack.DWG("AC1014", header, bitmap)},
		"dwg 2000 with a colour bitmap":   {dwg, stack.DWG("AC1015", header, stack.DWGEntry{Code: stack.DWGBitmap, Data: dib(t, trueColour)})},
		"dwg 2004 with a metafile too":    {dwg, stack.DWG("AC1018", header, metafile, bitmap)},
		"dwg 2007":                        {dwg, stack.DWG("AC1021", header, bitmap)},
		"dwg 2010":                        {dwg, stack.DWG("AC1024", header, bitmap)},
		"dwg 2013 with a png":             {dwg, stack.DWG("AC1027", header, pngEntry)},
		"dwg 2018 with both":              {dwg, stack.DWG("AC1032", header, stack.DWGEntry{Code: stack.DWGBitmap, Data: []byte("x")}, pngEntry)},
		"dwg with an empty png":           {dwg, stack.DWG("AC1032", stack.DWGEntry{Code: stack.DWGPNG}, bitmap)},
		"docx":                            {docx, stack.OfficeDocument(stack.Word, "docProps/thumbnail.jpeg", jpegFlag(t))},
		"xlsx with a png":                 {strings.Replace(docx, "wordprocessingml.document", "spreadsheetml.sheet", 1), stack.OfficeDocument(stack.Excel, "docProps/thumbnail.png", pngFlag(t))},
		"pptx":                            {strings.Replace(docx, "wordprocessingml.document", "presentationml.presentation", 1), stack.OfficeDocument(stack.PowerPoint, "/docProps/thumbnail.jpeg", jpegFlag(t))},
		"docx with its preview elsewhere": {docx, stack.OfficeDocument(stack.Word, "media/first page.bin", pngFlag(t))},
		"odt":                             {odt, stack.OpenDocument(pngFlag(t))},
	} {
		got, err := preview.Embedded(c.data, c.mediaType)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		isFlag(t, name, got)
	}
}

// What carries no preview, or one that is not drawn, is told apart from what is damaged.
func TestNothingEmbedded(t *testing.T) {
	t.Parallel()
	none, damaged := error(nil), errors.New("any")
	metafile := stack.DWGEntry{Code: stack.DWGMetafile, Data: []byte("\xD7\xCD\xC6\x9A")}
	pointing := func(at uint32) []byte {
		file := stack.DWG("AC1015", metafile)
		binary.LittleEndian.PutUint32(file[0x0D:], at)
		return file
	}
	lying := stack.DWG("AC1027", stack.DWGEntry{Code: stack.DWGPNG, Data: pngFlag(t)})
	binary.LittleEndian.PutUint32(lying[0x80+21+5:], 0xFFFFFFFF)
	huge := dib(t, flag())
	binary.LittleEndian.PutUint32(huge[4:], 30_000)
	binary.LittleEndian.PutUint32(huge[8:], 30_000)
	external := stack.Zip(stack.ZipFile{Name: "_rels/.rels", Content: `<Relationships><Relationship Type="http://x/relationships/metadata/thumbnail" TargetMode="External" Target="http://192.0.2.1/x.png"/></Relationships>`})
	climbing := stack.OfficeDocument(stack.Word, "../../../../etc/passwd", nil)
	docxFile := stack.OfficeDocument(stack.Word, "docProps/thumbnail.jpeg", jpegFlag(t))
	for name, c := range map[string]struct {
		mediaType string
		data      []byte
		want      error
	}{
		"another type":                                     {"application/zip", docxFile, none},
		"dwg without image data":                           {dwg, stack.DWG("AC1015"), none},
		"dwg cut off in its head":                          {dwg, []byte("AC1015"), none},
		"dwg with a metafile":                              {dwg, stack.DWG("AC1015", metafile), preview.ErrFormat},
		"dwg with an empty table":                          {dwg, stack.DWG("AC1015", stack.DWGEntry{Code: 1}), none},
		"dwg pointing beyond its end":                      {dwg, pointing(0xFFFFFFF0), damaged},
		"dwg pointing at its head":                         {dwg, pointing(1), damaged},
		"dwg with a lying length":                          {dwg, lying, damaged},
		"dwg with a bitmap of 900 megapixels in 300 bytes": {dwg, stack.DWG("AC1015", stack.DWGEntry{Code: stack.DWGBitmap, Data: huge}), damaged},
		"dwg with a bitmap cut off":                        {dwg, stack.DWG("AC1015", stack.DWGEntry{Code: stack.DWGBitmap, Data: dib(t, flag())[:45]}), damaged},
		"dwg whose png is something else":                  {dwg, stack.DWG("AC1027", stack.DWGEntry{Code: stack.DWGPNG, Data: []byte("<svg/>")}), preview.ErrFormat},
		"docx without a preview":                           {docx, stack.OfficeDocument(stack.Word, "", nil), none},
		"docx with a metafile":                             {docx, stack.OfficeDocument(stack.Word, "docProps/thumbnail.emf", []byte("\x01\x00\x00\x00")), preview.ErrFormat},
		"docx whose preview is a page":                     {docx, stack.OfficeDocument(stack.Word, "docProps/thumbnail.jpeg", []byte("<html>")), preview.ErrFormat},
		"docx whose preview is elsewhere":                  {docx, external, none},
		"docx that climbs":                                 {docx, climbing, none},
		"docx cut off":                                     {docx, docxFile[:len(docxFile)/2], damaged},
		"docx with relationships that are no XML":          {docx, stack.Zip(stack.ZipFile{Name: "_rels/.rels", Content: "<<<"}), damaged},
		"odt without a preview":                            {odt, stack.OpenDocument(nil), none},
		"odt that is empty":                                {odt, nil, damaged},
	} {
		got, err := preview.Embedded(c.data, c.mediaType)
		switch {
		case got != nil:
			t.Errorf("%s: a preview of %d bytes", name, len(got))
		case errors.Is(c.want, damaged) && (err == nil || errors.Is(err, preview.ErrFormat) || errors.Is(err, preview.ErrTooLarge)):
			t.Errorf("%s: %v, want that it is damaged", name, err)
		case !errors.Is(c.want, damaged) && !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// Whatever an archive claims or unpacks to, what is allocated for it stays small.
func TestBombsAreBounded(t *testing.T) {
	entries := func(n int) []byte {
		var out bytes.Buffer
		w := zip.NewWriter(&out)
		for i := range n {
			if _, err := w.CreateRaw(&zip.FileHeader{Name: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		stack.Must(t, w.Close())
		return out.Bytes()
	}
	bomb := strings.Repeat("\x00", 64<<20)
	// The record of zip64 says that there are 2^40 files.
	many := entries(70_000)
	record := bytes.LastIndex(many, []byte("PK\x06\x06"))
	binary.LittleEndian.PutUint64(many[record+32:], 1<<40)
	huge := dib(t, flag())
	binary.LittleEndian.PutUint32(huge[4:], 30_000)
	binary.LittleEndian.PutUint32(huge[8:], 30_000)
	for name, c := range map[string]struct {
		mediaType string
		data      []byte
	}{
		"a bitmap of 900 megapixels": {dwg, stack.DWG("AC1015", stack.DWGEntry{Code: stack.DWGBitmap, Data: huge})},
		"a million files":            {docx, entries(1_000_000)},
		"a trillion, it says":        {docx, many},
		"a preview of 64 MiB":        {odt, stack.OpenDocument([]byte(bomb))},
		"a compressed one":           {docx, stack.OfficeDocument(stack.Word, "docProps/thumbnail.jpeg", []byte(bomb))},
		"relationships of 64 MiB":    {docx, stack.Zip(stack.ZipFile{Name: "_rels/.rels", Content: bomb})},
		"deep relationships":         {docx, stack.Zip(stack.ZipFile{Name: "_rels/.rels", Content: strings.Repeat("<a>", 80<<10)})},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := preview.Embedded(c.data, c.mediaType)
		runtime.ReadMemStats(&after)
		if got != nil || err == nil {
			t.Errorf("%s: %d bytes, %v; want an error", name, len(got), err)
		}
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 128<<20 {
			t.Errorf("%s: %d bytes were allocated", name, allocated)
		} else {
			t.Logf("%s: %d KiB allocated, %v", name, allocated>>10, err)
		}
	}
}

func FuzzEmbedded(f *testing.F) {
	types := []string{dwg, docx, odt}
	f.Add(uint8(0), stack.DWG("AC1015", stack.DWGEntry{Code: stack.DWGBitmap, Data: dib(f, flag())}))
	f.Add(uint8(0), stack.DWG("AC1027", stack.DWGEntry{Code: 1, Data: make([]byte, 80)}, stack.DWGEntry{Code: stack.DWGPNG, Data: pngFlag(f)}))
	f.Add(uint8(1), stack.OfficeDocument(stack.Word, "docProps/thumbnail.jpeg", jpegFlag(f)))
	f.Add(uint8(2), stack.OpenDocument(pngFlag(f)))
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		got, err := preview.Embedded(data, types[int(kind)%len(types)])
		if err != nil && got != nil {
			t.Errorf("both a preview and %v", err)
		}
		if len(got) > preview.Limit {
			t.Errorf("a preview of %d bytes", len(got))
		}
	})
}
