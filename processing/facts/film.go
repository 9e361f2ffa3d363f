package facts

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// A film is what was found in a file of boxes (ISO/IEC 14496-12, and QuickTime File Format). Only the boxes that say something are
// read, never a frame.
type film struct {
	tags
	r             io.ReadSeeker
	scale         uint64  // units of time in a second
	seconds       float64 // 0 for unknown
	width, height float64 // pixels, as it is stored
	orientation   int     // as EXIF's, 0 for unknown
	xmp           [][]byte
}

// The tags of a film have exiftool's names. These are the boxes of user data, and the keys, that are read.
var (
	userDataNames = map[string]string{
		"©xyz": "GPSCoordinates", "©day": "ContentCreateDate", "©mak": "Make", "©mod": "Model", "©swr": "SoftwareVersion",
		"©nam": "Title", "©too": "Encoder", "©cmt": "Comment",
	}
	keyNames = map[string]string{
		"com.apple.quicktime.location.ISO6709": "GPSCoordinates", "com.apple.quicktime.creationdate": "CreationDate",
		"com.apple.quicktime.make": "Make", "com.apple.quicktime.model": "Model", "com.apple.quicktime.software": "Software",
		"com.apple.quicktime.title": "Title", "com.apple.quicktime.direction.facing": "CameraDirection",
		"com.apple.quicktime.comment": "Comment", "com.android.version": "AndroidVersion", "com.android.manufacturer": "AndroidMake",
		"com.android.model": "AndroidModel", "com.samsung.android.utc_offset": "AndroidTimeZone",
		"location": "GPSCoordinates", "make": "Make", "model": "Model", "title": "Title", // of ffmpeg
	}
)

// xmpBox is the type of the uuid box of XMP (XMP specification part 3, 2.1.6).
const xmpBox = "\xbe\x7a\xcf\xcb\x97\xa9\x42\xe8\x9c\x71\x99\x94\x91\xe3\xaf\xac"

// readFilm is [Read] of a film.
func readFilm(r io.ReadSeeker) (Facts, error) {
	f := film{tags: tags{}, r: r}
	end, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return Facts{}, err
	}
	problems := []error{eachBox(r, 0, end, f.box)}
	for _, packet := range f.xmp {
		problems = append(problems, f.readXMP(bytes.NewReader(packet)))
	}
	facts := f.facts()
	facts.Tags, facts.TagsTruncated = f.json()
	return facts.Plausible(), errors.Join(problems...)
}

// box reads a box of the file.
func (f *film) box(name string, from, to int64) error {
	switch name {
	case "moov":
		return eachBox(f.r, from, to, f.movieBox)
	case "meta": // of Sony
		return f.meta(from, to)
	case "uuid":
		return f.uuid(from, to)
	}
	return nil
}

func (f *film) movieBox(name string, from, to int64) error {
	switch name {
	case "mvhd":
		content, err := boxContent(f.r, from, to)
		f.movieHeader(content)
		return err
	case "mvex": // of a film in fragments (ISO/IEC 14496-12, 8.8.2)
		return eachBox(f.r, from, to, func(name string, from, to int64) error {
			if name != "mehd" {
				return nil
			}
			content, err := boxContent(f.r, from, to)
			size := 4 * int(1+content.uint(4)>>24&1)
			f.lasts(content.uint(size), size)
			return err
		})
	case "trak":
		return f.track(from, to)
	case "udta":
		return eachBox(f.r, from, to, f.userData)
	case "meta":
		return f.meta(from, to)
	case "uuid":
		return f.uuid(from, to)
	}
	return nil
}

func (f *film) uuid(from, to int64) error {
	content, err := boxContent(f.r, from, to)
	if packet, ok := bytes.CutPrefix(content, []byte(xmpBox)); ok {
		f.addXMP(packet)
	}
	return err
}

// track reads a track; the first of pictures has the film's dimensions.
func (f *film) track(from, to int64) error {
	var head, handler cursor
	err := eachBox(f.r, from, to, func(name string, from, to int64) (err error) {
		switch name {
		case "tkhd":
			head, err = boxContent(f.r, from, to)
		case "mdia":
			return eachBox(f.r, from, to, func(name string, from, to int64) (err error) {
				if name == "hdlr" {
					handler, err = boxContent(f.r, from, to)
				}
				return err
			})
		}
		return err
	})
	if bytes.HasPrefix(handler.skip(8), []byte("vide")) && f.width == 0 { // ISO/IEC 14496-12, 8.4.3
		f.trackHeader(head)
	}
	return err
}

