package facts

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// filmed has ffmpeg make a film of a second and a half; the extension says of which kind.
func filmed(t testing.TB, name string, arguments ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	codec := "mpeg4"
	if filepath.Ext(name) == ".3gp" {
		codec = "h263" // in one of its own sizes
	}
	all := append([]string{"-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=352x288:rate=10:duration=1.5", "-c:v", codec}, arguments...)
	out, err := exec.Command("ffmpeg", append(all, path)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, out)
	}
	content, err := os.ReadFile(path)
	stack.Must(t, err)
	return content
}

var filmTypes = map[string]string{".mp4": "video/mp4", ".mov": "video/quicktime", ".3gp": "video/3gpp"}

// filmSummary is what is told of a film.
func filmSummary(f Facts) string {
	return fmt.Sprintf("%s, %d x %d, %v s", summary(f), f.Width, f.Height, f.Duration)
}

// Films of all kinds tell where, when, with what and how long, as ffmpeg writes it and as exiftool does.
func TestFilms(t *testing.T) {
	t.Parallel()
	made := []string{"-metadata", "creation_time=2026-05-04T20:45:10Z"}
	placed := slices.Clip(slices.Concat(made, []string{"-metadata", "location=-34.6037-058.3816/"}))
	for name, c := range map[string]struct {
		name      string
		arguments []string // of ffmpeg
		tags      []string // of exiftool
		want      string
	}{
		"nothing, MP4": {"a.mp4", nil, nil, "none , , at none none none none,   , Lavf, title , 1, 352 x 288, 1.5 s"},
		"MP4":          {"a.mp4", placed, nil, "2026-05-04T20:45:10Z header, , at -34.60370 -58.38159 none none,   , Lavf, title , 1, 352 x 288, 1.5 s"},
		"MOV":          {"a.mov", placed, nil, "2026-05-04T20:45:10Z header, , at -34.60370 -58.38160 none none,   , Lavf, title , 1, 352 x 288, 1.5 s"},
		"3GP":          {"a.3gp", placed, nil, "2026-05-04T20:45:10Z header, , at -34.60370 -58.38159 none none,   , , title , 1, 352 x 288, 1.5 s"},
		"in fragments": {"a.mp4", append(placed, "-movflags", "frag_keyframe+empty_moov+global_sidx"), nil, "2026-05-04T20:45:10Z header, , at -34.60370 -58.38159 none none,   , Lavf, title , 1, 352 x 288, 0 s"},
		"index first":  {"a.mp4", append(placed, "-movflags", "faststart"), nil, "2026-05-04T20:45:10Z header, , at -34.60370 -58.38159 none none,   , Lavf, title , 1, 352 x 288, 1.5 s"},
		"an iPhone": {"a.mov", append(made, "-movflags", "use_metadata_tags", "-metadata", "com.apple.quicktime.make=Apple", "-metadata", "com.apple.quicktime.model=iPhone 15",
			"-metadata", "com.apple.quicktime.software=17.4", "-metadata", "com.apple.quicktime.creationdate=2026-05-04T17:45:09-0300",
			"-metadata", "com.apple.quicktime.location.ISO6709=-34.6037-058.3816+025.500/"), nil,
			"2026-05-04T17:45:09-03:00 offset, 2026-05-04T17:45:09, at -34.60370 -58.38160 25.5 none, Apple iPhone 15 , 17.4, title , 1, 352 x 288, 1.5 s"},
		"an Android": {"a.mp4", append(placed, "-movflags", "use_metadata_tags", "-metadata", "com.android.version=14",
			"-metadata", "com.android.manufacturer=Google", "-metadata", "com.android.model=Pixel 9"), nil,
			"2026-05-04T20:45:10Z header, , at -34.60370 -58.38160 none none, Google Pixel 9 , , title , 1, 352 x 288, 1.5 s"},
		"a Samsung": {"a.mp4", append(placed, "-movflags", "use_metadata_tags", "-metadata", "com.android.version=14", "-metadata", "com.samsung.android.utc_offset=-0300"), nil,
			"2026-05-04T17:45:10-03:00 offset, 2026-05-04T17:45:10, at -34.60370 -58.38160 none none,   , , title , 1, 352 x 288, 1.5 s"},
		"keys": {"a.mov", made, []string{"-Keys:CreationDate=2026:05:04 17:45:09-03:00", "-Keys:GPSCoordinates=-34.6037, -58.3816, 25.5", "-Keys:Make=Apple", "-Keys:Model=iPhone 15", "-Keys:Title=Losa, nivel 3 ñ"},
			"2026-05-04T17:45:09-03:00 offset, 2026-05-04T17:45:09, at -34.60370 -58.38160 25.5 none, Apple iPhone 15 , Lavf, title Losa, nivel 3 ñ, 1, 352 x 288, 1.5 s"},
		"user data": {"a.mp4", nil, []string{"-UserData:GPSCoordinates=-34.6037, -58.3816, 25.5", "-UserData:DateTimeOriginal=2026:05:04 17:45:09-03:00", "-UserData:Make=Probe", "-UserData:Model=P1", "-UserData:Title=Losa"},
			"none , , at -34.60370 -58.38160 25.5 none, Probe P1 , Lavf, title Losa, 1, 352 x 288, 1.5 s"},
		"a list of items": {"a.mp4", nil, []string{"-ItemList:GPSCoordinates=-34.6037, -58.3816, 25.5", "-ItemList:ContentCreateDate=2026:05:04 17:45:09-03:00", "-ItemList:Title=Losa ñ"},
			"2026-05-04T17:45:09-03:00 offset, 2026-05-04T17:45:09, at -34.60370 -58.38160 25.5 none,   , Lavf, title Losa ñ, 1, 352 x 288, 1.5 s"},
		"XMP":                  {"a.mp4", nil, xmpSays, "2026-05-04T17:45:10-03:00 xmp, 2026-05-04T17:45:10, at -34.60372 -58.38159 -25.5 271.5, Probe Works P1 26mm f/1.8, Lavf, title Losa, nivel 3 ñ, 1, 352 x 288, 1.5 s"},
		"XMP, MOV":             {"a.mov", nil, xmpSays, "2026-05-04T17:45:10-03:00 xmp, 2026-05-04T17:45:10, at -34.60372 -58.38159 -25.5 271.5, Probe Works P1 26mm f/1.8, Lavf, title Losa, nivel 3 ñ, 1, 352 x 288, 1.5 s"},
		"a day without a time": {"a.mp4", []string{"-metadata", "date=2026-05-04"}, nil, "none , , at none none none none,   , Lavf, title , 1, 352 x 288, 1.5 s"},
		"turned a quarter":     {"a.mp4", nil, []string{"-Rotation=90"}, "none , , at none none none none,   , Lavf, title , 6, 288 x 352, 1.5 s"},
		"turned by half":       {"a.mov", nil, []string{"-Rotation=180"}, "none , , at none none none none,   , Lavf, title , 3, 352 x 288, 1.5 s"},
		"turned thrice":        {"a.3gp", nil, []string{"-Rotation=270"}, "none , , at none none none none,   , , title , 8, 288 x 352, 1.5 s"},
		"pixels that are wide": {"a.mp4", []string{"-vf", "setsar=2/1"}, nil, "none , , at none none none none,   , Lavf, title , 1, 704 x 288, 1.5 s"},
		"a clock never set":    {"a.mp4", nil, []string{"-QuickTime:CreateDate=1970:01:01 00:00:10"}, "none , , at none none none none,   , Lavf, title , 1, 352 x 288, 1.5 s"},
		"a clock ahead":        {"a.mp4", nil, []string{"-QuickTime:CreateDate=2038:01:01 00:00:10"}, "none , , at none none none none,   , Lavf, title , 1, 352 x 288, 1.5 s"},
		"no fix":               {"a.mp4", []string{"-metadata", "location=+00.0000+000.0000/"}, nil, "none , , at none none none none,   , Lavf, title , 1, 352 x 288, 1.5 s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			content := filmed(t, c.name, c.arguments...)
			if c.tags != nil {
				content = exiftool(t, c.name, content, c.tags...)
			}
			f, err := Read(bytes.NewReader(content), filmTypes[filepath.Ext(c.name)])
			if strings.HasPrefix(f.Software, "Lavf") {
				f.Software = "Lavf" // without its version
			}
			if got := filmSummary(f); err != nil || got != c.want {
				t.Errorf("got\n%s, want\n%s, %v; %s", got, c.want, err, f.Tags)
			}
			checkKept(t, f)
			likeExiftool(t, c.name, content, f)
		})
	}
}

