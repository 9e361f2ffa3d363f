package facts

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// Where photo puts the directories behind the first.
const (
	cameraAt     = 1000
	satellitesAt = 2000
)

var (
	leads    = []entry{words(0x8769, long, cameraAt), words(0x8825, long, satellitesAt)}
	says     = []entry{text(makeTag, "Camara")}
	clocked  = []entry{text(0x9003, "2024:03:14 16:20:05")}
	santiago = []entry{text(1, "S"), words(2, rational, 33, 1, 26, 1, 5604, 100), text(3, "W"), words(4, rational, 70, 1, 40, 1, 921, 100)}
)

// photo is EXIF of three directories.
func photo(first, camera, satellites []entry) []byte {
	out := append([]byte("MM\x00*\x00\x00\x00\x08"), directory(8, 0, first...)...)
	out = append(append(out, make([]byte, cameraAt-len(out))...), directory(cameraAt, 0, camera...)...)
	return append(append(out, make([]byte, satellitesAt-len(out))...), directory(satellitesAt, 0, satellites...)...)
}

// jpegWith has segments of APP1, and nothing behind its header.
func jpegWith(segments ...string) []byte {
	out := []byte("\xff\xd8")
	for _, s := range segments {
		out = append(binary.BigEndian.AppendUint16(append(out, 0xff, 0xe1), uint16(2+len(s))), s...)
	}
	return append(out, "\xff\xda\x00\x02\xff\xd9"...)
}

// inAllFormats are files that carry the same EXIF, by media type.
func inAllFormats(exif []byte) map[string][]byte {
	return map[string][]byte{
		"image/jpeg": jpegWith("Exif\x00\x00" + string(exif)),
		"image/webp": webp("VP8X", vp8x, "EXIF", string(exif)),
		"image/png":  pngWith("IHDR", ihdr, "eXIf", string(exif)),
		"image/tiff": exif,
		"image/heic": heif(exif, packet("")),
	}
}

