package facts

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// An entry of a directory (TIFF 6.0, section 2): value is at most four bytes, or is put behind the directory.
type entry struct {
	tag, kind uint16
	count     uint32
	value     []byte
}

const (
	ascii    = 2
	short    = 3
	long     = 4
	rational = 5
)

func text(tag uint16, s string) entry {
	return entry{tag, ascii, uint32(len(s) + 1), append([]byte(s), 0)}
}

func words(tag, kind uint16, values ...uint32) entry {
	e := entry{tag: tag, kind: kind, count: uint32(len(values))}
	for _, v := range values {
		if kind == short {
			e.value = binary.BigEndian.AppendUint16(e.value, uint16(v))
		} else {
			e.value = binary.BigEndian.AppendUint32(e.value, v)
		}
	}
	if kind == rational {
		e.count /= 2
	}
	return e
}

// directory returns one whose first byte is at the offset given; next is where the following one is.
func directory(at, next uint32, entries ...entry) []byte {
	head := binary.BigEndian.AppendUint16(nil, uint16(len(entries)))
	var behind []byte
	start := at + 2 + 12*uint32(len(entries)) + 4
	for _, e := range entries {
		head = binary.BigEndian.AppendUint16(head, e.tag)
		head = binary.BigEndian.AppendUint16(head, e.kind)
		head = binary.BigEndian.AppendUint32(head, e.count)
		if len(e.value) > 4 {
			head = binary.BigEndian.AppendUint32(head, start+uint32(len(behind)))
			behind = append(behind, e.value...)
		} else {
			head = append(head, append(e.value, 0, 0, 0, 0)[:4]...)
		}
	}
	return append(binary.BigEndian.AppendUint32(head, next), behind...)
}

const (
	makeTag = 0x010f
	gpsAt   = 200 // where exif puts the GPS directory
)

// exif returns EXIF with the given GPS directory, and a maker's name if there is room.
func exif(first []entry, gps ...entry) []byte {
	all := slices.Concat(first, []entry{words(0x8825, long, gpsAt)})
	out := append([]byte("MM\x00*\x00\x00\x00\x08"), directory(8, 0, all...)...)
	if len(out) > gpsAt {
		return out
	}
	return append(append(out, make([]byte, gpsAt-len(out))...), directory(gpsAt, 0, gps...)...)
}

func webp(chunks ...string) []byte {
	var body []byte
	for i := 0; i < len(chunks); i += 2 {
		body = append(body, chunks[i]...)
		body = binary.LittleEndian.AppendUint32(body, uint32(len(chunks[i+1])))
		body = append(body, chunks[i+1]...)
		body = append(body, make([]byte, len(chunks[i+1])%2)...)
	}
	return append(binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(4+len(body))), append([]byte("WEBP"), body...)...)
}

const vp8x = "\x0c\x00\x00\x00\x3f\x00\x00\x2f\x00\x00" // 64 by 48, with EXIF and XMP

func pngWith(chunks ...string) []byte {
	out := []byte("\x89PNG\r\n\x1a\n")
	for i := 0; i < len(chunks); i += 2 {
		out = binary.BigEndian.AppendUint32(out, uint32(len(chunks[i+1])))
		out = append(append(out, chunks[i]...), chunks[i+1]...)
		out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE([]byte(chunks[i]+chunks[i+1])))
	}
	return out
}

const ihdr = "\x00\x00\x00\x40\x00\x00\x00\x30\x08\x02\x00\x00\x00"

// box is one of ISO/IEC 14496-12, 4.2.
func box(name string, content ...string) string {
	all := strings.Join(content, "")
	return string(binary.BigEndian.AppendUint32(nil, uint32(8+len(all)))) + name + all
}