// likeExiftool holds what both tell of a film against each other.
func likeExiftool(t *testing.T, name string, content []byte, f Facts) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	stack.Must(t, os.WriteFile(path, content, 0o600))
	said := exiftoolSays(t, []string{path})[path]
	number := func(names ...string) (n float64) {
		_, _ = fmt.Sscan(said.first(names...), &n)
		return n
	}
	width, height := number("Track1:ImageWidth"), number("Track1:ImageHeight")
	if f.Orientation >= 5 {
		width, height = height, width
	}
	if f.Duration != math.Round(number("QuickTime:Duration")*1000)/1000 || float64(f.Width) != width || float64(f.Height) != height {
		t.Errorf("%v s, %d x %d; exiftool says %v, %v x %v", f.Duration, f.Width, f.Height, number("QuickTime:Duration"), width, height)
	}
	if f.Latitude != nil && math.Abs(*f.Latitude-number("Composite:GPSLatitude", "XMP-exif:GPSLatitude")) > 1e-4 {
		t.Errorf("latitude %v, exiftool says %v", *f.Latitude, number("Composite:GPSLatitude"))
	}
	if f.TakenZone == ZoneFromHeader && f.TakenAt.Format(exifLayout) != said.first("QuickTime:CreateDate") {
		t.Errorf("taken at %v, exiftool says %s", f.TakenAt, said.first("QuickTime:CreateDate"))
	}
}