// An entry that cannot be read costs itself alone, wherever it is: what is sound is read.
func TestOneBadEntryCostsNoOther(t *testing.T) {
	t.Parallel()
	nothing := entry{tag: 0x011a}                       // of format 0, as a Sony DSC-HX5V writes it
	huge := entry{0x8827, ascii, 0xffffffff, []byte{0}} // with the count of a damaged HTC
	beyond := entry{0x013b, ascii, 100, []byte{0, 1, 0, 0}}
	undefined := entry{0x920a, 10, 1, make([]byte, 8)}
	for name, exif := range map[string][]byte{
		"sound":                         photo(slices.Concat(says, leads), clocked, santiago),
		"format 0 first":                photo(slices.Concat([]entry{nothing}, says, leads), clocked, santiago),
		"format 0 in each":              photo(slices.Concat(says, []entry{nothing}, leads), slices.Concat([]entry{nothing}, clocked), slices.Concat([]entry{nothing}, santiago)),
		"format 99":                     photo(slices.Concat([]entry{{0x010e, 99, 1, []byte{1}}}, says, leads), clocked, santiago),
		"pointers of the kind for them": photo(append(slices.Clone(says), entry{0x8769, 13, 1, leads[0].value}, entry{0x8825, 13, 1, leads[1].value}), clocked, santiago), // Parrot
		"pointers of two bytes":         photo(slices.Concat(says, []entry{words(0x8769, short, cameraAt), words(0x8825, short, satellitesAt)}), clocked, santiago),
		"pointers of two numbers":       photo(slices.Concat(says, []entry{words(0x8769, long, cameraAt, 0), words(0x8825, long, satellitesAt, 0)}), clocked, santiago),
		"pointers twice":                photo(slices.Concat(leads, says, leads), clocked, santiago),
		"a pointer without a number":    photo(slices.Concat([]entry{{tag: 0x014a, kind: long}}, says, leads), clocked, santiago),
		"pointers to nowhere":           photo(slices.Concat([]entry{words(0x014a, long, 1<<30, 7), words(0xa005, long, 1<<31)}, says, leads), slices.Concat([]entry{words(0xa005, long, 1<<31)}, clocked), santiago),
		"a huge count":                  photo(slices.Concat([]entry{huge}, says, leads), slices.Concat([]entry{huge}, clocked), slices.Concat([]entry{huge}, santiago)),
		"a value beyond the end":        photo(slices.Concat([]entry{beyond}, says, leads), slices.Concat([]entry{beyond}, clocked), slices.Concat([]entry{beyond}, santiago)),
		"an undefined fraction":         photo(slices.Concat(says, leads), slices.Concat([]entry{undefined}, clocked), slices.Concat([]entry{undefined}, santiago)),
		"a value of zeros, and one":     photo(slices.Concat([]entry{text(makeTag, "\x00\x00\x00\x00\x00")}, says, leads), slices.Concat([]entry{text(0x9003, "\x01")}, clocked), santiago),
		"text behind the text":          photo(slices.Concat([]entry{text(makeTag, "Camara\x00rubbish of the buffer")}, leads), []entry{text(0x9003, "2024:03:14 16:20:05\x00rubbish")}, santiago),
		"a count without the NUL":       photo(slices.Concat([]entry{{makeTag, ascii, 6, []byte("Camara")}}, leads), []entry{{0x9003, ascii, 19, []byte("2024:03:14 16:20:05")}}, santiago),
		"cut off in the last directory": photo(slices.Concat(says, leads), clocked, santiago[:4:4])[:satellitesAt+2+4*12+4+48],
	} {
		for mediaType, file := range inAllFormats(exif) {
			f, err := Read(bytes.NewReader(file), mediaType)
			if err != nil && mediaType != "image/tiff" {
				t.Errorf("%s, %s: %v", name, mediaType, err)
			}
			const want = "none , 2024-03-14T16:20:05, at -33.44890 -70.66923 none none, Camara  , , title , 0"
			if got := summary(f); got != want {
				t.Errorf("%s, %s: got\n%s, want\n%s", name, mediaType, got, want)
			}
		}
	}
}

// The same of a TIFF's XMP and IPTC, which are entries as well.
func TestOneBadEntryOfATIFF(t *testing.T) {
	t.Parallel()
	content := exiftool(t, "a.tif", bare(t, "a.tif"), slices.Concat(iptcSays, xmpSays)...)
	at := bytes.Index(content, []byte{0x01, 0x06, 0x00, 0x03}) // PhotometricInterpretation
	if at < 0 {
		at = bytes.Index(content, []byte{0x06, 0x01, 0x03, 0x00})
	}
	if at < 0 {
		t.Fatal("the TIFF has no such entry")
	}
	copy(content[at+2:], "\x00\x00")
	f, err := Read(bytes.NewReader(content), "image/tiff")
	if got := summary(f); err != nil || got != xmpTold {
		t.Errorf("got\n%s, want\n%s, %v", got, xmpTold, err)
	}
	if !strings.Contains(string(f.Tags), `"IPTC":{`) {
		t.Errorf("no IPTC: %s", f.Tags)
	}
}

// Bytes between the segments of a JPEG cost none of them, nor does a second resource of Photoshop's segment.
func TestStrayBytesBetweenSegments(t *testing.T) {
	t.Parallel()
	content := exiftool(t, "a.jpg", bare(t, "a.jpg"), slices.Concat(exifSays, xmpSays, iptcSays)...)
	want, err := Read(bytes.NewReader(content), "image/jpeg")
	stack.Must(t, err)
	for _, stray := range []string{"\x00", "\x00\x00\x00", "\xff\xff", "x\xff\x00y", "\xff\xed\x00\x0dAdobe_CM\x00\x02\x00"} {
		strayed := bytes.Clone(content[:2])
		for at := 2; content[at+1] != 0xda; {
			end := at + 2 + int(binary.BigEndian.Uint16(content[at+2:]))
			strayed = append(append(strayed, stray...), content[at:end]...)
			at = end
		}
		f, err := Read(bytes.NewReader(append(strayed, "\xff\xda"...)), "image/jpeg")
		if err != nil || summary(f) != summary(want) || f.Width != 64 || f.Height != 48 || !bytes.Equal(f.Tags, want.Tags) {
			t.Errorf("%q: got\n%s, want\n%s, %d by %d, %v", stray, summary(f), summary(want), f.Width, f.Height, err)
		}
	}
}

