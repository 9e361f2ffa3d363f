package facts

import (
	"bytes"
	"encoding/json"
	"image"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tramo/tramo/test/stack"
)

// tagged returns a picture into which exiftool has written the given tags.
func tagged(t testing.TB, name string, tags ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	picture := image.NewRGBA(image.Rect(0, 0, 64, 48))
	var err error
	if filepath.Ext(name) == ".png" {
		err = png.Encode(&out, picture)
	} else {
		err = jpeg.Encode(&out, picture, nil)
	}
	stack.Must(t, err)
	path := filepath.Join(t.TempDir(), name)
	stack.Must(t, os.WriteFile(path, out.Bytes(), 0o600))
	if len(tags) > 0 {
		stack.Output(t, "exiftool", append(append([]string{"-q", "-overwrite_original"}, tags...), path)...)
	}
	content, err := os.ReadFile(path)
	stack.Must(t, err)
	return content
}

var place = []string{
	"-GPSLatitude=34.603722", "-GPSLatitudeRef=S", "-GPSLongitude=58.381592", "-GPSLongitudeRef=W",
	"-GPSAltitude=25.5", "-GPSAltitudeRef=Above Sea Level", "-GPSImgDirection=271.5", "-GPSImgDirectionRef=T",
}

func TestReadFacts(t *testing.T) {
	t.Parallel()
	tags := append([]string{
		"-DateTimeOriginal=2026:05:04 17:45:10", "-OffsetTimeOriginal=-03:00", "-Make= Probe \x07Works", "-Model=P1",
		"-LensModel=26mm f/1.8", "-Software=" + strings.Repeat("é", 300), "-Orientation#=6",
	}, place...)
	for _, c := range []struct{ name, contentType string }{{"a.jpg", "image/jpeg"}, {"a.jpg", "IMAGE/JPG; q=1"}, {"a.png", "image/png"}} {
		facts, err := Read(bytes.NewReader(tagged(t, c.name, tags...)), c.contentType)
		stack.Must(t, err)
		if facts.Latitude == nil || math.Abs(*facts.Latitude+34.603722) > 1e-5 || math.Abs(*facts.Longitude+58.381592) > 1e-5 {
			t.Errorf("%s: place %v, %v", c.contentType, facts.Latitude, facts.Longitude)
		}
		if facts.Altitude == nil || *facts.Altitude != 25.5 || facts.Direction == nil || *facts.Direction != 271.5 {
			t.Errorf("%s: altitude %v, direction %v", c.contentType, facts.Altitude, facts.Direction)
		}
		if facts.TakenAt == nil || facts.TakenAt.Format("2006-01-02T15:04:05Z07:00") != "2026-05-04T17:45:10-03:00" || facts.TakenZone != ZoneFromOffset {
			t.Errorf("%s: taken at %v by %q", c.contentType, facts.TakenAt, facts.TakenZone)
		}
		if facts.CameraMake != "Probe Works" || facts.CameraModel != "P1" || facts.Lens != "26mm f/1.8" || utf8.RuneCountInString(facts.Software) != 200 {
			t.Errorf("%s: %q %q %q %q", c.contentType, facts.CameraMake, facts.CameraModel, facts.Lens, facts.Software)
		}
		if facts.Orientation != 6 || facts.Width != 64 || facts.Height != 48 {
			t.Errorf("%s: orientation %d, %d by %d", c.contentType, facts.Orientation, facts.Width, facts.Height)
		}
	}
}

func TestTakenZone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		tags            []string
		at, zone, local string
	}{
		{"no zone", []string{"-DateTimeOriginal=2026:05:04 17:45:10"}, "", "", "2026-05-04T17:45:10"},
		{"the satellites' time", []string{"-DateTimeOriginal=2026:05:04 22:45:10", "-GPSDateStamp=2026:05:05", "-GPSTimeStamp=01:44:02"}, "2026-05-04T22:45:10-03:00", ZoneFromGPS, "2026-05-04T22:45:10"},
		{"satellites of an hour nobody lives by", []string{"-DateTimeOriginal=2026:05:04 17:45:10", "-GPSDateStamp=2026:05:04", "-GPSTimeStamp=20:38:00"}, "", "", "2026-05-04T17:45:10"},
		{"satellites only", []string{"-GPSDateStamp=2026:05:04", "-GPSTimeStamp=20:38:00"}, "2026-05-04T20:38:00Z", ZoneFromGPS, ""},
		{"modified only", []string{"-ModifyDate=2026:05:04 17:45:10", "-OffsetTime=+05:45"}, "2026-05-04T17:45:10+05:45", ZoneFromOffset, "2026-05-04T17:45:10"},
		{"a clock never set", []string{"-DateTimeOriginal#=0000:00:00 00:00:00"}, "", "", ""},
		{"nothing", nil, "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			facts, err := Read(bytes.NewReader(tagged(t, "a.jpg", c.tags...)), "image/jpeg")
			stack.Must(t, err)
			at := ""
			if facts.TakenAt != nil {
				at = facts.TakenAt.Format("2006-01-02T15:04:05Z07:00")
			}
			if at != c.at || facts.TakenZone != c.zone || facts.TakenLocal != c.local {
				t.Errorf("at %q by %q, local %q; want %q by %q, %q", at, facts.TakenZone, facts.TakenLocal, c.at, c.zone, c.local)
			}
		})
	}
}