// What neither of both writes is made by hand.
func movie(boxes ...string) []byte {
	return []byte(box("ftyp", "isom\x00\x00\x02\x00isom") + box("mdat", "frames") + box("moov", boxes...))
}

func numbers(values ...uint32) string {
	var out []byte
	for _, v := range values {
		out = binary.BigEndian.AppendUint32(out, v)
	}
	return string(out)
}

func international(name, text string) string {
	return box(name, string(binary.BigEndian.AppendUint16(nil, uint16(len(text)))), "\x15\xc7", text)
}

func keyed(key, value string) string {
	return box("meta", box("hdlr", numbers(0, 0), "mdta", numbers(0, 0, 0)), box("keys", numbers(0, 1), box("mdta", key)),
		box("ilst", box("\x00\x00\x00\x01", box("data", numbers(1, 0), value))))
}

const (
	since1904 = 2_082_844_800
	may2026   = 1_777_927_510 // 2026-05-04T20:45:10Z
)

var header = box("mvhd", numbers(0, since1904+may2026, since1904+may2026, 1000, 1500))

func TestFilmBoxes(t *testing.T) {
	t.Parallel()
	place := func(text string) []byte { return movie(box("udta", international("\xa9xyz", text))) }
	const (
		here = "none , , at -34.60370 -58.38160 none none,   , , title , 0, 0 x 0, 0 s"
		none = "none , , at none none none none,   , , title , 0, 0 x 0, 0 s"
	)
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"a header":                    {movie(header), "2026-05-04T20:45:10Z header, , at none none none none,   , , title , 0, 0 x 0, 1.5 s"},
		"a header of 64 bits":         {movie(box("mvhd", numbers(1<<24, 0, since1904+may2026, 0, 0, 1000, 1, 500))), "2026-05-04T20:45:10Z header, , at none none none none,   , , title , 0, 0 x 0, 0 s"},
		"a header counted from 1970":  {movie(box("mvhd", numbers(0, may2026, 0, 1000, 1500))), "2026-05-04T20:45:10Z header, , at none none none none,   , , title , 0, 0 x 0, 1.5 s"},
		"a duration that is unknown":  {movie(box("mvhd", numbers(0, 0, 0, 1000, math.MaxUint32))), none},
		"a duration of years":         {movie(box("mvhd", numbers(0, 0, 0, 1, 100_000_000))), none},
		"a scale of 0":                {movie(box("mvhd", numbers(0, 0, 0, 0, 1500))), none},
		"fragments that are counted":  {movie(box("mvhd", numbers(0, 0, 0, 1000, 0)), box("mvex", box("mehd", numbers(0, 2500)))), "none , , at none none none none,   , , title , 0, 0 x 0, 2.5 s"},
		"fragments, of 64 bits":       {movie(box("mvhd", numbers(0, 0, 0, 1000, 0)), box("mvex", box("mehd", numbers(1<<24, 0, 2500)))), "none , , at none none none none,   , , title , 0, 0 x 0, 2.5 s"},
		"degrees":                     {place("-34.6037-058.3816/"), here},
		"degrees, without the stroke": {place("-34.6037-058.3816"), here},
		"degrees of few digits":       {place("-34.6037-58.3816/"), here},
		"degrees and minutes":         {place("-3436.222-05822.896/"), here},
		"degrees, minutes, seconds":   {place("-343613.32-0582253.76/"), here},
		"a height and a system":       {place("-34.6037-058.3816+025.5CRSWGS_84/"), "none , , at -34.60370 -58.38160 25.5 none,   , , title , 0, 0 x 0, 0 s"},
		"beyond the pole":             {place("-94.6037-058.3816/"), none},
		"no signs":                    {place("34.6037 58.3816"), none},
		"letters":                     {place("+aa.0-bbb.0/"), none},
		"digits without an end":       {place("+" + strings.Repeat("1", 3000) + "-058.3816/"), none},
		"a place of a longer text":    {movie(box("udta", box("\xa9xyz", "\xff\xff\x15\xc7-34.6037-058.3816/"))), here},
		"3GPP's place": {movie(box("udta", box("loci", numbers(0), "\x15\xc7obra 14\x00\x00", numbers(uint32(0x1_0000_0000-58*65536-25009), uint32(0x1_0000_0000-34*65536-39564), 25<<16), "earth\x00\x00"))),
			"none , , at -34.60370 -58.38161 25.0 none,   , , title , 0, 0 x 0, 0 s"},
		"3GPP's place, named in UTF-16": {movie(box("udta", box("loci", numbers(0), "\x15\xc7\xfe\xff\x00o\x00b\x00\x00\x00", numbers(uint32(0x1_0000_0000-58*65536-25009), uint32(0x1_0000_0000-34*65536-39564), 0), "\x00\x00"))),
			"none , , at -34.60370 -58.38161 none none,   , , title , 0, 0 x 0, 0 s"},
		"3GPP's place, cut":    {movie(box("udta", box("loci", numbers(0), "\x15\xc7obra 14\x00\x00", numbers(58<<16)))), none},
		"3GPP's title":         {movie(box("udta", box("titl", numbers(0), "\x15\xc7Losa ñ\x00"))), "none , , at none none none none,   , , title Losa ñ, 0, 0 x 0, 0 s"},
		"Apple before others":  {movie(box("udta", international("\xa9xyz", "+10+020/")), keyed("com.apple.quicktime.location.ISO6709", "-34.6037-058.3816/")), here},
		"no fix, and one":      {movie(box("udta", international("\xa9xyz", "-34.6037-058.3816/")), keyed("com.apple.quicktime.location.ISO6709", "+00.0000+000.0000/")), here},
		"a direction":          {movie(keyed("com.apple.quicktime.direction.facing", "271.5")), "none , , at none none none 271.5,   , , title , 0, 0 x 0, 0 s"},
		"a key of nobody":      {movie(keyed("com.example.location", "+10+020/")), none},
		"UTC is no wall clock": {movie(keyed("com.apple.quicktime.creationdate", "2026-05-04T20:45:10Z")), "2026-05-04T20:45:10Z header, , at none none none none,   , , title , 0, 0 x 0, 0 s"},
		"a Sony": {append(movie(header), box("meta", numbers(0), box("hdlr", numbers(0, 0), "nrtm", numbers(0, 0, 0)), box("xml ", numbers(0),
			`<?xml version="1.0" encoding="UTF-8"?><NonRealTimeMeta xmlns="urn:schemas-professionalDisc:nonRealTimeMeta:ver.2.00"><CreationDate value="2026-05-04T17:45:10-03:00"/>`+
				`<Device manufacturer="Sony" modelName="ILCE-7M3" serialNo="1"/></NonRealTimeMeta>`+"\x00"))...),
			"2026-05-04T17:45:10-03:00 offset, 2026-05-04T17:45:10, at none none none none, Sony ILCE-7M3 , , title , 0, 0 x 0, 1.5 s"},
		"cut behind the header":  {[]byte(box("ftyp", "isom") + "\x00\x00\x10\x00moov" + header + "\x00\x00\x10\x00udta\x00\x00"), "2026-05-04T20:45:10Z header, , at none none none none,   , , title , 0, 0 x 0, 1.5 s"},
		"frames of 4 GiB before": {append([]byte(box("ftyp", "isom")+"\x00\x00\x00\x01mdat\x00\x00\x00\x00\x00\x00\x00\x18framesxx"), box("moov", header)...), "2026-05-04T20:45:10Z header, , at none none none none,   , , title , 0, 0 x 0, 1.5 s"},
		"no film":                {[]byte("not a box at all"), none},
	} {
		for _, mediaType := range filmTypes {
			f, _ := Read(bytes.NewReader(c.file), mediaType)
			if got := filmSummary(f); got != c.want {
				t.Errorf("%s: got\n%s, want\n%s; %s", name, got, c.want, f.Tags)
			}
		}
	}
}

// The tags are those that the facts come from, in exiftool's words.
func TestTagsOfFilms(t *testing.T) {
	t.Parallel()
	f, err := Read(bytes.NewReader(movie(header, box("udta", international("\xa9xyz", "-34.6037-058.3816/")), keyed("com.android.version", "14"))), "video/mp4")
	stack.Must(t, err)
	const want = `{"Keys":{"AndroidVersion":"14"},"QuickTime":{"CreateDate":"2026:05:04 20:45:10"},"UserData":{"GPSCoordinates":"-34.6037-058.3816/"}}`
	var tags map[string]any
	if stack.Must(t, json.Unmarshal(f.Tags, &tags)); string(f.Tags) != want || f.TagsTruncated {
		t.Errorf("%s, %t", f.Tags, f.TagsTruncated)
	}
}