// heif is a file without pixels whose two items are EXIF and XMP (ISO/IEC 23008-12, annex A).
func heif(exif []byte, xmp string) []byte {
	exifItem := "\x00\x00\x00\x06Exif\x00\x00" + string(exif)
	build := func(at uint32) string {
		extent := func(id uint16, offset uint32, length int) string {
			item := binary.BigEndian.AppendUint16(nil, id)
			item = append(item, 0, 0, 0, 1) // data reference, extents
			item = binary.BigEndian.AppendUint32(item, offset)
			return string(binary.BigEndian.AppendUint32(item, uint32(length)))
		}
		return box("ftyp", "heic\x00\x00\x00\x00mif1heic") + box("meta", "\x00\x00\x00\x00",
			box("pitm", "\x00\x00\x00\x00\x00\x03"),
			box("iinf", "\x00\x00\x00\x00\x00\x02", box("infe", "\x02\x00\x00\x00\x00\x01\x00\x00Exif\x00"),
				box("infe", "\x02\x00\x00\x00\x00\x02\x00\x00mime\x00application/rdf+xml\x00")),
			box("iloc", "\x00\x00\x00\x00\x44\x00\x00\x02", extent(1, at, len(exifItem)), extent(2, at+uint32(len(exifItem)), len(xmp))),
			box("iprp", box("ipco", box("ispe", "\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x30"), box("irot", "\x01")),
				box("ipma", "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x03\x02\x81\x82"))) + "\x00\x00\x00\x00mdat"
	}
	return []byte(build(uint32(len(build(0)))) + exifItem + xmp)
}

func packet(properties string) string {
	return `<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" ` +
		`xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/">` +
		properties + `</rdf:RDF></x:xmpmeta>`
}

func deflated(s string) string {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return out.String()
}

var (
	south = words(2, rational, 34, 1, 36, 1, 13, 1)
	west  = words(4, rational, 58, 1, 22, 1, 54, 1)
)

// What cannot be is not believed, nor what is in the wrong place; and it does not take what is sound beside it along.
func TestImplausibleEXIF(t *testing.T) {
	t.Parallel()
	sound := []entry{text(1, "S"), south, text(3, "W"), west}
	for name, c := range map[string]struct {
		exif  []byte
		place bool
		other func(Facts) bool
	}{
		"sound":                     {exif: exif([]entry{text(makeTag, "Probe")}, sound...), place: true},
		"no hemisphere":             {exif: exif(nil, south, west)},
		"zero denominators":         {exif: exif(nil, text(1, "S"), words(2, rational, 34, 0, 36, 0, 13, 0), text(3, "W"), west)},
		"degrees are text":          {exif: exif(nil, text(1, "S"), text(2, "34.6 degrees"), text(3, "W"), west)},
		"degrees are two":           {exif: exif(nil, text(1, "S"), words(2, rational, 34, 1, 36, 1), text(3, "W"), west)},
		"degrees out of range":      {exif: exif(nil, text(1, "S"), words(2, rational, 134, 1, 36, 1, 13, 1), text(3, "W"), west)},
		"hemisphere is a number":    {exif: exif(nil, words(1, short, 83), south, text(3, "W"), west)},
		"altitude over nothing":     {exif: exif(nil, append(sound, words(6, rational, 7, 0))...), place: true, other: func(f Facts) bool { return f.Altitude == nil }},
		"altitude of space":         {exif: exif(nil, append(sound, words(6, rational, 4000000000, 1))...), place: true, other: func(f Facts) bool { return f.Altitude == nil }},
		"below the sea, EXIF 3.0":   {exif: exif(nil, append(sound, entry{5, 1, 1, []byte{3}}, words(6, rational, 7, 1))...), place: true, other: func(f Facts) bool { return f.Altitude != nil && *f.Altitude == -7 }},
		"direction beyond a circle": {exif: exif(nil, append(sound, words(17, rational, 361, 1))...), place: true, other: func(f Facts) bool { return f.Direction == nil }},
		"maker is a number":         {exif: exif([]entry{words(makeTag, long, 7)}, sound...), place: true, other: func(f Facts) bool { return f.CameraMake == "" }},
		"maker of control":          {exif: exif([]entry{text(makeTag, "\x01\x1b[31mPr\xffobe\n")}, sound...), place: true, other: func(f Facts) bool { return f.CameraMake == "[31mProbe" }},
		"orientation is 9":          {exif: exif([]entry{words(0x0112, short, 9)}, sound...), place: true, other: func(f Facts) bool { return f.Orientation == 0 }},
		"orientation is 5/2":        {exif: exif([]entry{words(0x0112, rational, 5, 2)}, sound...), place: true, other: func(f Facts) bool { return f.Orientation == 0 }},
	} {
		for mediaType, file := range map[string][]byte{
			"image/webp": webp("VP8X", vp8x, "JUNK", "odd", "EXIF", string(c.exif)),
			"image/png":  pngWith("IHDR", ihdr, "eXIf", string(c.exif)),
			"image/tiff": c.exif,
			"image/heic": heif(c.exif, packet("")),
			"image/avif": heif(c.exif, packet("")),
		} {
			f, _ := Read(bytes.NewReader(file), mediaType)
			if (f.Latitude != nil) != c.place || (f.Longitude != nil) != c.place {
				t.Errorf("%s, %s: place is %v, %v", name, mediaType, f.Latitude, f.Longitude)
			}
			if c.place && math.Abs(*f.Latitude+34.603611) > 1e-5 {
				t.Errorf("%s, %s: latitude is %v", name, mediaType, *f.Latitude)
			}
			if c.other != nil && !c.other(f) {
				t.Errorf("%s, %s: %+v", name, mediaType, f)
			}
		}
	}
}

