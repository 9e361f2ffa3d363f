package facts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// What each source is made to say; all say the same, so that they can be told apart only by what is there.
var (
	exifSays = []string{
		"-EXIF:DateTimeOriginal=2026:05:04 17:45:10", "-EXIF:OffsetTimeOriginal=-03:00", "-EXIF:Make=Probe Works", "-EXIF:Model=P1",
		"-EXIF:LensModel=26mm f/1.8", "-EXIF:Software=Works 1.2", "-IFD0:Orientation#=6", "-EXIF:GPSLatitude=34.603722", "-EXIF:GPSLatitudeRef=S",
		"-EXIF:GPSLongitude=58.381592", "-EXIF:GPSLongitudeRef=W", "-EXIF:GPSAltitude=25.5", "-EXIF:GPSAltitudeRef#=1",
		"-EXIF:GPSImgDirection=271.5", "-EXIF:GPSImgDirectionRef=M", "-EXIF:FNumber=1.8",
	}
	xmpSays = []string{
		"-XMP-exif:DateTimeOriginal=2026:05:04 17:45:10-03:00", "-XMP-tiff:Make=Probe Works", "-XMP-tiff:Model=P1", "-XMP-exifEX:LensModel=26mm f/1.8",
		"-XMP-tiff:Software=Works 1.2", "-XMP-tiff:Orientation#=6", "-XMP-exif:GPSLatitude=-34.603722", "-XMP-exif:GPSLongitude=-58.381592",
		"-XMP-exif:GPSAltitude=25.5", "-XMP-exif:GPSAltitudeRef#=1", "-XMP-exif:GPSImgDirection=271.5", "-XMP-dc:Title=Losa, nivel 3 ñ",
		"-XMP-dc:Title-es=Otro", "-XMP-dc:Description=Grieta", "-XMP-dc:Subject=losa", "-XMP-dc:Subject=grieta",
	}
	iptcSays = []string{
		"-codedcharacterset=utf8", "-IPTC:DateCreated=2026:05:04", "-IPTC:TimeCreated=17:45:10-03:00", "-IPTC:OriginatingProgram=Works 1.2",
		"-IPTC:ObjectName=Losa, nivel 3 ñ", "-IPTC:Keywords=losa", "-IPTC:Keywords=grieta",
	}
)

// And what is read of it.
const (
	exifTold = "2026-05-04T17:45:10-03:00 offset, 2026-05-04T17:45:10, at -34.60372 -58.38159 -25.5 271.5, Probe Works P1 26mm f/1.8, Works 1.2, title , 6"
	xmpTold  = "2026-05-04T17:45:10-03:00 xmp, 2026-05-04T17:45:10, at -34.60372 -58.38159 -25.5 271.5, Probe Works P1 26mm f/1.8, Works 1.2, title Losa, nivel 3 ñ, 0"
	iptcTold = "none , 2026-05-04T17:45:10, at none none none none,   , Works 1.2, title Losa, nivel 3 ñ, 0"
)

func summary(f Facts) string {
	at := "none"
	if f.TakenAt != nil {
		at = f.TakenAt.Format("2006-01-02T15:04:05Z07:00")
	}
	number := func(n *float64, places int) string {
		if n == nil {
			return "none"
		}
		return fmt.Sprintf("%.*f", places, *n)
	}
	return fmt.Sprintf("%s %s, %s, at %s %s %s %s, %s %s %s, %s, title %s, %d", at, f.TakenZone, f.TakenLocal, number(f.Latitude, 5),
		number(f.Longitude, 5), number(f.Altitude, 1), number(f.Direction, 1), f.CameraMake, f.CameraModel, f.Lens, f.Software, f.Title, f.Orientation)
}

// bare are pictures that say nothing, by format: some real ones, emptied.
func bare(t testing.TB, name string) []byte {
	t.Helper()
	if name == "a.jpg" || name == "a.png" {
		return tagged(t, name)
	}
	from := map[string]string{"a.webp": "bep/sunrise.webp", "a.tif": "bep/sunrise.tif", "a.avif": "bep/sunset.avif", "a.heic": "iphone.heic", "a.dng": "bep/sunrise.tif"}
	content, err := os.ReadFile(cameraPhotos(t)["bep/imagemeta/testdata/images/"+from[name]])
	stack.Must(t, err)
	empty := exiftool(t, name, content, "-all=", "-m")
	switch name {
	case "a.tif", "a.dng": // whose first directory is that of the picture itself
		empty = exiftool(t, name, empty, "-IFD0:Make=", "-IFD0:Model=", "-IFD0:Software=", "-IFD0:Orientation=", "-IFD0:ModifyDate=")
	}
	if name == "a.dng" {
		return exiftool(t, "a.tif", empty, "-IFD0:DNGVersion#=1 4 0 0")
	}
	return empty
}

// exiftool returns a picture with tags changed.
func exiftool(t testing.TB, name string, content []byte, tags ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	stack.Must(t, os.WriteFile(path, content, 0o600))
	stack.Output(t, "exiftool", append(append([]string{"-q", "-overwrite_original"}, tags...), path)...)
	changed, err := os.ReadFile(path)
	stack.Must(t, err)
	return changed
}

