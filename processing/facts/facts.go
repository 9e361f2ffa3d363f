// Package facts reads the metadata of photos (EXIF, XMP, IPTC), of films and of documents. Any of it may be false: whoever wrote
// the file can write anything. Package facts drops only what is impossible.
package facts

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/bep/imagemeta"

	"github.com/tramo/tramo/processing/mediatype"
)

// How the zone of Facts.TakenAt is known.
const (
	ZoneFromOffset = "offset" // the camera wrote it beside its clock (EXIF 2.31, OffsetTimeOriginal)
	ZoneFromXMP    = "xmp"    // the XMP tells the time with its zone
	ZoneFromGPS    = "gps"    // the satellites' time beside the camera's, or alone
	ZoneFromHeader = "header" // a film's header, which is in UTC (ISO/IEC 14496-12, 8.2.2); not every camera keeps to that
)

// localLayout is the layout of Facts.TakenLocal: a wall clock, no zone.
const localLayout = "2006-01-02T15:04:05"

// The limits of Read. A phone's EXIF is about 64 KiB and read in under a millisecond.
const (
	readLimit = 32 << 20
	timeLimit = 5 * time.Second
	textLimit = 200
	maxPages  = 10_000_000
	// maxDuration is of a film; a time-lapse of a site can be long.
	maxDuration = 30 * 24 * time.Hour
)

// Facts are the metadata of a file, unproven. Every field may be empty. docs/reference/facts.md says where each comes from.
type Facts struct {
	// TakenAt is the moment; TakenZone says how its zone is known. It is nil when the zone is unknown: then
	// there is only TakenLocal.
	TakenAt   *time.Time `json:"taken_at,omitempty"`
	TakenZone string     `json:"taken_zone,omitempty"`
	// TakenLocal is the camera's wall clock, "2006-01-02T15:04:05".
	TakenLocal string `json:"taken_local,omitempty"`

	Latitude  *float64 `json:"latitude,omitempty"`  // degrees, north positive
	Longitude *float64 `json:"longitude,omitempty"` // degrees, east positive
	Altitude  *float64 `json:"altitude,omitempty"`  // metres above the sea
	Direction *float64 `json:"direction,omitempty"` // degrees clockwise from north, under 360

	CameraMake  string `json:"camera_make,omitempty"`
	CameraModel string `json:"camera_model,omitempty"`
	Lens        string `json:"lens,omitempty"`
	Software    string `json:"software,omitempty"`
	Title       string `json:"title,omitempty"`

	// Orientation is EXIF's, 1 to 8, or 0 when unknown. Width and Height are in pixels: as the container shows them, that
	// is, turned already in HEIF, and not in others.
	Orientation int `json:"orientation,omitempty"`
	Width       int `json:"width,omitempty"`
	Height      int `json:"height,omitempty"`
	// Turned says that Width and Height are upright, whatever Orientation says (ISO/IEC 23008-12, irot).
	Turned bool `json:"turned,omitempty"`
	// Duration is a film's, in seconds, or 0 when unknown.
	Duration float64 `json:"duration,omitempty"`

	// Tags are the tags themselves, by group and name: an object of objects, of at most MaxTags bytes, or nil.
	// TagsTruncated says that there were more.
	Tags          json.RawMessage `json:"tags,omitempty"`
	TagsTruncated bool            `json:"tags_truncated,omitempty"`
}

// Read reads EXIF, XMP and IPTC from an image of the given media type, or the boxes of a film. A type that has none gives empty
// Facts. When some of the metadata is damaged, it returns the facts of the rest, and an error: the file itself may be intact.
func Read(r io.ReadSeeker, contentType string) (Facts, error) {
	limited := &limitedSeeker{source: r, left: readLimit, until: time.Now().Add(timeLimit)}
	contentType = mediatype.Canonical(contentType)
	if films[contentType] {
		return readFilm(limited)
	}
	format, ok := metadataFormats[contentType]
	if !ok {
		return Facts{}, nil
	}
	found := reading{tags: tags{}}
	err := found.read(limited, format)
	facts := found.facts()
	facts.Width, facts.Height = found.config.Width, found.config.Height
	facts.Turned = format == imagemeta.HEIF || format == imagemeta.AVIF
	facts.Tags, facts.TagsTruncated = found.json()
	facts.TagsTruncated = facts.TagsTruncated || found.tooMany
	return facts.Plausible(), err
}