// A packet is read wherever it is; what it says that cannot be is not believed.
func TestXMPPackets(t *testing.T) {
	t.Parallel()
	const place = `exif:GPSLatitude="34,36.2166S" exif:GPSLongitude="58,22,54W"`
	for name, c := range map[string]struct {
		xmp   string
		place bool
		make  string
	}{
		"attributes":          {packet(`<rdf:Description ` + place + ` tiff:Make="Probe"/>`), true, "Probe"},
		"elements":            {packet(`<rdf:Description><exif:GPSLatitude>34,36.2166S</exif:GPSLatitude><exif:GPSLongitude>58,22.9W</exif:GPSLongitude><tiff:Make> Probe </tiff:Make></rdf:Description>`), true, "Probe"},
		"two descriptions":    {packet(`<rdf:Description ` + place + `/><rdf:Description tiff:Make="Probe"/>`), true, "Probe"},
		"another's prefix":    {strings.NewReplacer("xmlns:tiff", "xmlns:xyz", "tiff:Make", "xyz:Make").Replace(packet(`<rdf:Description ` + place + ` tiff:Make="Probe"/>`)), true, "Probe"},
		"in a structure":      {packet(`<rdf:Description><dc:creator><rdf:Description ` + place + ` tiff:Make="Probe"/></dc:creator></rdf:Description>`), false, ""},
		"no hemisphere":       {packet(`<rdf:Description exif:GPSLatitude="34.6" exif:GPSLongitude="58.4" tiff:Make="Probe"/>`), false, "Probe"},
		"no numbers":          {packet(`<rdf:Description exif:GPSLatitude="NaNS" exif:GPSLongitude="InfW" exif:GPSAltitude="1/0" tiff:Make="Probe"/>`), false, "Probe"},
		"wrong hemisphere":    {packet(`<rdf:Description exif:GPSLatitude="34,36.2W" exif:GPSLongitude="58,22.9S"/>`), false, ""},
		"negative":            {packet(`<rdf:Description exif:GPSLatitude="-34,36.2S" exif:GPSLongitude="58,22.9W"/>`), false, ""},
		"damaged behind":      {strings.TrimSuffix(packet(`<rdf:Description `+place+` tiff:Make="Probe"/>`), "</x:xmpmeta>") + "<", true, "Probe"},
		"another vocabulary":  {strings.ReplaceAll(packet(`<rdf:Description tiff:Make="Probe"/>`), "http://ns.adobe.com/tiff/1.0/", "http://example.com/"), false, ""},
		"an entity":           {`<!DOCTYPE x [<!ENTITY a "Probe">]>` + packet(`<rdf:Description tiff:Make="&a;"/>`), false, ""},
		"an unused entity":    {`<!DOCTYPE x [<!ENTITY a "b">]>` + packet(`<rdf:Description tiff:Make="Probe"/>`), false, ""},
		"an external entity":  {`<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>` + packet(`<rdf:Description tiff:Make="&a;"/>`), false, ""},
		"deeper than anybody": {packet(`<rdf:Description>` + strings.Repeat("<dc:a>", 1000) + strings.Repeat("</dc:a>", 1000) + `<tiff:Make>Probe</tiff:Make></rdf:Description>`), false, ""},
	} {
		for kind, file := range map[string][]byte{
			"image/webp":           webp("VP8X", vp8x, "JUNK", "odd", "XMP ", c.xmp),
			"image/png":            pngWith("IHDR", ihdr, "iTXt", "XML:com.adobe.xmp\x00\x00\x00\x00\x00"+c.xmp),
			"image/heic":           heif(nil, c.xmp),
			"image/png;compressed": pngWith("IHDR", ihdr, "iTXt", "XML:com.adobe.xmp\x00\x01\x00\x00\x00"+deflated(c.xmp)),
			"image/png;zTXt":       pngWith("IHDR", ihdr, "tEXt", "Comment\x00x", "zTXt", "XML:com.adobe.xmp\x00\x00"+deflated(c.xmp)),
			"image/jpeg":           append(binary.BigEndian.AppendUint16([]byte{0xff, 0xd8, 0xff, 0xe1}, uint16(31+len(c.xmp))), "http://ns.adobe.com/xap/1.0/\x00"+c.xmp+"\xff\xd9"...),
		} {
			f, _ := Read(bytes.NewReader(file), kind)
			if (f.Latitude != nil) != c.place || f.CameraMake != c.make {
				t.Errorf("%s, %s: place %v, make %q", name, kind, f.Latitude, f.CameraMake)
			}
			if c.place && (math.Abs(*f.Latitude+34.60361) > 1e-5 || math.Abs(*f.Longitude+58.381667) > 1e-5) {
				t.Errorf("%s, %s: place %v, %v", name, kind, *f.Latitude, *f.Longitude)
			}
		}
	}
}