// movieHeader reads when the film was made, and how long it is (ISO/IEC 14496-12, 8.2.2).
func (f *film) movieHeader(c cursor) {
	size := 4
	if c.uint(4)>>24 == 1 {
		size = 8
	}
	made := c.uint(size)
	c.uint(size) // modified
	f.scale = c.uint(4)
	f.lasts(c.uint(size), size)
	const epoch = 2_082_844_800 // from 1904 to 1970, in seconds
	if made >= epoch {          // or else it was counted from 1970, by mistake
		made -= epoch
	}
	if made != 0 && made < 1<<33 {
		f.keep("QuickTime", "CreateDate", time.Unix(int64(made), 0).UTC().Format(exifLayout))
	}
}

// lasts sets the duration; all ones are unknown.
func (f *film) lasts(units uint64, size int) {
	if f.scale > 0 && units < 1<<(8*size-1) && f.seconds == 0 {
		f.seconds = float64(units) / float64(f.scale)
	}
}

// orientations are EXIF's by the signs of a matrix (ISO/IEC 14496-12, 6.2.2): a, b, c, d.
var orientations = map[[4]int]int{
	{1, 0, 0, 1}: 1, {-1, 0, 0, 1}: 2, {-1, 0, 0, -1}: 3, {1, 0, 0, -1}: 4, {0, 1, 1, 0}: 5, {0, 1, -1, 0}: 6, {0, -1, -1, 0}: 7, {0, -1, 1, 0}: 8,
}

// trackHeader reads the dimensions that the track is shown with, and how it is turned (ISO/IEC 14496-12, 8.3.2).
func (f *film) trackHeader(c cursor) {
	behind := uint64(36) // times, the track's number, duration, layer
	if c.uint(4)>>24 == 1 {
		behind = 48
	}
	c = c.skip(behind)
	sign := func() int { return cmp.Compare(int32(c.uint(4)), 0) }
	a, b := sign(), sign()
	c.uint(4)
	x, y := sign(), sign()
	f.orientation = orientations[[4]int{a, b, x, y}]
	c = c.skip(16)
	const one = 1 << 16
	f.width, f.height = math.Round(float64(c.uint(4))/one), math.Round(float64(c.uint(4))/one)
}

// userData reads a box of user data: QuickTime's international text, or 3GPP's (3GPP TS 26.244, 8).
func (f *film) userData(name string, from, to int64) error {
	if name == "meta" {
		return f.meta(from, to)
	}
	if strings.HasPrefix(name, "\xa9") {
		name = "©" + name[1:]
	}
	known := userDataNames[name]
	if known == "" && name != "titl" && name != "loci" && name != "XMP_" {
		return nil
	}
	content, err := boxContent(f.r, from, to)
	if err != nil {
		return err
	}
	switch name {
	case "XMP_":
		f.addXMP(content)
	case "titl":
		content.uint(4 + 2) // version, language
		f.keep("UserData", "Title", text3GPP(&content))
	case "loci":
		f.location(content)
	default:
		size := content.uint(2)
		content.uint(2) // language
		f.keep("UserData", known, string(content.take(size)))
	}
	return nil
}

// text3GPP reads text up to its end.
func text3GPP(c *cursor) string {
	if !bytes.HasPrefix(*c, []byte{0xfe, 0xff}) {
		text, rest, _ := bytes.Cut(*c, []byte{0})
		*c = rest
		return string(text)
	}
	c.uint(2)
	var text []uint16
	for len(*c) >= 2 {
		unit := uint16(c.uint(2))
		if unit == 0 {
			break
		}
		text = append(text, unit)
	}
	return string(utf16.Decode(text))
}

// location reads 3GPP's place (3GPP TS 26.244, 8.10), and keeps it as others write it.
func (f *film) location(c cursor) {
	c.uint(4 + 2) // version, language
	text3GPP(&c)  // its name
	c.uint(1)     // its role
	if len(c) < 12 {
		return
	}
	const one = 1 << 16
	fixed := func() float64 { return float64(int32(c.uint(4))) / one }
	longitude, latitude := fixed(), fixed()
	place := fmt.Sprintf("%+.5f%+.5f", latitude, longitude)
	if altitude := fixed(); altitude != 0 { // 0 is also what is written if it is unknown
		place += fmt.Sprintf("%+.2f", altitude)
	}
	f.keep("UserData", "LocationInformation", place+"/")
}