// Upright returns the width and height of the image as it is looked at, in pixels.
func (f Facts) Upright() (width, height int) {
	if f.Orientation >= 5 && !f.Turned { // a quarter turn
		return f.Height, f.Width
	}
	return f.Width, f.Height
}

// Readable reports whether Read reads a media type.
func Readable(mediaType string) bool {
	mediaType = mediatype.Canonical(mediaType)
	return metadataFormats[mediaType] != 0 || films[mediaType]
}

var films = map[string]bool{
	"video/mp4": true, "video/quicktime": true, "video/3gpp": true, "video/3gpp2": true, "video/x-m4v": true,
}

var metadataFormats = map[string]imagemeta.ImageFormat{
	"image/jpeg":        imagemeta.JPEG,
	"image/png":         imagemeta.PNG,
	"image/webp":        imagemeta.WebP,
	"image/tiff":        imagemeta.TIFF,
	"image/heic":        imagemeta.HEIF,
	"image/heif":        imagemeta.HEIF,
	"image/avif":        imagemeta.AVIF,
	"image/x-adobe-dng": imagemeta.DNG,
}

// facts chooses between the sources: EXIF, which the camera wrote, before XMP and IPTC, which programs copy and
// people edit. An implausible value of one does not hide the next one's.
func (t tags) facts() Facts {
	facts := t.exif().Plausible()
	for _, next := range []Facts{t.xmp().Plausible(), t.iptc().Plausible()} {
		if facts.Latitude == nil { // latitude, longitude and altitude are from one source
			facts.Latitude, facts.Longitude, facts.Altitude = next.Latitude, next.Longitude, next.Altitude
		}
		facts.Direction = cmp.Or(facts.Direction, next.Direction)
		facts.CameraMake = cmp.Or(facts.CameraMake, next.CameraMake)
		facts.CameraModel = cmp.Or(facts.CameraModel, next.CameraModel)
		facts.Lens = cmp.Or(facts.Lens, next.Lens)
		facts.Software = cmp.Or(facts.Software, next.Software)
		facts.Title = cmp.Or(facts.Title, next.Title)
	}
	facts.TakenAt, facts.TakenZone, facts.TakenLocal = t.taken()
	return facts
}

func (t tags) exif() Facts {
	return Facts{
		Latitude: t.signed("GPS:GPSLatitude", "N", "S"), Longitude: t.signed("GPS:GPSLongitude", "E", "W"),
		Altitude:  t.altitude("GPS:GPSAltitude"),
		Direction: t.number("GPS:GPSImgDirection"), CameraMake: t.text("IFD0:Make"), CameraModel: t.text("IFD0:Model"),
		Lens: t.text("ExifIFD:LensModel"), Software: t.text("IFD0:Software"), Orientation: t.orientation(),
	}
}

// orientation is EXIF's alone: no viewer turns an image by its XMP.
func (t tags) orientation() int {
	n := between(t.number("IFD0:Orientation"), 0, 8)
	if n == nil || *n != math.Trunc(*n) {
		return 0
	}
	return int(*n)
}

func (t tags) xmp() Facts {
	return Facts{
		Latitude: xmpCoordinate(t.text("XMP-exif:GPSLatitude"), "N", "S"), Longitude: xmpCoordinate(t.text("XMP-exif:GPSLongitude"), "E", "W"),
		Altitude:  t.altitude("XMP-exif:GPSAltitude"),
		Direction: t.number("XMP-exif:GPSImgDirection"), CameraMake: t.text("XMP-tiff:Make"), CameraModel: t.text("XMP-tiff:Model"),
		Lens:     cmp.Or(t.text("XMP-exifEX:LensModel"), t.text("XMP-aux:Lens")),
		Software: cmp.Or(t.text("XMP-tiff:Software"), t.text("XMP-xmp:CreatorTool")),
		Title:    t.text("XMP-dc:Title"),
	}
}

func (t tags) iptc() Facts {
	return Facts{Software: t.text("IPTC:OriginatingProgram"), Title: t.text("IPTC:ObjectName")}
}