// A coordinate is none if a part of it is no number, unless only the seconds are not; a clock of satellites neither.
func TestUndefinedFractions(t *testing.T) {
	t.Parallel()
	west := words(4, rational, 70, 1, 40154, 1000, 0, 0)
	hours := func(parts ...uint32) []entry { return []entry{text(0x1d, "2024:03:14"), words(7, rational, parts...)} }
	for name, c := range map[string]struct {
		satellites []entry
		want       string
	}{
		"seconds of 0/0":   {[]entry{text(1, "S"), words(2, rational, 33, 1, 26934, 1000, 0, 0), text(3, "W"), west}, "none , , at -33.44890 -70.66923 none none"},
		"seconds of 9/0":   {[]entry{text(1, "S"), words(2, rational, 33, 1, 26934, 1000, 9, 0), text(3, "W"), west}, "none , , at -33.44890 -70.66923 none none"},
		"signed":           {[]entry{text(1, "S"), {2, 10, 3, words(2, rational, 33, 1, 26934, 1000, 0, 0).value}, text(3, "W"), west}, "none , , at -33.44890 -70.66923 none none"},
		"minutes of 0/0":   {[]entry{text(1, "S"), words(2, rational, 33, 1, 0, 0, 5604, 100), text(3, "W"), west}, "none , , at none none none none"},
		"minutes of 26/0":  {[]entry{text(1, "S"), words(2, rational, 33, 1, 26, 0, 5604, 100), text(3, "W"), west}, "none , , at none none none none"},
		"minutes, signed":  {[]entry{text(1, "S"), {2, 10, 3, words(2, rational, 33, 1, 0, 0, 0, 1).value}, text(3, "W"), west}, "none , , at none none none none"},
		"degrees of 0/0":   {[]entry{text(1, "S"), words(2, rational, 0, 0, 26, 1, 5604, 100), text(3, "W"), west}, "none , , at none none none none"},
		"all of 0/0":       {[]entry{text(1, "S"), words(2, rational, 0, 0, 0, 0, 0, 0), text(3, "W"), west}, "none , , at none none none none"},
		"altitude, signed": {append(slices.Clone(santiago), entry{6, 10, 1, make([]byte, 8)}), "none , , at -33.44890 -70.66923 none none"},
		"a clock":          {hours(19, 1, 20, 1, 5, 1), "2024-03-14T19:20:05Z gps, , at none none none none"},
		"a clock's 0/0":    {hours(19, 1, 0, 0, 0, 1), "none , , at none none none none"},
		"a clock's n/0":    {hours(19, 1, 20, 1, 5, 0), "none , , at none none none none"},
	} {
		for mediaType, file := range inAllFormats(photo(leads, nil, c.satellites)) {
			f, _ := Read(bytes.NewReader(file), mediaType)
			if got := summary(f); got != c.want+",   , , title , 0" {
				t.Errorf("%s, %s: got\n%s, want\n%s", name, mediaType, got, c.want)
			}
		}
	}
}