func (f *film) addXMP(packet []byte) {
	if len(f.xmp) < maxPackets {
		f.xmp = append(f.xmp, packet)
	}
}

// meta reads a list of items: of keys by number (QuickTime File Format, Metadata), of iTunes by name; or XML.
func (f *film) meta(from, to int64) error {
	head, err := boxContent(f.r, from, min(to, from+8))
	if err != nil {
		return err
	}
	if string(head.skip(4)) != "hdlr" {
		from += 4 // in ISO's files it has a version
	}
	var keys []string // by our names
	return eachBox(f.r, from, to, func(name string, from, to int64) error {
		switch name {
		case "keys":
			content, err := boxContent(f.r, from, to)
			content.uint(8) // version, number
			for len(content) >= 8 && len(keys) < maxTags {
				_, key := content.box()
				keys = append(keys, keyNames[string(key)])
			}
			return err
		case "ilst":
			return eachBox(f.r, from, to, func(name string, from, to int64) error {
				group, known := "ItemList", userDataNames["©"+strings.TrimPrefix(name, "\xa9")]
				number := binary.BigEndian.Uint32([]byte(name))
				if number > 0 && uint64(number) <= uint64(len(keys)) {
					group, known = "Keys", keys[number-1]
				}
				return f.item(group, known, from, to)
			})
		case "xml ":
			content, err := boxContent(f.r, from, to)
			return errors.Join(err, f.readSonyXML(content.skip(4)))
		}
		return nil
	})
}

// item keeps an item whose value is text.
func (f *film) item(group, known string, from, to int64) error {
	if known == "" || to-from > maxTagSize {
		return nil
	}
	content, err := boxContent(f.r, from, to)
	name, data := content.box()
	kind := data.uint(4)
	data.uint(4) // country and language
	switch {
	case name != "data":
	case kind == 1: // UTF-8
		f.keep(group, known, string(data))
	case kind == 2:
		data = append(cursor{0xfe, 0xff}, data...)
		f.keep(group, known, text3GPP(&data))
	}
	return err
}

// sonyNames are the attributes of Sony's XML (NonRealTimeMeta) that are read, by element and attribute.
var sonyNames = map[[2]string]string{
	{"CreationDate", "value"}: "CreationDateValue", {"Device", "manufacturer"}: "DeviceManufacturer", {"Device", "modelName"}: "DeviceModelName",
	{"Lens", "modelName"}: "LensModelName",
}

// maxSonyXML is in bytes; a long recording's is about 10 KiB.
const maxSonyXML = 256 << 10

func (f *film) readSonyXML(content []byte) error {
	if len(content) > maxSonyXML {
		return fmt.Errorf("%w: XML of %d bytes", errMetadataTooLarge, len(content))
	}
	decoder := xml.NewDecoder(bytes.NewReader(bytes.TrimRight(content, "\x00")))
	for {
		token, err := decoder.Token()
		switch token := token.(type) {
		case xml.StartElement:
			for _, a := range token.Attr {
				if name := sonyNames[[2]string{token.Name.Local, a.Name.Local}]; name != "" {
					f.keep("XML", name, a.Value)
				}
			}
		case xml.Directive:
			return errors.New("the XML has a document type")
		}
		if err != nil {
			return ended(err)
		}
	}
}