// signed returns a coordinate with the sign of its hemisphere. Without one it is nil: a place in the
// wrong hemisphere is worse than none.
func (t tags) signed(name, positive, negative string) *float64 {
	degrees := t.number(name)
	if degrees == nil || *degrees < 0 {
		return nil
	}
	switch hemisphere := strings.ToUpper(t.text(name + "Ref")); {
	case strings.HasPrefix(hemisphere, positive):
		return degrees
	case strings.HasPrefix(hemisphere, negative):
		*degrees = -*degrees
		return degrees
	}
	return nil
}

// altitude is below the sea if its reference says so: 1, or 3 of EXIF 3.0, whose 0 and 1 are of the ellipsoid.
func (t tags) altitude(name string) *float64 {
	altitude := t.number(name)
	if reference := t.number(name + "Ref"); altitude != nil && reference != nil && (*reference == 1 || *reference == 3) {
		*altitude = -*altitude
	}
	return altitude
}

// between returns the number if it is between low and high, or else nil.
func between(number *float64, low, high float64) *float64 {
	if number == nil || math.IsNaN(*number) || *number < low || *number > high {
		return nil
	}
	return number
}

// Plausible returns f without impossible values. The parent of the process that read it applies it once
// more, because that process is not trusted.
func (f Facts) Plausible() Facts {
	f.Latitude, f.Longitude = between(f.Latitude, -90, 90), between(f.Longitude, -180, 180)
	// A receiver without a fix writes 0, 0; a coordinate that cannot be read is 0 as well. Photos on a
	// line a few centimetres wide lose their place.
	if f.Latitude == nil || f.Longitude == nil || *f.Latitude == 0 || *f.Longitude == 0 {
		f.Latitude, f.Longitude, f.Altitude = nil, nil, nil
	}
	f.Altitude = between(f.Altitude, -1000, 20_000)
	if f.Direction = between(f.Direction, 0, 360); f.Direction != nil && *f.Direction == 360 {
		f.Direction = new(float64)
	}
	for _, text := range []*string{&f.CameraMake, &f.CameraModel, &f.Lens, &f.Software, &f.Title} {
		*text = cleanText(*text, textLimit)
	}
	if f.Orientation < 1 || f.Orientation > 8 {
		f.Orientation = 0
	}
	if f.Width < 1 || f.Height < 1 || f.Width > math.MaxInt32 || f.Height > math.MaxInt32 {
		f.Width, f.Height = 0, 0
	}
	if f.Duration = math.Round(f.Duration*1000) / 1000; !(f.Duration > 0 && f.Duration <= maxDuration.Seconds()) {
		f.Duration = 0
	}
	f.Tags, f.TagsTruncated = plausibleTags(f.Tags, f.TagsTruncated)
	return f.plausiblyTaken()
}

func (f Facts) plausiblyTaken() Facts {
	if clock, err := time.Parse(localLayout, f.TakenLocal); err != nil || !plausibleClock(clock) {
		f.TakenLocal = ""
	}
	switch f.TakenZone {
	case ZoneFromOffset, ZoneFromXMP, ZoneFromGPS, ZoneFromHeader:
	default:
		f.TakenAt = nil
	}
	if f.TakenAt == nil || !plausibleClock(f.TakenAt.UTC()) {
		f.TakenAt, f.TakenZone = nil, ""
	}
	return f
}

// cleanText returns text as a database and a page can take it: valid UTF-8, without control
// characters, trimmed, of at most limit characters.
func cleanText(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	text = strings.TrimSpace(text)
	if characters := []rune(text); len(characters) > limit {
		text = strings.TrimSpace(string(characters[:limit]))
	}
	return text
}

var errMetadataTooLarge = errors.New("the metadata takes too much reading")

// limitedSeeker bounds how much, and for how long, a crafted file makes a decoder read.
type limitedSeeker struct {
	source io.ReadSeeker
	left   int
	until  time.Time
}

func (l *limitedSeeker) Read(p []byte) (int, error) {
	if l.left <= 0 || time.Now().After(l.until) {
		return 0, errMetadataTooLarge
	}
	n, err := l.source.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

func (l *limitedSeeker) Seek(offset int64, whence int) (int64, error) {
	l.left -= 64 // a seek without a read is work too
	if l.left <= 0 {
		return 0, errMetadataTooLarge
	}
	return l.source.Seek(offset, whence)
}
