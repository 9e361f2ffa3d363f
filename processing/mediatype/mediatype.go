// Package mediatype detects the media type of a file by its bytes, never by its name, and decides whether it is accepted and
// whether it matches the declared type.
package mediatype

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/gabriel-vasile/mimetype"
)

// Accepted is the default list of accepted media types: those of phones, scanners and offices on a
// building site.
const Accepted = "image/jpeg,image/png,image/webp,image/heic,image/heif,image/avif,image/tiff,image/gif," +
	"image/x-adobe-dng,image/vnd.dwg,application/pdf,video/mp4,video/quicktime,video/3gpp,text/plain,text/csv,application/zip," +
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document," +
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet," +
	"application/vnd.openxmlformats-officedocument.presentationml.presentation," +
	"application/msword,application/vnd.ms-excel,application/vnd.oasis.opendocument.text"

// HeadSize is how many of a file's first bytes Detect looks at, at most.
const HeadSize = 64 << 10

// Unknown is the type of bytes that Detect does not recognize.
const Unknown = "application/octet-stream"

// Detect names the media type of a file by its first bytes, without parameters: 4 KiB are enough, but for Office
// documents, which may need HeadSize. It never fails: bytes that it does not recognize are Unknown.
func Detect(head []byte) string {
	if isDWG(head) {
		return "image/vnd.dwg"
	}
	if isBigTIFF(head) {
		return "image/tiff"
	}
	if known := isoMediaType(head); known != "" {
		return known
	}
	if known := officeType(head[:min(len(head), HeadSize)]); known != "" {
		return known
	}
	detected := Canonical(mimetype.Detect(head).String())
	if detected == "image/tiff" && isDNG(head) {
		return "image/x-adobe-dng"
	}
	return detected
}

// isDWG recognizes every AutoCAD drawing since release 14 by its version, AC1014 to AC1032.
func isDWG(head []byte) bool {
	return len(head) >= 6 && string(head[:4]) == "AC10" && isDigit(head[4]) && isDigit(head[5])
}