// EXIF comes before XMP; what is implausible there does not hide what XMP says; a zone is taken over only for the same second.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	base := bare(t, "a.jpg")
	const clock = "-EXIF:DateTimeOriginal=2026:05:04 17:45:10"
	for name, c := range map[string]struct {
		tags []string
		want string
	}{
		"EXIF first":                      {[]string{clock, "-EXIF:Make=A", "-XMP-tiff:Make=B", "-XMP-exif:DateTimeOriginal=2020:01:01 00:00:00Z"}, "none , 2026-05-04T17:45:10, at none none none none, A  , , title , 0"},
		"no place, and one":               {[]string{"-EXIF:GPSLatitude=0", "-EXIF:GPSLatitudeRef=N", "-EXIF:GPSLongitude=0", "-EXIF:GPSLongitudeRef=E", "-EXIF:GPSAltitude=7", "-XMP-exif:GPSLatitude=34.5", "-XMP-exif:GPSLongitude=58.5"}, "none , , at 34.50000 58.50000 none none,   , , title , 0"},
		"a clock never set, and one":      {[]string{"-EXIF:DateTimeOriginal=1970:01:01 00:03:00", "-XMP-exif:DateTimeOriginal=2026:05:04 17:45:10"}, "none , 2026-05-04T17:45:10, at none none none none,   , , title , 0"},
		"XMP knows the zone":              {[]string{clock, "-XMP-photoshop:DateCreated=2026:05:04 17:45:10.25-03:00"}, "2026-05-04T17:45:10-03:00 xmp, 2026-05-04T17:45:10, at none none none none,   , , title , 0"},
		"XMP knows another's zone":        {[]string{clock, "-XMP-photoshop:DateCreated=2026:05:04 17:46:10-03:00"}, "none , 2026-05-04T17:45:10, at none none none none,   , , title , 0"},
		"EXIF's zone first":               {[]string{clock, "-EXIF:OffsetTimeOriginal=-04:00", "-XMP-photoshop:DateCreated=2026:05:04 17:45:10-03:00"}, "2026-05-04T17:45:10-04:00 offset, 2026-05-04T17:45:10, at none none none none,   , , title , 0"},
		"not changed since":               {[]string{clock, "-EXIF:ModifyDate=2026:05:04 17:45:10", "-EXIF:OffsetTime=-03:00"}, "2026-05-04T17:45:10-03:00 offset, 2026-05-04T17:45:10, at none none none none,   , , title , 0"},
		"changed since, elsewhere":        {[]string{clock, "-EXIF:ModifyDate=2026:05:06 09:00:00", "-EXIF:OffsetTime=+02:00"}, "none , 2026-05-04T17:45:10, at none none none none,   , , title , 0"},
		"digitized":                       {[]string{"-EXIF:CreateDate=2026:05:04 17:45:10", "-EXIF:OffsetTimeDigitized=Z", "-EXIF:ModifyDate=2026:05:06 09:00:00"}, "2026-05-04T17:45:10Z offset, 2026-05-04T17:45:10, at none none none none,   , , title , 0"},
		"XMP's satellites":                {[]string{clock, "-XMP-exif:GPSDateTime=2026:05:04 20:44:00Z"}, "2026-05-04T17:45:10-03:00 gps, 2026-05-04T17:45:10, at none none none none,   , , title , 0"},
		"IPTC's zone is made up":          {[]string{"-IPTC:DateCreated=2026:05:04", "-IPTC:TimeCreated=17:45:10+00:00"}, "none , 2026-05-04T17:45:10, at none none none none,   , , title , 0"},
		"a day without a time":            {[]string{"-XMP-xmp:CreateDate=2026:05:04"}, "none , , at none none none none,   , , title , 0"},
		"an offset that nobody lives by":  {[]string{clock, "-EXIF:OffsetTimeOriginal=+23:00"}, "none , 2026-05-04T17:45:10, at none none none none,   , , title , 0"},
		"orientation of XMP turns nobody": {[]string{"-XMP-tiff:Orientation#=6"}, "none , , at none none none none,   , , title , 0"},
		"IPTC's title":                    {[]string{"-IPTC:ObjectName=Losa", "-XMP-dc:Description=x"}, "none , , at none none none none,   , , title Losa, 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := Read(bytes.NewReader(exiftool(t, "a.jpg", base, c.tags...)), "image/jpeg")
			if got := summary(f); err != nil || got != c.want {
				t.Errorf("got\n%s, want\n%s, %v", got, c.want, err)
			}
		})
	}
}