// Every field is read of every source in every format that can have it.
func TestEachSourceInEachFormat(t *testing.T) {
	t.Parallel()
	for _, format := range []struct{ name, mediaType string }{
		{"a.jpg", "image/jpeg"}, {"a.png", "image/png"}, {"a.webp", "image/webp"}, {"a.tif", "image/tiff"},
		{"a.heic", "image/heic"}, {"a.avif", "image/avif"}, {"a.dng", "image/x-adobe-dng"},
	} {
		empty := bare(t, format.name)
		for _, source := range []struct {
			name, told string
			tags       []string
			formats    string
		}{
			{"EXIF", exifTold, exifSays, "a.jpg a.png a.webp a.tif a.heic a.avif a.dng"},
			{"XMP", xmpTold, xmpSays, "a.jpg a.png a.webp a.tif a.heic a.avif"},
			{"IPTC", iptcTold, iptcSays, "a.jpg a.tif"},
			{"all", strings.Replace(exifTold, "title ", "title Losa, nivel 3 ñ", 1), slices.Concat(exifSays, xmpSays), "a.jpg a.png a.webp a.tif a.heic a.avif a.dng"},
		} {
			if !strings.Contains(source.formats, format.name) {
				continue
			}
			t.Run(format.name+" "+source.name, func(t *testing.T) {
				t.Parallel()
				content := exiftool(t, format.name, empty, source.tags...)
				f, err := Read(bytes.NewReader(content), format.mediaType)
				if err != nil {
					t.Error(err)
				}
				if got := summary(f); got != source.told {
					t.Errorf("got\n%s, want\n%s", got, source.told)
				}
				if f.Width == 0 || f.Height == 0 {
					t.Error("no dimensions")
				}
			})
		}
	}
}

// The tags say what the file says, in exiftool's words; nothing that is not text or numbers is among them.
func TestTags(t *testing.T) {
	t.Parallel()
	content := exiftool(t, "a.jpg", bare(t, "a.jpg"), slices.Concat(exifSays, xmpSays, iptcSays)...)
	f, err := Read(bytes.NewReader(content), "image/jpeg")
	stack.Must(t, err)
	const want = `{
		"ExifIFD": {"DateTimeOriginal": "2026:05:04 17:45:10", "FNumber": 1.8, "LensModel": "26mm f/1.8", "OffsetTimeOriginal": "-03:00"},
		"GPS": {"GPSAltitude": 25.5, "GPSAltitudeRef": 1, "GPSImgDirection": 271.5, "GPSImgDirectionRef": "M", "GPSLatitudeRef": "S", "GPSLongitudeRef": "W"},
		"IFD0": {"Make": "Probe Works", "Model": "P1", "Orientation": 6, "Software": "Works 1.2"},
		"IPTC": {"CodedCharacterSet": "UTF-8", "DateCreated": "2026:05:04", "Keywords": ["losa", "grieta"], "ObjectName": "Losa, nivel 3 ñ"},
		"XMP-dc": {"Description": "Grieta", "Subject": ["losa", "grieta"], "Title": ["Losa, nivel 3 ñ", "Otro"]},
		"XMP-exif": {"DateTimeOriginal": "2026-05-04T17:45:10-03:00", "GPSAltitude": "51/2", "GPSLatitude": "34,36.22332S"},
		"XMP-exifEX": {"LensModel": "26mm f/1.8"}
	}`
	var got, wanted map[string]map[string]any
	stack.Must(t, json.Unmarshal(f.Tags, &got))
	stack.Must(t, json.Unmarshal([]byte(want), &wanted))
	for group, values := range wanted {
		for name, value := range values {
			if fmt.Sprint(got[group][name]) != fmt.Sprint(value) {
				t.Errorf("%s %s is %v, want %v", group, name, got[group][name], value)
			}
		}
	}
	if f.TagsTruncated {
		t.Error("they are said to be truncated")
	}
}

// Tags of a real phone and a real camera are kept whole: no maker's notes, no thumbnail, no table.
func TestTagsOfRealPhotos(t *testing.T) {
	t.Parallel()
	photos := cameraPhotos(t)
	for name, mediaType := range map[string]string{"iphone.heic": "image/heic", "sony.heif": "image/heif", "sample.dng": "image/x-adobe-dng", "bep/sunrise.jpg": "image/jpeg"} {
		content, err := os.ReadFile(photos["bep/imagemeta/testdata/images/"+name])
		stack.Must(t, err)
		f, err := Read(bytes.NewReader(content), mediaType)
		if err != nil {
			t.Error(name, err)
		}
		if len(f.Tags) < 500 || len(f.Tags) > 6000 || f.TagsTruncated || bytes.Contains(f.Tags, []byte("plist")) || bytes.Contains(f.Tags, []byte("MakerNote")) || bytes.Contains(f.Tags, []byte("Thumbnail")) {
			t.Errorf("%s: %d bytes of tags, truncated=%t: %s", name, len(f.Tags), f.TagsTruncated, f.Tags)
		}
	}
}
