package mediatype

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Accepted is the list of media types accepted unless a deployment says otherwise: what phones,
// scanners and offices on a building site send.
const Accepted = "image/jpeg,image/png,image/webp,image/heic,image/heif,image/avif,image/tiff,image/gif," +
	"image/x-adobe-dng,image/vnd.dwg,application/pdf,video/mp4,video/quicktime,video/3gpp,text/plain,text/csv,application/zip," +
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document," +
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet," +
	"application/vnd.openxmlformats-officedocument.presentationml.presentation," +
	"application/msword,application/vnd.ms-excel,application/vnd.ms-powerpoint," +
	"application/vnd.oasis.opendocument.text,application/vnd.oasis.opendocument.spreadsheet,application/vnd.oasis.opendocument.presentation," +
	"text/rtf,image/vnd.dxf,application/x-step,application/vnd.google-earth.kml+xml,application/vnd.google-earth.kmz,application/gpx+xml," +
	"application/vnd.ms-project,application/vnd.sketchup.skp,application/vnd.autodesk.revit," +
	"audio/mp4,audio/aac,audio/ogg,audio/amr,audio/wav,audio/mpeg,video/x-m4v,image/bmp,image/jxl," +
	"image/x-canon-cr2,image/x-canon-cr3,image/x-nikon-nef,image/x-sony-arw,image/x-fuji-raf,image/x-olympus-orf,image/x-panasonic-rw2," +
	"image/x-pentax-pef,image/x-samsung-srw"

// Policy says which media types are accepted. Its zero value accepts none.
type Policy struct {
	// Allowed holds media types, and wildcards such as "image/*" or "*/*".
	Allowed Types `name:"allowed-types" help:"Media types that are accepted, separated by commas, with what is a kind of them: JSON is a kind of text/plain. image/* accepts a whole family. Scripts and programs are accepted only by their own names. The server and the workers need the same list."`
	// AllowMismatch takes files that are not of the kind that their sender said, if the kind that they are of is accepted.
	AllowMismatch bool `kong:"-"`
}

// typePattern is RFC 6838, 4.2, and a wildcard.
var typePattern = regexp.MustCompile(`^(\*/\*|[a-z0-9][a-z0-9!#$&^_.+-]*/(\*|[a-z0-9][a-z0-9!#$&^_.+-]*))$`)

// IsName reports whether s is the name of one media type, in lower case and without parameters.
func IsName(s string) bool {
	return len(s) < 128 && typePattern.MatchString(s) && !strings.Contains(s, "*")
}

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

// DefaultPolicy accepts what phones, scanners and offices on a building site send.
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

// Allows reports whether a media type, in any spelling and with any parameters, is accepted: it, or what it is a kind of, is on the
// list. What runs is accepted only if the list names it: no wildcard does, and no kind.
func (p Policy) Allows(mediaType string) bool {
	kinds := Kinds(mediaType)
	if p.lists(kinds[0]) {
		return true
	}
	return !Runs(mediaType) && slices.ContainsFunc(kinds, func(kind string) bool {
		family, _, ok := strings.Cut(kind, "/")
		return ok && (p.lists(kind) || p.lists(family+"/*") || p.lists("*/*"))
	})
}

// BeginSize is how many of a file's first bytes Refuses needs.
const BeginSize = 4 << 10

// Refuses reports whether a file that begins like that is not accepted, whatever follows, and what it is. Of containers, texts and
// TIFFs, and of what is not known, the first bytes do not say enough; the whole file has the last word.
func (p Policy) Refuses(begin []byte) (mediaType string, refused bool) {
	mediaType = Detect(begin)
	switch {
	case mediaType == Unknown, IsContainer(mediaType), IsA(mediaType, "image/tiff"), IsA(mediaType, plainText) && !Runs(mediaType):
		return mediaType, false
	}
	return mediaType, !p.Allows(mediaType)
}

// NotAccepted tells a person that files of a media type are refused.
func NotAccepted(mediaType string) string {
	if mediaType == Unknown {
		return "Files of this kind are not known, and not accepted here."
	}
	return fmt.Sprintf("Files of this kind (%s) are not accepted here.", mediaType)
}

func (p Policy) lists(entry string) bool {
	return slices.ContainsFunc(p.Allowed, func(allowed string) bool { return Canonical(allowed) == entry })
}

// running are the scripts, programs and shortcuts to them: what a person runs by opening it. An SVG and a page run scripts.
var running = []string{
	"text/html", "application/xhtml+xml", "image/svg+xml", "text/javascript", "text/vbscript", "text/x-php", "text/x-lua", "text/x-perl",
	"text/x-python", "application/x-bytecode.python", "text/x-ruby", "text/x-tcl", "text/x-shellscript", "text/x-msdos-batch",
	"text/x-powershell", "text/x-ms-regedit", "text/x-windows-shell", "application/x-mswinurl", "application/x-ms-shortcut",
	"application/x-desktop", "application/vnd.microsoft.portable-executable", "application/x-elf", "application/x-mach-binary",
	"application/x-java-applet", "application/java-archive", "application/vnd.android.package-archive", "application/wasm",
	"application/x-shockwave-flash", "application/x-chrome-extension", "application/x-ms-installer", "application/vnd.debian.binary-package",
	"application/x-rpm", "application/vnd.ms-htmlhelp", "application/x-installshield",
}

// Runs reports whether files of a media type are, or contain by their nature, what a computer runs when a person opens them.
func Runs(mediaType string) bool {
	return slices.ContainsFunc(Kinds(mediaType), func(kind string) bool { return slices.Contains(running, kind) })
}

// Mismatch reports whether a file is not the kind of thing that its sender said it is. Only families that exclude each other are
// told apart: phones call a HEIC a JPEG, and no harm is done. A type and what it is a kind of are never at odds, and a sender that
// says nothing is never wrong.
func Mismatch(declared, detected string) bool {
	declared, detected = Canonical(declared), Canonical(detected)
	switch {
	case declared == "" || declared == Unknown || IsA(declared, detected) || IsA(detected, declared):
		return false
	case declared == "application/pdf":
		return true // every PDF is known by its first bytes
	case detected == "" || detected == Unknown:
		return strings.HasPrefix(declared, "image/") || strings.HasPrefix(declared, "video/")
	}
	return family(declared) != family(detected)
}

// family puts together what nobody tells apart reliably: a CSV is text and, to Windows, Excel; an MP4 may hold only sound; a drawing
// is an image only by its name.
func family(mediaType string) string {
	family, _, _ := strings.Cut(mediaType, "/")
	switch {
	case mediaType == "image/vnd.dwg" || mediaType == dxfType:
		return "application"
	case family == "audio":
		return "video"
	case family == "image" || family == "video":
		return family
	}
	return "application"
}
