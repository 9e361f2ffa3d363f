package facts

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A clock is the wall clock of one tag, as if it were UTC, with its offset from UTC if that is known.
type clock struct {
	wall   time.Time
	offset *int // seconds east
}

type clocks []clock

// aheadAtMost is how far a clock can be ahead of ours in UTC: the zones, and a margin. One that is further ahead was never set.
const aheadAtMost = 26 * time.Hour

// unsetDays are the first days of cameras' clocks that were never set: the epochs of Macintosh, Unix and DOS.
var unsetDays = map[string]bool{"1904-01-01": true, "1969-12-31": true, "1970-01-01": true, "1980-01-01": true}

// plausibleClock reports whether a photo can have been taken then.
func plausibleClock(wall time.Time) bool {
	return wall.Year() >= 1900 && !unsetDays[wall.Format(time.DateOnly)] && time.Until(wall) < aheadAtMost
}

// taken works out when the photo was taken: by the first clock that is plausible, with the offset that was written beside
// it, or that another tag has for the same second, or that the satellites' time implies, or without one.
func (t tags) taken() (at *time.Time, zone, local string) {
	exif := clocks{
		t.exifClock("ExifIFD:DateTimeOriginal", "ExifIFD:OffsetTimeOriginal"), t.exifClock("ExifIFD:CreateDate", "ExifIFD:OffsetTimeDigitized"),
	}
	changed := t.exifClock("IFD0:ModifyDate", "ExifIFD:OffsetTime") // when the file was
	xmp := clocks{
		xmpClock(t.text("XMP-exif:DateTimeOriginal")), xmpClock(t.text("XMP-photoshop:DateCreated")), xmpClock(t.text("XMP-xmp:CreateDate")),
	}
	older := clocks{t.exifClock("CIFF:DateTimeOriginal", ""), t.exifClock("PictureInfo:DateTimeOriginal", "")}
	all := slices.Concat(exif, older, xmp, clocks{t.iptcClock()})
	if unset(t.text("ExifIFD:DateTimeOriginal")) && unset(t.text("ExifIFD:CreateDate")) {
		all = append(all, changed) // or else what the camera wrote is not replaced by what an editor wrote, even if it cannot be read
	}
	first := slices.IndexFunc(all, func(c clock) bool { return plausibleClock(c.wall) })
	satellite, haveSatellite := t.satelliteTime()
	if first < 0 {
		if haveSatellite {
			return &satellite, ZoneFromGPS, ""
		}
		return nil, "", ""
	}
	wall := all[first].wall
	local = wall.Format(localLayout)
	if offset := append(exif, changed).offsetAt(wall); offset != nil {
		return inZone(wall, *offset), ZoneFromOffset, local
	}
	if offset := xmp.offsetAt(wall); offset != nil {
		return inZone(wall, *offset), ZoneFromXMP, local
	}
	if offset, ok := impliedOffset(wall, satellite); ok && haveSatellite {
		return inZone(wall, offset), ZoneFromGPS, local
	}
	return nil, "", local
}

// unset reports whether a clock is one of blanks or zeros: of unknown time.
func unset(text string) bool { return strings.Trim(text, " :0") == "" }

// offsetAt returns the offset that one of the clocks has which shows wall, or nil.
func (c clocks) offsetAt(wall time.Time) *int {
	for _, one := range c {
		if one.wall.Equal(wall) && one.offset != nil {
			return one.offset
		}
	}
	return nil
}

const exifLayout = "2006:01:02 15:04:05"

// exifSpelling is that of EXIF (EXIF 2.32, 4.6.5), "2026:05:04 17:45:10", and those of programs that write it otherwise: other
// separators, no seconds, the half of the day or a zone behind.
var exifSpelling = regexp.MustCompile(`^(\d{4})[:/.-](\d\d)[:/.-](\d\d)[ T](\d\d):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?(?: ?([AaPp])\.? ?[Mm]\b| ?(Z|[+-]\d\d:\d\d)$|\D|$)`)

