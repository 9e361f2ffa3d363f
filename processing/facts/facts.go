// Package facts reads what a photo says of itself. It was written by a stranger: nothing in it is proven.
package facts

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/bep/imagemeta"

	"github.com/tramo/tramo/processing/mediatype"
)

// How Facts.TakenAt came by its zone.
const (
	ZoneFromOffset = "offset" // the camera wrote OffsetTimeOriginal
	ZoneFromGPS    = "gps"    // the satellite's time beside the camera's, or alone
)

// localLayout is the layout of Facts.TakenLocal: a wall clock, no zone.
const localLayout = "2006-01-02T15:04:05"

// The limits of Read. A phone's EXIF is about 64 KiB and read in under a millisecond.
const (
	readLimit = 32 << 20
	timeLimit = 5 * time.Second
	textLimit = 200
)

// Facts is what a photo says about itself. Every field may be empty: cameras leave out what they
// like. It was written by a stranger; nothing in it is proven.
type Facts struct {
	// TakenAt is the moment, in the zone where it was taken if TakenZone is ZoneFromOffset or
	// ZoneFromGPS. It is nil when the zone is unknown: then only TakenLocal is.
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

	// Orientation is EXIF's, 1 to 8, or 0 when unknown. Width and Height are in pixels, as stored.
	Orientation int `json:"orientation,omitempty"`
	Width       int `json:"width,omitempty"`
	Height      int `json:"height,omitempty"`
}

// Read reads EXIF from a picture of the given media type. A type that has none gives empty
// Facts. When the metadata is damaged it returns what it had read by then, and an error: the
// picture itself may be sound.
func Read(r io.ReadSeeker, contentType string) (facts Facts, err error) {
	format, ok := metadataFormats[mediatype.Canonical(contentType)]
	if !ok {
		return Facts{}, nil
	}
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("read the picture's metadata: panic: %v", cause)
		}
	}()
	tags := exifTags{}
	result, err := imagemeta.Decode(imagemeta.Options{
		R:               &limitedSeeker{source: r, left: readLimit, until: time.Now().Add(timeLimit)},
		ImageFormat:     format,
		Sources:         imagemeta.EXIF | imagemeta.CONFIG,
		ShouldHandleTag: func(tag imagemeta.TagInfo) bool { return wantedTags[tag.Tag] == lastName(tag.Namespace) },
		HandleTag:       tags.keep,
		LimitNumTags:    2000,
		LimitTagSize:    4 << 10,
	})
	facts = tags.facts()
	facts.Width, facts.Height = result.ImageConfig.Width, result.ImageConfig.Height
	if err != nil {
		err = fmt.Errorf("read the picture's metadata: %w", err)
	}
	return facts.Plausible(), err
}