func TestPlausibleClocks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		clock string
		want  bool
	}{
		{"0000-01-01T00:00:00", false}, {"1899-12-31T23:59:59", false}, {"1900-01-01T00:00:00", true}, {"1904-01-01T00:00:00", false},
		{"1969-12-31T21:00:00", false}, {"1970-01-01T00:05:00", false}, {"1970-01-02T00:00:00", true}, {"1980-01-01T00:00:00", false},
		{"1980-01-06T00:00:00", true}, {"2216-11-15T11:46:51", false}, {time.Now().UTC().Add(14 * time.Hour).Format(localLayout), true},
		{time.Now().UTC().Add(48 * time.Hour).Format(localLayout), false},
	} {
		if got := (Facts{TakenLocal: c.clock}).Plausible().TakenLocal != ""; got != c.want {
			t.Errorf("%s is plausible: %t", c.clock, got)
		}
	}
}

// Whatever a file claims, reading it takes little memory, and ends; what is kept of it is small. Not parallel: it counts
// what is allocated.
func TestHostileMetadata(t *testing.T) {
	thousands := make([]entry, 0, 60_000)
	for i := range cap(thousands) {
		thousands = append(thousands, text(uint16(i), strings.Repeat("<\x01é", 300)))
	}
	many := make([]string, 0, 20_000)
	for i := range cap(many) {
		many = append(many, fmt.Sprintf(`<tiff:P%d>%s</tiff:P%[1]d>`, i, strings.Repeat("\u0080é<![CDATA[<]]>", 9)))
	}
	laughs := `<!DOCTYPE l [<!ENTITY a "ha">`
	for i := 'b'; i < 'z'; i++ {
		laughs += fmt.Sprintf(`<!ENTITY %c "%s">`, i, strings.Repeat(fmt.Sprintf("&%c;", i-1), 10))
	}
	laughs += `]>` + packet(`<rdf:Description tiff:Make="&y;"/>`)
	huge := packet(`<rdf:Description tiff:Make="Probe" dc:source="` + strings.Repeat("x", 40<<20) + `"/>`)
	// 1,000 directories which are all one, of 65,535 tags that are too large to be looked at.
	same, large := make([]uint32, 1000), make([]entry, math.MaxUint16)
	for i := range same {
		same[i] = 8 + 2 + 12 + 4 + 4000
	}
	for i := range large {
		large[i] = entry{makeTag, ascii, math.MaxUint32, nil}
	}
	circles := append(append([]byte("MM\x00*\x00\x00\x00\x08"), directory(8, 0, words(0x014a, long, same...))...), directory(same[0], 0, large...)...)
	// 5,000 pointers to one directory of 65,535 entries that cannot be read.
	pointers := make([]entry, 5000)
	for i := range pointers {
		pointers[i] = words(0x8769, long, 8+2+12*5000+4)
	}
	led := append(append([]byte("MM\x00*\x00\x00\x00\x08"), directory(8, 0, pointers...)...), directory(8+2+12*5000+4, 0, make([]entry, math.MaxUint16)...)...)
	for _, c := range []struct {
		name, mediaType string
		file            []byte
	}{
		{"pointers to one directory", "image/tiff", led},
		{"pointers to one directory", "image/heic", heif(led, packet(""))},
		{"pointers to one directory", "image/png", pngWith("IHDR", ihdr, "eXIf", string(led))},
		{"directories again and again", "image/tiff", circles},
		{"directories again and again", "image/png", pngWith("IHDR", ihdr, "eXIf", string(circles))},
		{"directories again and again", "image/webp", webp("VP8X", vp8x, "EXIF", string(circles))},
		{"directories again and again", "image/heic", heif(circles, packet(""))},
		{"boxes that lead back", "image/heic", []byte(box("ftyp", "heic\x00\x00\x00\x00mif1heic") + box("meta", "\x00\x00\x00\x00", box("iinf",
			"\x01\x00\x00\x00\xff\xff\xff\xff", box("skip", "\x00\x00\x00\x00\x00\x00\x00\x00"), "\x00\x00\x00\x01skip\xff\xff\xff\xff\xff\xff\xff\xf0")))},
		{"tags by the thousand", "image/tiff", append([]byte("MM\x00*\x00\x00\x00\x08"), directory(8, 8, thousands...)...)},
		{"a directory that is its own", "image/tiff", append([]byte("MM\x00*\x00\x00\x00\x08"), directory(8, 8, words(0x8825, long, 8), words(0x8769, long, 8), words(0x014a, long, 8))...)},
		{"directories in a circle", "image/x-adobe-dng", append([]byte("MM\x00*\x00\x00\x00\x08"), directory(8, 8, words(0x014a, long, make([]uint32, 16000)...))...)},
		{"a huge count", "image/tiff", append([]byte("MM\x00*\x00\x00\x00\x08"), directory(8, 0, entry{makeTag, ascii, math.MaxUint32, nil}, entry{0x02bc, 1, 0xfff0, nil}, entry{0x83bb, 1, 0xffff, nil})...)},
		{"sub-directories by the million", "image/x-adobe-dng", append([]byte("MM\x00*\x00\x00\x00\x08"), directory(8, 0, entry{0x014a, long, 100_000_000, nil})...)},
		{"a chunk of 4 GiB", "image/webp", append(webp("VP8X", vp8x), "EXIF\xff\xff\xff\xff"...)},
		{"a chunk of 4 GiB", "image/png", append(pngWith("IHDR", ihdr), "\xff\xff\xff\xffeXIf"...)},
		{"chunks by the million", "image/png", pngWith(append(make([]string, 0, 1<<18), repeated(1<<18, "tEXt", "")...)...)},
		{"billion laughs", "image/webp", webp("VP8X", vp8x, "XMP ", laughs)},
		{"films in films", "video/mp4", []byte(strings.Repeat("\x00\x00\x00\x00moov", 1<<20))},
		{"user data in user data", "video/quicktime", []byte("\x00\x00\x00\x00moov" + strings.Repeat("\x00\x00\x00\x00udta\x00\x00\x00\x00meta", 1<<19))},
		{"boxes by the million", "video/3gpp", movie(repeated(1<<20, box("udta"))...)},
		{"tracks by the million", "video/mp4", movie(repeated(1<<20, box("trak", box("mdia", box("hdlr", "\x00\x00\x00\x00\x00\x00\x00\x00vide"))))...)},
		{"keys by the million", "video/quicktime", movie(box("meta", box("hdlr"), box("keys", numbers(0, math.MaxUint32), strings.Repeat(box("mdta"), 1<<18)), box("ilst", strings.Repeat("\x00\x00\x00\x08\x00\x00\x00\x01", 1<<20))))},
		{"lists of keys by the thousand", "video/quicktime", movie(repeated(1<<10, box("meta", box("hdlr"), box("keys", numbers(0, 1), box("mdta", strings.Repeat("x", 1<<16)))))...)},
		{"a box of 8 EiB", "video/mp4", append([]byte("\x00\x00\x00\x01moov\x7f\xff\xff\xff\xff\xff\xff\xff"), header...)},
		{"a box of more than there is", "video/mp4", []byte("\x00\x00\x00\x01moov\xff\xff\xff\xff\xff\xff\xff\xff")},
		{"user data of 4 GiB", "video/mp4", movie(box("udta", "\xff\xff\xff\xff\xa9xyz\xff\xff\x00\x00"))},
		{"billion laughs", "video/mp4", []byte(box("meta", numbers(0), box("xml ", numbers(0), laughs)))},
		{"XML of more than is read", "video/mp4", []byte(box("meta", numbers(0), box("xml ", numbers(0), strings.Repeat("<a>", 500_000))))},
		{"XML without an end", "video/mp4", []byte(box("meta", numbers(0), box("xml ", numbers(0), strings.Repeat("<a>", maxSonyXML/3-1))))},
		{"40 MB", "video/mp4", []byte(box("uuid", xmpBox, huge))},
		{"40 MB", "image/webp", webp("VP8X", vp8x, "XMP ", huge)},
		{"40 MB", "image/png", pngWith("IHDR", ihdr, "iTXt", "XML:com.adobe.xmp\x00\x00\x00\x00\x00"+huge)},
		{"40 MB in 40 KB", "image/png", pngWith("IHDR", ihdr, "iTXt", "XML:com.adobe.xmp\x00\x01\x00\x00\x00"+deflated(huge))},
		{"properties by the thousand", "image/webp", webp("VP8X", vp8x, "XMP ", packet(`<rdf:Description>`+strings.Join(many, "")+`</rdf:Description>`))},
	} {
		t.Run(c.name+" "+c.mediaType, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f, _ := Read(bytes.NewReader(c.file), c.mediaType)
			runtime.ReadMemStats(&after)
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 64<<20 {
				t.Errorf("%d MiB were allocated", allocated>>20)
			}
			checkKept(t, f)
		})
	}
}

func repeated(n int, s ...string) (all []string) {
	for range n / len(s) {
		all = append(all, s...)
	}
	return all
}

// checkKept holds facts against what every reader of them relies on.
func checkKept(t *testing.T, f Facts) {
	t.Helper()
	kept, err := json.Marshal(f)
	if err != nil {
		t.Fatalf("%+v: %v", f, err)
	}
	if len(kept) > MaxTags+8<<10 || len(f.Tags) > MaxTags || bytes.Contains(kept, []byte(`\u0000`)) || bytes.Contains(kept, []byte(`\ufffd`)) {
		t.Fatalf("%d bytes, %d of tags", len(kept), len(f.Tags))
	}
	var again Facts
	stack.Must(t, json.Unmarshal(kept, &again))
	if twice, err := json.Marshal(again.Plausible()); err != nil || !bytes.Equal(kept, twice) {
		t.Fatalf("the parent makes\n%s of\n%s, %v", twice, kept, err)
	}
}