// exifClock reads a clock with its offset, which has a tag of its own.
func (t tags) exifClock(name, offset string) (c clock) {
	part := exifSpelling.FindStringSubmatch(t.text(name))
	if part == nil {
		return clock{}
	}
	hour, second, later := part[4], cmp.Or(part[6], "00"), time.Duration(0)
	if hour == "24" {
		hour = "00" // Android's cameras counted the hours of a day from 1 to 24: its pattern was "kk"
	}
	if second == "60" { // rounded up, or a leap second
		second, later = "59", time.Second
	}
	layout := exifLayout
	text := part[1] + ":" + part[2] + ":" + part[3] + " " + hour + ":" + part[5] + ":" + second
	if half := part[7]; half != "" && hour <= "12" {
		layout, text = "2006:01:02 03:04:05 PM", text+" "+strings.ToUpper(half)+"M"
	}
	wall, err := time.Parse(layout, text)
	if err != nil {
		return clock{}
	}
	c.wall = wall.Add(later)
	if seconds, ok := parseOffset(cmp.Or(t.text(offset), part[8])); ok {
		c.offset = &seconds
	}
	return c
}

// xmpClock reads "2026-05-04T17:45:10.25-03:00", whose seconds and zone may be missing (XMP specification part 1, 8.2.1.2).
// A day without a time is none.
func xmpClock(text string) clock {
	for _, layout := range []string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04Z07:00"} {
		if at, err := time.Parse(layout, text); err == nil {
			_, offset := at.Zone()
			if offset < westmost || offset > eastmost {
				return clock{}
			}
			return clock{at.UTC().Add(time.Duration(offset) * time.Second).Truncate(time.Second), &offset}
		}
		if at, err := time.Parse(strings.TrimSuffix(layout, "Z07:00"), text); err == nil {
			return clock{wall: at.Truncate(time.Second)}
		}
	}
	return clock{}
}

// iptcClock is a wall clock alone: IIM demands a zone (IPTC-NAA IIM 4.2, 2:60), so programs that know none make one up.
func (t tags) iptcClock() (c clock) {
	c.wall, _ = time.Parse("2006:01:02 15:04:05", t.text("IPTC:DateCreated")+" "+firstBytes(t.text("IPTC:TimeCreated"), 8))
	return c
}

// satelliteTime is the GPS receiver's, in UTC.
func (t tags) satelliteTime() (time.Time, bool) {
	date := strings.ReplaceAll(t.text("GPS:GPSDateStamp"), "-", ":")
	at, err := time.Parse("2006:01:02 15:04:05", date+" "+firstBytes(t.text("GPS:GPSTimeStamp"), 8))
	if err != nil {
		c := xmpClock(t.text("XMP-exif:GPSTimeStamp"))
		at = c.wall
		if c.offset != nil {
			at = at.Add(-time.Duration(*c.offset) * time.Second)
		}
	}
	return at, plausibleClock(at)
}

// The zones that there are, in seconds east of UTC.
const (
	westmost = -12 * 3600
	eastmost = 14 * 3600
)

// impliedOffset is how far the wall clock is ahead of UTC, in whole quarters of an hour as all zones
// are. The last fix may be up to three minutes old.
func impliedOffset(wall, satellite time.Time) (seconds int, ok bool) {
	ahead := wall.Sub(satellite)
	offset := ahead.Round(15 * time.Minute)
	seconds = int(offset.Seconds())
	return seconds, (ahead-offset).Abs() <= 3*time.Minute && seconds >= westmost && seconds <= eastmost
}

// parseOffset reads "-03:00", "+05:45" or "Z" (EXIF 2.32, 4.6.5, tag 0x9011).
func parseOffset(text string) (seconds int, ok bool) {
	at, err := time.Parse("Z07:00", text)
	if err != nil {
		return 0, false
	}
	_, seconds = at.Zone()
	return seconds, seconds >= westmost && seconds <= eastmost
}

func inZone(wall time.Time, offset int) *time.Time {
	at := wall.Add(-time.Duration(offset) * time.Second).In(time.FixedZone("", offset))
	return &at
}

func firstBytes(text string, n int) string {
	return text[:min(n, len(text))]
}
