package facts

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/test/stack"
)

// cameraModules carry real photos, old and new, sound and broken; test/camera pins them.
var cameraModules = []string{"github.com/bep/imagemeta", "github.com/rwcarlsen/goexif", "github.com/evanoberholster/imagemeta"}

// known are the differences that are left, each with its reason: what exiftool has, and Tramo on purpose or for want of a
// better library has not.
var known = map[string]string{
	"bep/imagemeta/testdata/images/corrupt/huge_tag_exif.jpg size":             noPixels,
	"bep/imagemeta/testdata/images/corrupt/max_uint32_exif.jpg size":           noPixels,
	"bep/imagemeta/testdata/images/metadata-extractor/issue-590.png latitude":  "the XMP has three fractions and no hemisphere; exiftool takes their seconds for minutes, and is wrong",
	"bep/imagemeta/testdata/images/metadata-extractor/issue-590.png longitude": "likewise",
	"bep/imagemeta/testdata/images/metadata-extractor/withXmp.jpg taken_local": "a blank before the zone is no date of XMP; it is of midnight, that is, of a day",
	"bep/imagemeta/testdata/images/metadata-extractor/withXmp.jpg taken_at":    "likewise",
}

const noPixels = "broken on purpose: it has no frame, and the size that exiftool tells is EXIF's word"

// A photo's facts by field, as text; what is unknown is missing.
type told map[string]string

// Each photo that cameras took says to Tramo what it says to exiftool, field by field.
func TestFactsAreThoseOfExiftool(t *testing.T) {
	t.Parallel()
	photos := cameraPhotos(t)
	seen := map[[sha256.Size]byte]bool{} // some are in two modules
	for _, name := range slices.Sorted(maps.Keys(photos)) {
		content, err := os.ReadFile(photos[name])
		stack.Must(t, err)
		if sum := sha256.Sum256(content); seen[sum] {
			delete(photos, name)
		} else {
			seen[sum] = true
			photos[name] = mended(t, photos[name], content)
		}
	}
	said := exiftoolSays(t, slices.Collect(maps.Values(photos)))
	compared, agreeing, formats, found := map[string]int{}, map[string]int{}, map[string]int{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(photos)) {
		ours, mediaType := tramoSays(t, photos[name])
		if mediaType == "" {
			continue
		}
		formats[mediaType]++
		theirs := said[photos[name]].told()
		for _, field := range fields {
			if ours[field] == "" && theirs[field] == "" {
				continue
			}
			compared[field]++
			if sameFact(field, ours[field], theirs[field]) {
				agreeing[field]++
			} else if key := name + " " + field; known[key] != "" {
				found[key] = true
			} else {
				t.Errorf("%s: Tramo says %q, exiftool %q", key, ours[field], theirs[field])
			}
		}
	}
	for key, reason := range known {
		if !found[key] {
			t.Errorf("%s is the same by now: remove it from the list (%s)", key, reason)
		}
	}
	var all, right int
	for _, field := range fields {
		t.Logf("%-11s %d of %d agree", field, agreeing[field], compared[field])
		all, right = all+compared[field], right+agreeing[field]
	}
	t.Logf("%d photos: %v", len(photos), formats)
	t.Logf("%d of %d fields agree, %d differ as the list says", right, all, len(known))
	if all < 650 || len(formats) < 7 {
		t.Errorf("only %d fields of %d formats were compared", all, len(formats))
	}
}

// fields are compared in this order.
var fields = []string{"taken_local", "taken_at", "latitude", "longitude", "altitude", "direction", "make", "model", "lens", "software", "title", "orientation", "size"}

// tolerances are how far numbers may be apart: degrees of a place to a centimetre, metres to one, directions to a hundredth.
var tolerances = map[string]float64{"latitude": 1e-7, "longitude": 1e-7, "altitude": 0.01, "direction": 0.01}

func sameFact(field, ours, theirs string) bool {
	if tolerance := tolerances[field]; tolerance > 0 && ours != "" && theirs != "" {
		var a, b float64
		_, errA := fmt.Sscan(ours, &a)
		_, errB := fmt.Sscan(theirs, &b)
		return errA == nil && errB == nil && math.Abs(a-b) <= tolerance
	}
	return ours == theirs
}