// isBigTIFF recognizes the TIFF of files that may pass 4 GiB, as orthomosaics do.
func isBigTIFF(head []byte) bool {
	return len(head) >= 8 && (string(head[:8]) == "II+\x00\x08\x00\x00\x00" || string(head[:8]) == "MM\x00+\x00\x08\x00\x00")
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isoMediaType tells HEIF and AVIF from video by their brands (ISO/IEC 23008-12, annex B;
// ISO/IEC 14496-12, 4.3), or returns "". Sony and Canon write major brands that mimetype takes
// for MP4.
func isoMediaType(head []byte) string {
	if len(head) < 16 || string(head[4:8]) != "ftyp" {
		return ""
	}
	major := string(head[8:12])
	if major == "qt  " {
		return "video/quicktime"
	}
	if known := heifBrand(major); known != "" {
		return known
	}
	size := min(binary.BigEndian.Uint32(head), uint32(len(head)), 512)
	generic := slices.Contains([]string{"mif1", "msf1", "miaf", "MiHE", "MiHB", "MiPr", "jpeg", "jpgs"}, major)
	for at := uint32(16); at+4 <= size; at += 4 {
		brand := string(head[at : at+4])
		if known := heifBrand(brand); known != "" && generic {
			return known
		}
	}
	if generic {
		return "image/heif"
	}
	return ""
}

func heifBrand(brand string) string {
	switch brand {
	case "heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs":
		return "image/heic"
	case "avif", "avis":
		return "image/avif"
	}
	return ""
}

// isDNG looks for the tag DNGVersion (Adobe DNG 1.7, chapter 4) in a TIFF's first directory.
func isDNG(head []byte) bool {
	const dngVersion, entrySize = 0xC612, 12
	if len(head) < 8 {
		return false
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[0] == 'M' {
		order = binary.BigEndian
	}
	at := int64(order.Uint32(head[4:]))
	if at+2 > int64(len(head)) {
		return false
	}
	entries := head[at+2:]
	for range order.Uint16(head[at:]) {
		if len(entries) < entrySize {
			return false
		}
		if order.Uint16(entries) == dngVersion {
			return true
		}
		entries = entries[entrySize:]
	}
	return false
}

// spellings maps the names that browsers and phones use to the one used here.
var spellings = map[string]string{
	"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png",
	"image/heic-sequence": "image/heic", "image/heif-sequence": "image/heif", "image/dng": "image/x-adobe-dng",
	"image/x-dwg": "image/vnd.dwg", "application/acad": "image/vnd.dwg", "application/x-acad": "image/vnd.dwg",
	"application/autocad_dwg": "image/vnd.dwg", "application/dwg": "image/vnd.dwg", "application/x-dwg": "image/vnd.dwg",
	"application/x-autocad": "image/vnd.dwg", "application/vnd.dwg": "image/vnd.dwg", "drawing/dwg": "image/vnd.dwg",
	"application/x-zip-compressed": "application/zip", "application/x-zip": "application/zip", "application/x-pdf": "application/pdf",
	"binary/octet-stream": Unknown,
}

// Canonical returns a media type in lower case, without parameters, in one spelling.
func Canonical(mediaType string) string {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	if known, ok := spellings[mediaType]; ok {
		return known
	}
	return mediaType
}

// Policy says which media types are accepted. Its zero value accepts none.
type Policy struct {
	// Allowed holds media types, and wildcards such as "image/*" or "*/*".
	Allowed Types `name:"allowed-types" help:"Media types that are accepted, separated by commas. image/* accepts a whole family. The server and the workers need the same list."`
	// AllowMismatch accepts files whose content is not of the declared type, if its own type is accepted.
	AllowMismatch bool `kong:"-"`
}

// typePattern is RFC 6838, 4.2, and a wildcard.
var typePattern = regexp.MustCompile(`^(\*/\*|[a-z0-9][a-z0-9!#$&^_.+-]*/(\*|[a-z0-9][a-z0-9!#$&^_.+-]*))$`)

// MismatchConfig says what happens to a file whose content is of another family than its declared type.
type MismatchConfig struct {
	Mismatch string `name:"type-mismatch" help:"What happens to a file whose content is not of its declared type, such as a video sent as a photo: fail, or record, which only records it."`
}

// DefaultMismatchConfig is used where nothing is set.
func DefaultMismatchConfig() MismatchConfig { return MismatchConfig{Mismatch: "fail"} }

// Validate reports what is wrong with c.
func (c MismatchConfig) Validate() error {
	if c.Mismatch != "fail" && c.Mismatch != "record" {
		return fmt.Errorf("TRAMO_TYPE_MISMATCH: %q is neither fail nor record", c.Mismatch)
	}
	return nil
}

// DefaultPolicy accepts [Accepted].
func DefaultPolicy() Policy {
	policy, err := ParsePolicy(Accepted)
	if err != nil {
		panic(err) // a constant
	}
	return policy
}

// ParsePolicy reads a list of media types separated by commas, such as Accepted.
func ParsePolicy(list string) (policy Policy, err error) {
	err = policy.Allowed.UnmarshalText([]byte(list))
	return policy, err
}

// Types are media types, and wildcards such as image/*.
type Types []string

// UnmarshalText implements [encoding.TextUnmarshaler]: commas separate the types.
func (t *Types) UnmarshalText(list []byte) error {
	*t = nil
	for entry := range strings.SplitSeq(string(list), ",") {
		entry = Canonical(entry)
		if entry == "" {
			continue
		}
		if !typePattern.MatchString(entry) {
			return fmt.Errorf("%q is not a media type such as image/jpeg or image/*", entry)
		}
		*t = append(*t, entry)
	}
	if len(*t) == 0 {
		return fmt.Errorf("the list of media types %q names none", list)
	}
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (t Types) MarshalText() ([]byte, error) { return []byte(strings.Join(t, ",")), nil }

// Allows reports whether a media type, in any spelling and with any parameters, is accepted.
func (p Policy) Allows(mediaType string) bool {
	mediaType = Canonical(mediaType)
	family, _, ok := strings.Cut(mediaType, "/")
	return ok && slices.ContainsFunc(p.Allowed, func(allowed string) bool {
		allowed = Canonical(allowed)
		return allowed == mediaType || allowed == family+"/*" || allowed == "*/*"
	})
}

// Mismatch reports whether the content of a file is of another family than its declared type. Types
// of one family match: phones call a HEIC a JPEG, which is harmless. A file without a declared type
// matches.
func Mismatch(declared, detected string) bool {
	declared, detected = Canonical(declared), Canonical(detected)
	switch {
	case declared == "" || declared == Unknown || declared == detected:
		return false
	case declared == "application/pdf":
		return true // Detect recognizes every PDF
	case detected == "" || detected == Unknown:
		return strings.HasPrefix(declared, "image/") || strings.HasPrefix(declared, "video/")
	}
	return family(declared) != family(detected)
}

// family puts types together that programs confuse: a CSV is text and, to Windows, Excel; an MP4 may
// hold only sound.
func family(mediaType string) string {
	family, _, _ := strings.Cut(mediaType, "/")
	switch family {
	case "text":
		return "application"
	case "audio":
		return "video"
	}
	return family
}