// facts chooses between the sources: what the camera wrote of the moment and the place, before what programs write of the file.
func (f *film) facts() Facts {
	facts := f.tags.xmp().Plausible()
	for _, name := range []string{"UserData:LocationInformation", "ItemList:GPSCoordinates", "UserData:GPSCoordinates", "Keys:GPSCoordinates"} {
		if place := iso6709(f.text(name)).Plausible(); place.Latitude != nil {
			facts.Latitude, facts.Longitude, facts.Altitude = place.Latitude, place.Longitude, place.Altitude
		}
	}
	if direction := (Facts{Direction: f.number("Keys:CameraDirection")}).Plausible().Direction; direction != nil {
		facts.Direction = direction
	}
	first := func(names ...string) (found string) {
		for _, name := range names {
			found = cmp.Or(found, f.text(name))
		}
		return found
	}
	facts.CameraMake = cmp.Or(first("Keys:Make", "Keys:AndroidMake", "UserData:Make", "XML:DeviceManufacturer"), facts.CameraMake)
	facts.CameraModel = cmp.Or(first("Keys:Model", "Keys:AndroidModel", "UserData:Model", "XML:DeviceModelName"), facts.CameraModel)
	facts.Lens = cmp.Or(first("XML:LensModelName"), facts.Lens)
	facts.Software = cmp.Or(first("Keys:Software", "UserData:SoftwareVersion", "UserData:Encoder", "ItemList:Encoder"), facts.Software)
	facts.Title = cmp.Or(first("Keys:Title", "UserData:Title", "ItemList:Title"), facts.Title)
	facts.TakenAt, facts.TakenZone, facts.TakenLocal = f.filmTaken()
	facts.Orientation, facts.Width, facts.Height, facts.Turned = f.orientation, int(f.width), int(f.height), true
	if f.orientation >= 5 {
		facts.Width, facts.Height = facts.Height, facts.Width
	}
	facts.Duration = f.seconds
	return facts
}

// filmTaken works out when recording began: by the first clock that is plausible, with the offset that was written with it; or else by
// the film's header, which is in UTC.
func (t tags) filmTaken() (at *time.Time, zone, local string) {
	utc := t.exifClock("QuickTime:CreateDate", "").wall
	for _, name := range []string{"Keys:CreationDate", "XML:CreationDateValue", "UserData:ContentCreateDate", "ItemList:ContentCreateDate"} {
		text := t.text(name)
		c := xmpClock(withColon(text))
		switch {
		case !plausibleClock(c.wall):
		case strings.HasSuffix(text, "Z"): // no wall clock
			if !plausibleClock(utc) {
				utc = c.wall
			}
		case c.offset != nil:
			return inZone(c.wall, *c.offset), ZoneFromOffset, c.wall.Format(localLayout)
		default:
			return nil, "", c.wall.Format(localLayout)
		}
	}
	if at, zone, local = t.taken(); local != "" {
		return at, zone, local
	}
	if !plausibleClock(utc) {
		return nil, "", ""
	}
	if offset, ok := parseOffset(withColon(t.text("Keys:AndroidTimeZone"))); ok {
		wall := utc.Add(time.Duration(offset) * time.Second)
		return inZone(wall, offset), ZoneFromOffset, wall.Format(localLayout)
	}
	return &utc, ZoneFromHeader, ""
}

var bareOffset = regexp.MustCompile(`([+-]\d\d)(\d\d)$`)

// withColon returns a time or an offset such as -0300 as -03:00.
func withColon(text string) string { return bareOffset.ReplaceAllString(text, "$1:$2") }

// isoPlace is a place (ISO 6709, annex H): latitude, longitude and perhaps altitude, each with its sign.
var isoPlace = regexp.MustCompile(`^([+-]\d+(?:\.\d+)?)([+-]\d+(?:\.\d+)?)(?:([+-]\d+(?:\.\d+)?)(?:CRS[^/]*)?)?/?$`)

// iso6709 reads "+27.5916+086.5640+8850/", also in degrees and minutes, or in degrees, minutes and seconds.
func iso6709(text string) (f Facts) {
	part := isoPlace.FindStringSubmatch(strings.TrimSpace(text))
	if part == nil {
		return f
	}
	f.Latitude, f.Longitude = isoDegrees(part[1], 2), isoDegrees(part[2], 3)
	if altitude, err := strconv.ParseFloat(part[3], 64); err == nil {
		f.Altitude = &altitude
	}
	return f
}

// isoDegrees reads ±D, ±DM or ±DMS, whose degrees have the given number of digits.
func isoDegrees(text string, digits int) *float64 {
	whole, fraction, _ := strings.Cut(text[1:], ".")
	var degrees float64
	switch rest := len(whole) - digits; {
	case rest <= 0: // also of fewer digits, as some write them
		degrees, _ = strconv.ParseFloat(text[1:], 64)
	case rest == 2 || rest == 4:
		unit := 1.0
		for at := 0; at < len(whole); unit *= 60 {
			next := at + 2
			if at == 0 {
				next = digits
			}
			part := whole[at:next]
			if next == len(whole) {
				part += "." + fraction + "0"
			}
			n, _ := strconv.ParseFloat(part, 64)
			degrees += n / unit
			at = next
		}
	default:
		return nil
	}
	if text[0] == '-' {
		degrees = -degrees
	}
	return &degrees
}