func TestNoPlace(t *testing.T) {
	t.Parallel()
	for name, tags := range map[string][]string{
		"zero":          {"-GPSLatitude=0", "-GPSLatitudeRef=N", "-GPSLongitude=0", "-GPSLongitudeRef=E", "-GPSAltitude=7"},
		"no hemisphere": {"-GPSLatitude=34.6", "-GPSLongitude=58.3"},
		"out of range":  {"-GPSLatitude=134.6", "-GPSLatitudeRef=N", "-GPSLongitude=58.3", "-GPSLongitudeRef=E"},
	} {
		facts, err := Read(bytes.NewReader(tagged(t, "a.jpg", tags...)), "image/jpeg")
		if err != nil || facts.Latitude != nil || facts.Longitude != nil || facts.Altitude != nil {
			t.Errorf("%s: %v %v %v, %v", name, facts.Latitude, facts.Longitude, facts.Altitude, err)
		}
	}
}

func TestReadFactsOfOtherTypes(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"application/pdf", "image/gif", "", "text/plain"} {
		if facts, err := Read(strings.NewReader("whatever"), contentType); err != nil || !reflect.DeepEqual(facts, Facts{}) {
			t.Errorf("%s: %+v, %v", contentType, facts, err)
		}
	}
}

// Whatever a stranger writes, in whatever format, the facts are plausible and can be kept, and reading them ends.
func FuzzReadFacts(f *testing.F) {
	types := []string{"image/jpeg", "image/png", "image/webp", "image/tiff", "image/heic", "image/avif", "image/x-adobe-dng", "video/mp4", "video/quicktime"}
	sample := tagged(f, "a.jpg", append([]string{"-DateTimeOriginal=2026:05:04 17:45:10", "-OffsetTimeOriginal=-03:00", "-Orientation#=3"}, place...)...)
	f.Add(sample, byte(0))
	f.Add(exiftool(f, "a.jpg", tagged(f, "a.jpg"), append(iptcSays, xmpSays...)...), byte(0))
	f.Add(exiftool(f, "a.png", tagged(f, "a.png"), append(exifSays, xmpSays...)...), byte(1))
	f.Add(sample[30:400], byte(3))
	blob := exif([]entry{text(makeTag, "Probe")}, text(1, "S"), south, text(3, "W"), west)
	said := packet(`<rdf:Description tiff:Make="Probe"><dc:title><rdf:Alt><rdf:li>x</rdf:li></rdf:Alt></dc:title></rdf:Description>`)
	f.Add(webp("VP8X", vp8x, "JUNK", "odd", "EXIF", string(blob), "XMP ", said), byte(2))
	f.Add(pngWith("IHDR", ihdr, "zTXt", "XML:com.adobe.xmp\x00\x00"+deflated(said), "eXIf", string(blob)), byte(1))
	f.Add(blob, byte(3))
	f.Add(blob, byte(6))
	f.Add([]byte("\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic\x00\x00\x00\x0cmeta\x00\x00\x00\x00"), byte(4))
	f.Add(heif(blob, said), byte(4))
	f.Add(heif(blob, said), byte(5))
	f.Add(photo(append(slices.Clone(says), leads...), clocked, santiago), byte(3))
	f.Add(movie(header, box("udta", international("\xa9xyz", "-34.6037-058.3816/"), box("loci", numbers(0, 0, 0, 0, 0, 0)))), byte(7))
	f.Add(movie(header, keyed("com.apple.quicktime.location.ISO6709", "-3436.222-05822.896+25/"), box("uuid", xmpBox, said)), byte(8))
	f.Add([]byte(box("meta", numbers(0), box("xml ", numbers(0), `<a><CreationDate value="2026-05-04T17:45:10-03:00"/></a>`))), byte(7))
	f.Fuzz(func(t *testing.T, content []byte, kind byte) {
		facts, _ := Read(bytes.NewReader(content), types[int(kind)%len(types)])
		checkKept(t, facts)
	})
}

// FuzzPlausible is the parent's side: whatever a child answers that strangers have taken over, what is kept of it is
// plausible.
func FuzzPlausible(f *testing.F) {
	f.Add([]byte(`{"latitude": 1e400, "tags": {"a": {"b": [1, "x", [2], null, {"c": 1}]}}}`))
	f.Add([]byte(`{"taken_at": "0000-01-01T00:00:00Z", "taken_zone": "gps", "taken_local": "x", "width": -1, "height": 1, "pages": 1e9, "title": "\u0000\ud800x"}`))
	f.Add([]byte(`{"latitude": -34.6, "longitude": 58, "direction": 360, "tags": {"": {"": ""}, ":": {":": 1e300}}, "orientation": 8}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		var said Facts
		if json.Unmarshal(answer, &said) == nil {
			checkKept(t, said.Plausible())
		}
	})
}