// cameraPhotos are the photos' paths by name.
func cameraPhotos(t testing.TB) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"mod", "download", "-json"}, cameraModules...)...)
	cmd.Dir = filepath.Join("..", "..", "test", "camera")
	cmd.Env = append(os.Environ(), "GOFLAGS=")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("download the photos: %v", err)
	}
	photos := map[string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var module struct{ Path, Dir string }
		if err := decoder.Decode(&module); err == io.EOF {
			return photos
		} else if err != nil {
			t.Fatal(err)
		}
		err := fs.WalkDir(os.DirFS(module.Dir), ".", func(name string, entry fs.DirEntry, err error) error {
			switch strings.ToLower(path.Ext(name)) {
			case ".jpg", ".jpeg", ".heic", ".heif", ".avif", ".png", ".webp", ".tif", ".tiff", ".dng":
				photos[strings.TrimPrefix(module.Path, "github.com/")+"/"+name] = filepath.Join(module.Dir, name)
			}
			return err
		})
		stack.Must(t, err)
	}
}

// mended is the path of a photo, or of a copy that goes on as a JPEG does: of some, only the beginning was kept, behind whose
// last whole segment exiftool gives up.
func mended(t *testing.T, path string, content []byte) string {
	t.Helper()
	if !bytes.HasPrefix(content, []byte{0xff, 0xd8}) {
		return path
	}
	at := 2
	for at+4 <= len(content) && content[at] == 0xff {
		if content[at+1] == 0xda {
			return path // the pixels begin
		}
		at += 2 + int(content[at+2])<<8 + int(content[at+3])
	}
	whole := append(make([]byte, 0, at+2), content[:min(at, len(content))]...)
	whole = append(whole[:at], 0xff, 0xd9)
	copied := filepath.Join(t.TempDir(), filepath.Base(path))
	stack.Must(t, os.WriteFile(copied, whole, 0o600))
	return copied
}

// tramoSays reads a photo as processing does: its type by its content. The type is "" if nothing is read of it.
func tramoSays(t *testing.T, path string) (told, string) {
	t.Helper()
	content, err := os.ReadFile(path)
	stack.Must(t, err)
	mediaType := mediatype.Detect(content[:min(len(content), 4<<10)])
	if !Readable(mediaType) {
		return nil, ""
	}
	f, _ := Read(bytes.NewReader(content), mediaType)
	said := told{"taken_local": f.TakenLocal, "make": f.CameraMake, "model": f.CameraModel, "lens": f.Lens, "software": f.Software, "title": f.Title}
	if f.TakenAt != nil && f.TakenZone != ZoneFromGPS { // exiftool implies no zone
		said["taken_at"] = f.TakenAt.UTC().Format(time.RFC3339)
	}
	for name, number := range map[string]*float64{"latitude": f.Latitude, "longitude": f.Longitude, "altitude": f.Altitude, "direction": f.Direction} {
		if number != nil {
			said[name] = fmt.Sprint(*number)
		}
	}
	if f.Orientation != 0 {
		said["orientation"] = fmt.Sprint(f.Orientation)
	}
	if f.Width != 0 {
		said["size"] = fmt.Sprintf("%d %d", f.Width, f.Height)
	}
	return said, mediaType
}

// exiftoolTags are a file's tags by group and name, in numbers where there are.
type exiftoolTags map[string]any

// exiftoolSays has one exiftool read all files.
func exiftoolSays(t *testing.T, paths []string) map[string]exiftoolTags {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "exiftool", append([]string{"-j", "-n", "-G1", "-q", "-q"}, paths...)...)
	out, err := cmd.Output() // it exits with 1 if one of the files was broken
	if len(out) == 0 {
		t.Fatalf("exiftool: %v", err)
	}
	var all []exiftoolTags
	decoder := json.NewDecoder(bytes.NewReader(out))
	decoder.UseNumber()
	stack.Must(t, decoder.Decode(&all))
	said := map[string]exiftoolTags{}
	for _, tags := range all {
		said[fmt.Sprint(tags["SourceFile"])] = tags
	}
	if len(said) != len(paths) {
		t.Fatalf("exiftool told of %d files of %d", len(said), len(paths))
	}
	return said
}