// PNG had no chunk for EXIF for twenty years: ImageMagick wrote it as text.
func TestProfilesOfText(t *testing.T) {
	t.Parallel()
	exif := "Exif\x00\x00" + string(photo(slices.Concat(says, leads), clocked, santiago))
	said := packet(`<rdf:Description tiff:Make="Camara" exif:DateTimeOriginal="2024-03-14T16:20:05" exif:GPSLatitude="33,26.934S" exif:GPSLongitude="70,40.1536W"/>`)
	digits := func(kind, content string) string {
		coded := hex.EncodeToString([]byte(content))
		lines := "\n" + kind + "\n" + fmt.Sprintf("%8d", len(content))
		for part := range slices.Chunk([]byte(coded), 72) {
			lines += "\n" + string(part)
		}
		return lines + "\n"
	}
	named := func(kind string) string { return "Raw profile type " + kind + "\x00" }
	for name, chunks := range map[string][]string{
		"exif":           {"tEXt", named("exif") + digits("exif", exif)},
		"APP1":           {"tEXt", named("APP1") + digits("generic profile", exif)},
		"APP1 is XMP":    {"tEXt", named("APP1") + digits("generic profile", xmpHeader+said)},
		"xmp":            {"tEXt", named("xmp") + digits("xmp", said)},
		"compressed":     {"zTXt", named("exif") + "\x00" + deflated(digits("exif", exif))},
		"compressed XMP": {"zTXt", named("xmp") + "\x00" + deflated(digits("xmp", said))},
		"beside another": {"tEXt", "Software\x00x", "tEXt", named("icc") + digits("icc", exif), "zTXt", named("exif"), "tEXt", named("exif"), "tEXt", named("exif") + digits("exif", exif)},
		"of bad digits":  {"tEXt", named("exif") + "\nexif\n  4\nzz", "tEXt", named("exif") + digits("exif", exif)},
		"behind eXIf":    {"eXIf", exif[6:], "tEXt", named("exif") + digits("exif", "MM\x00*")},
	} {
		f, err := Read(bytes.NewReader(pngWith(append([]string{"IHDR", ihdr}, chunks...)...)), "image/png")
		const want = "none , 2024-03-14T16:20:05, at -33.44890 -70.66923 none none, Camara  , , title , 0"
		if got := summary(f); err != nil || got != want {
			t.Errorf("%s: got\n%s, want\n%s, %v", name, got, want, err)
		}
	}
}

// appended is a JPEG with one more segment.
func appended(marker byte, content string) []byte {
	return append(append(binary.BigEndian.AppendUint16([]byte{0xff, 0xd8, 0xff, marker}, uint16(2+len(content))), content...), "\xff\xda\x00\x02\xff\xd9"...)
}

// Cameras from before EXIF tell the time taken as well: an Olympus D-320L, a Canon PowerShot A5.
func TestTimesFromBeforeEXIF(t *testing.T) {
	t.Parallel()
	little := binary.LittleEndian
	heapOf := func(tag uint16, value string) string {
		out := little.AppendUint16([]byte(value), 1)
		out = little.AppendUint32(little.AppendUint32(little.AppendUint16(out, tag), uint32(len(value))), 0)
		return string(little.AppendUint32(out, uint32(len(value))))
	}
	canon := func(heap string) string { return "II\x1a\x00\x00\x00HEAPJPGM" + strings.Repeat("\x00", 12) + heap }
	taken := string(little.AppendUint32(nil, 972687386)) + strings.Repeat("\x00", 8)
	endless := heapOf(0x300a, strings.Repeat("\x00", 1000))
	endless = endless[:1000] + strings.Repeat("\x0a\x30\x00\x10\x00\x00\x00\x00\x00\x00", 4000) + "\xe6\x03\x00\x00"
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"an Olympus":            {appended(0xec, "OLYMPUS OPTICAL CO.,LTD.   \x00 713\r\n[picture info]\r\nTimeDate=909698819\r\nShutter=33363\r\n"), "1998-10-29T22:06:59"},
		"an Olympus without":    {appended(0xec, "OLYMPUS OPTICAL CO.,LTD.   \x00 713\r\n[picture info]\r\nTimeDate=0\r\n"), ""},
		"an Olympus of letters": {appended(0xec, "[picture info]\r\nTimeDate=99999999999\r\n"), ""},
		"a Canon":               {appended(0xe0, canon(heapOf(0x300a, heapOf(0x180e, taken)))), "2000-10-27T22:56:26"},
		"a Canon without":       {appended(0xe0, canon(heapOf(0x300a, heapOf(0x180c, taken)))), ""},
		"a Canon, cut":          {appended(0xe0, canon(heapOf(0x300a, heapOf(0x180e, taken)))[:50]), ""},
		"heaps in each other":   {appended(0xe0, canon(endless)), ""},
		"a header beyond":       {appended(0xe0, "II\xff\xff\xff\xffHEAPJPGM"), ""},
	} {
		f, err := Read(bytes.NewReader(c.file), "image/jpeg")
		if err != nil || f.TakenLocal != c.want || f.TakenAt != nil {
			t.Errorf("%s: taken %q, want %q, %v", name, f.TakenLocal, c.want, err)
		}
	}
}