// Readable reports whether anything can be read of a media type at all.
func Readable(mediaType string) bool {
	_, ok := metadataFormats[mediatype.Canonical(mediaType)]
	return ok
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

// wantedTags names, in imagemeta's words, the tags read and the directory each has to be in: the
// same number means something else in another one.
var wantedTags = map[string]string{
	"Make": "IFD0", "Model": "IFD0", "Software": "IFD0", "Orientation": "IFD0", "ModifyDate": "IFD0",
	"DateTimeOriginal": "ExifIFDP", "OffsetTimeOriginal": "ExifIFDP", "OffsetTime": "ExifIFDP", "LensModel": "ExifIFDP",
	"GPSLatitude": "GPSInfoIFD", "GPSLatitudeRef": "GPSInfoIFD", "GPSLongitude": "GPSInfoIFD", "GPSLongitudeRef": "GPSInfoIFD",
	"GPSAltitude": "GPSInfoIFD", "GPSAltitudeRef": "GPSInfoIFD", "GPSImgDirection": "GPSInfoIFD",
	"GPSDateStamp": "GPSInfoIFD", "GPSTimeStamp": "GPSInfoIFD",
}

func lastName(namespace string) string {
	return namespace[strings.LastIndexByte(namespace, '/')+1:]
}

// exifTags are raw values by name. imagemeta's own helpers assert their types and panic.
type exifTags map[string]any

// keep lets the first of two equal names win.
func (t exifTags) keep(tag imagemeta.TagInfo) error {
	if _, seen := t[tag.Tag]; !seen {
		t[tag.Tag] = tag.Value
	}
	return nil
}

func (t exifTags) text(name string) string {
	text, _ := t[name].(string)
	return cleanText(text)
}

func (t exifTags) number(name string) *float64 {
	var number float64
	switch value := t[name].(type) {
	case interface{ Float64() float64 }:
		number = value.Float64()
	case float64:
		number = value
	case uint8:
		number = float64(value)
	case uint16:
		number = float64(value)
	case uint32:
		number = float64(value)
	default:
		return nil
	}
	return &number
}

// signed returns a coordinate with the sign of its hemisphere. Without one it is nil: the wrong
// half of the world is worse than no place.
func (t exifTags) signed(name, positive, negative string) *float64 {
	degrees, hemisphere := t.number(name), strings.ToUpper(t.text(name+"Ref"))
	switch {
	case degrees == nil || hemisphere == "" || *degrees < 0:
		return nil
	case hemisphere[:1] == positive:
		return degrees
	case hemisphere[:1] == negative:
		*degrees = -*degrees
		return degrees
	}
	return nil
}

func (t exifTags) facts() Facts {
	facts := Facts{
		Latitude: t.signed("GPSLatitude", "N", "S"), Longitude: t.signed("GPSLongitude", "E", "W"),
		Altitude: t.number("GPSAltitude"), Direction: t.number("GPSImgDirection"),
		CameraMake: t.text("Make"), CameraModel: t.text("Model"), Lens: t.text("LensModel"), Software: t.text("Software"),
	}
	if below := t.number("GPSAltitudeRef"); below != nil && *below == 1 && facts.Altitude != nil {
		*facts.Altitude = -*facts.Altitude
	}
	if orientation := t.number("Orientation"); orientation != nil {
		facts.Orientation = int(*orientation)
	}
	facts.TakenAt, facts.TakenZone, facts.TakenLocal = t.taken()
	return facts
}

// taken works out when the shutter fell: the wall clock with the offset that the camera wrote, or
// with the one that the satellites imply, or alone.
func (t exifTags) taken() (at *time.Time, zone, local string) {
	clock, err := time.Parse("2006:01:02 15:04:05", firstBytes(cmp.Or(t.text("DateTimeOriginal"), t.text("ModifyDate")), 19))
	haveClock := err == nil
	satellite, haveSatellite := t.satelliteTime()
	if haveClock {
		local = clock.Format(localLayout)
		if offset, ok := parseOffset(cmp.Or(t.text("OffsetTimeOriginal"), t.text("OffsetTime"))); ok {
			return inZone(clock, offset), ZoneFromOffset, local
		}
		if offset, ok := impliedOffset(clock, satellite); ok && haveSatellite {
			return inZone(clock, offset), ZoneFromGPS, local
		}
		return nil, "", local
	}
	if haveSatellite {
		return &satellite, ZoneFromGPS, ""
	}
	return nil, "", ""
}

func (t exifTags) satelliteTime() (time.Time, bool) {
	date := strings.ReplaceAll(t.text("GPSDateStamp"), "-", ":")
	at, err := time.Parse("2006:01:02 15:04:05", date+" "+firstBytes(t.text("GPSTimeStamp"), 8))
	return at, err == nil
}

// impliedOffset is what the wall clock is ahead of UTC, in whole quarters of an hour as all zones
// are. The last fix may be a little old: three minutes are forgiven.
func impliedOffset(clock, satellite time.Time) (seconds int, ok bool) {
	ahead := clock.Sub(satellite)
	offset := ahead.Round(15 * time.Minute)
	if (ahead-offset).Abs() > 3*time.Minute || offset < -12*time.Hour || offset > 14*time.Hour {
		return 0, false
	}
	return int(offset.Seconds()), true
}

// parseOffset reads "-03:00", "+05:45" or "Z" (EXIF 2.32, 4.6.5, tag 0x9011).
func parseOffset(text string) (seconds int, ok bool) {
	at, err := time.Parse("Z07:00", text)
	if err != nil {
		return 0, false
	}
	_, seconds = at.Zone()
	return seconds, seconds >= -12*3600 && seconds <= 14*3600
}

func inZone(clock time.Time, offset int) *time.Time {
	at := clock.Add(-time.Duration(offset) * time.Second).In(time.FixedZone("", offset))
	return &at
}

// Plausible returns f without what cannot be. The parent of the process that read it applies it once
// more, because that process is not trusted.
func (f Facts) Plausible() Facts {
	within := func(number *float64, low, high float64) *float64 {
		if number == nil || math.IsNaN(*number) || *number < low || *number > high {
			return nil
		}
		return number
	}
	f.Latitude, f.Longitude = within(f.Latitude, -90, 90), within(f.Longitude, -180, 180)
	if f.Latitude == nil || f.Longitude == nil || (*f.Latitude == 0 && *f.Longitude == 0) {
		f.Latitude, f.Longitude, f.Altitude = nil, nil, nil // a receiver without a fix writes 0, 0
	}
	f.Altitude = within(f.Altitude, -1000, 20_000)
	if f.Direction = within(f.Direction, 0, 360); f.Direction != nil && *f.Direction == 360 {
		f.Direction = new(float64)
	}
	for _, text := range []*string{&f.CameraMake, &f.CameraModel, &f.Lens, &f.Software} {
		*text = cleanText(*text)
	}
	if f.Orientation < 1 || f.Orientation > 8 {
		f.Orientation = 0
	}
	if f.Width < 1 || f.Height < 1 || f.Width > math.MaxInt32 || f.Height > math.MaxInt32 {
		f.Width, f.Height = 0, 0
	}
	if _, err := time.Parse(localLayout, f.TakenLocal); err != nil {
		f.TakenLocal = ""
	}
	if f.TakenZone != ZoneFromOffset && f.TakenZone != ZoneFromGPS {
		f.TakenAt, f.TakenZone = nil, ""
	}
	if f.TakenAt == nil || f.TakenAt.Year() < 1 || f.TakenAt.Year() > 9998 { // JSON and Postgres end there
		f.TakenAt, f.TakenZone = nil, ""
	}
	return f
}

// cleanText returns text as a database and a page can take it: valid UTF-8, without control
// characters, trimmed, of at most textLimit characters.
func cleanText(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if characters := []rune(text); len(characters) > textLimit {
		text = string(characters[:textLimit])
	}
	return strings.TrimSpace(text)
}

func firstBytes(text string, n int) string {
	return text[:min(n, len(text))]
}

var errMetadataTooLarge = errors.New("the metadata takes too much reading")

// limitedSeeker ends a decoder that a crafted file sends in circles.
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
	return l.source.Seek(offset, whence)
}