// first is the first of the tags named that says anything.
func (e exiftoolTags) first(names ...string) string {
	for _, name := range names {
		value, ok := e[name]
		if !ok {
			continue
		}
		if list, isList := value.([]any); isList && len(list) > 0 {
			value = list[0]
		}
		text := strings.Map(func(r rune) rune {
			if unicode.IsControl(r) || r == unicode.ReplacementChar {
				return -1
			}
			return r
		}, fmt.Sprint(value))
		if text = strings.TrimSpace(text); text != "" {
			return text
		}
	}
	return ""
}

// told chooses between exiftool's tags as docs/reference/facts.md says.
func (e exiftoolTags) told() told {
	said := told{
		"make": e.first("IFD0:Make", "XMP-tiff:Make"), "model": e.first("IFD0:Model", "XMP-tiff:Model"),
		"lens":     e.first("ExifIFD:LensModel", "XMP-exifEX:LensModel", "XMP-aux:Lens"),
		"software": e.first("IFD0:Software", "XMP-tiff:Software", "XMP-xmp:CreatorTool", "IPTC:OriginatingProgram"),
		"title":    e.first("XMP-dc:Title", "IPTC:ObjectName"), "size": e.size(),
		"direction":   e.first("GPS:GPSImgDirection", "XMP-exif:GPSImgDirection"),
		"orientation": e.first("IFD0:Orientation"),
	}
	if o := said["orientation"]; len(o) != 1 || o < "1" || o > "8" {
		said["orientation"] = ""
	}
	latitude, longitude := e.first("Composite:GPSLatitude", "XMP-exif:GPSLatitude"), e.first("Composite:GPSLongitude", "XMP-exif:GPSLongitude")
	if latitude != "0" && longitude != "0" && latitude != "" && longitude != "" {
		said["latitude"], said["longitude"], said["altitude"] = latitude, longitude, e.first("Composite:GPSAltitude")
	}
	said["taken_local"], said["taken_at"] = e.taken()
	return said
}

// size is that of the picture which viewers show: a raw photo's without its edges, and a HEIC as it is turned.
func (e exiftoolTags) size() string {
	size := e.first("SubIFD:DefaultCropSize", "Composite:ImageSize")
	width, height, _ := strings.Cut(size, " ")
	switch e.first("QuickTime:Rotation") {
	case "90", "270":
		return height + " " + width
	}
	return size
}

func (e exiftoolTags) taken() (local, at string) {
	clocks := []struct{ at, offset string }{
		{e.first("ExifIFD:DateTimeOriginal"), e.first("ExifIFD:OffsetTimeOriginal")},
		{e.first("ExifIFD:CreateDate"), e.first("ExifIFD:OffsetTimeDigitized")},
		{at: e.first("XMP-exif:DateTimeOriginal")}, {at: e.first("XMP-photoshop:DateCreated")}, {at: e.first("XMP-xmp:CreateDate")},
		{at: firstBytes(strings.TrimSpace(e.first("IPTC:DateCreated")+" "+e.first("IPTC:TimeCreated")), 19)},
		{e.first("IFD0:ModifyDate"), e.first("ExifIFD:OffsetTime")},
	}
	for _, c := range clocks {
		wall, err := time.Parse("2006:01:02 15:04:05", firstBytes(c.at, 19))
		if err != nil || wall.Year() < 1900 || wall.After(time.Now().AddDate(0, 0, 1)) {
			continue
		}
		if local == "" {
			local = wall.Format("2006-01-02T15:04:05")
		}
		zoned, err := time.Parse("2006:01:02 15:04:05Z07:00", firstBytes(c.at, 19)+cmp.Or(c.offset, c.at[min(len(c.at), 19):]))
		if err == nil && at == "" && wall.Format("2006-01-02T15:04:05") == local {
			at = zoned.UTC().Format(time.RFC3339)
		}
	}
	return local, at
}