// However a camera spells the time taken, what an editor wrote when it changed the photo is not it.
func TestSpellingsOfTheTimeTaken(t *testing.T) {
	t.Parallel()
	for spelling, want := range map[string]string{
		"2024:03:14 16:20:05":       "none , 2024-03-14T16:20:05",
		"2024:03:14 24:05:12":       "none , 2024-03-14T00:05:12",
		"2024:03:14 16:20:60":       "none , 2024-03-14T16:21:00",
		"2024:12:31 23:59:60":       "none , 2025-01-01T00:00:00",
		"2024:03:14 16:20":          "none , 2024-03-14T16:20:00",
		"2024-03-14 16:20:05":       "none , 2024-03-14T16:20:05",
		"2024/03/14 16:20:05":       "none , 2024-03-14T16:20:05",
		"2024.03.14 16:20:05":       "none , 2024-03-14T16:20:05",
		"2024:03:14T16:20:05":       "none , 2024-03-14T16:20:05",
		"2024-03-14T16:20:05.250":   "none , 2024-03-14T16:20:05",
		"2024-03-14T16:20:05-03:00": "2024-03-14T16:20:05-03:00 offset, 2024-03-14T16:20:05",
		"2024-03-14T16:20:05Z":      "2024-03-14T16:20:05Z offset, 2024-03-14T16:20:05",
		"2024:03:14 04:20:05 PM":    "none , 2024-03-14T16:20:05",
		"2024:03:14 12:20:05 a. m.": "none , 2024-03-14T00:20:05",
		"2024:03:14 16:20:05 PM":    "none , 2024-03-14T16:20:05",
		"2024:03:14 16:20:05 +1000": "none , 2024-03-14T16:20:05",
		// Nobody knows when this was, but not when it was changed.
		"2024:03:14 25:05:12": "none , ", "2024:03:14 16:61:05": "none , ", "2024:02:30 16:20:05": "none , ", "14/03/2024 16:20:05": "none , ",
		"2024:03:14": "none , ", "2024:03:14 下午 4:20": "none , ", "Thu Mar 14 16:20:05 2024": "none , ", "2567:03:14 16:20:05": "none , ",
		"1970:01:01 00:00:01": "none , ",
		// This is how one says that nothing is known.
		"": "none , 2025-06-01T10:00:00", "    :  :     :  :  ": "none , 2025-06-01T10:00:00", "0000:00:00 00:00:00": "none , 2025-06-01T10:00:00",
	} {
		edited := slices.Concat([]entry{text(0x0132, "2025:06:01 10:00:00")}, leads)
		for mediaType, file := range inAllFormats(photo(edited, []entry{text(0x9003, spelling)}, nil)) {
			f, _ := Read(bytes.NewReader(file), mediaType)
			if got := summary(f); got != want+", at none none none none,   , , title , 0" {
				t.Errorf("%q, %s: got %s, want %s", spelling, mediaType, got, want)
			}
		}
	}
}
