package api

import (
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tramo/tramo/processing/mediatype"
)

// servedTypes are the types that content is served as, and whether a browser shows them; it saves the others. S3 cannot send
// X-Content-Type-Options, so this list has only types that no browser runs or sniffs as something that it runs. All other content is
// served as application/octet-stream, which browsers save. HTML, SVG, XML and scripts must never be in this list.
var servedTypes = map[string]bool{
	"image/jpeg":        true,
	"image/png":         true,
	"image/apng":        true,
	"image/gif":         true,
	"image/webp":        true,
	"image/avif":        true,
	"image/heic":        true,
	"image/heif":        true,
	"image/bmp":         true,
	"application/pdf":   true, // browsers show it in a sandbox
	"video/mp4":         true,
	"video/quicktime":   true,
	"video/x-m4v":       true,
	"audio/mp4":         true,
	"audio/aac":         true,
	"audio/ogg":         true,
	"audio/wav":         true,
	"audio/mpeg":        true,
	"video/3gpp":        false,
	"image/tiff":        false,
	"image/x-adobe-dng": false,
	"image/vnd.dwg":     false,
	"text/plain":        false,
	"text/csv":          false,
	"application/zip":   false,
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document":   false,
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet":         false,
	"application/vnd.openxmlformats-officedocument.presentationml.presentation": false,
	"application/msword":                             false,
	"application/vnd.ms-excel":                       false,
	"application/vnd.ms-powerpoint":                  false,
	"application/vnd.oasis.opendocument.text":        false,
	"application/vnd.oasis.opendocument.spreadsheet": false,
}

const unknownType = "application/octet-stream"

// present returns the Content-Type and the Content-Disposition of content of mediaType with the sender's name, or, if that
// is not usable, with fallback and the type's extension. A name whose extension is not one of the type's gets one, and the content is
// saved and not shown: a system that opens it goes by the extension, and text that is called run.bat would be run.
func present(mediaType, name, fallback string) (contentType, disposition string) {
	inline, known := servedTypes[mediaType]
	if contentType = mediaType; !known {
		contentType = unknownType
	}
	extension := mediatype.Extensions(mediaType)[0]
	switch name = cleanName(name, maxName); {
	case name == "":
		name = fallback + extension
	case !mediatype.HasExtension(mediaType, name):
		name = cleanName(name, maxName-len(extension)) + extension
		inline = false
	}
	if inline {
		return contentType, "inline" + disposed(name)
	}
	return contentType, "attachment" + disposed(name)
}

// maxName is the longest file name that is returned, in bytes, as in most file systems.
const maxName = 255

// cleanName removes from a file name what could mislead its receiver: directories, control characters, and characters that
// change the direction of writing, which make "gpj.exe" look like "exe.jpg" (RFC 6266, section 4.3). It has at most so many bytes, and may
// be "".
func cleanName(name string, most int) string {
	name = path.Base(strings.ReplaceAll(strings.ToValidUTF8(name, ""), `\`, "/"))
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) || r == utf8.RuneError {
			return -1
		}
		return r
	}, name)
	for len(name) > most {
		extension := path.Ext(name)
		if len(extension) > 16 {
			extension = ""
		}
		stem := name[:len(name)-len(extension)]
		_, last := utf8.DecodeLastRuneInString(stem)
		name = stem[:len(stem)-last] + extension
	}
	name = strings.Trim(name, " ")
	if strings.Trim(name, ".") == "" || name == "/" {
		return ""
	}
	return name
}

// disposed returns the parameters of Content-Disposition for a file name: filename in ASCII and, for other characters,
// filename* in UTF-8, which clients prefer if they support it (RFC 6266, section 4.3 and appendix D).
func disposed(name string) string {
	ascii := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"\%`, r) { // some clients decode % escapes
			return '_'
		}
		return r
	}, name)
	p := `; filename="` + ascii + `"`
	if ascii != name {
		p += "; filename*=UTF-8''" + strings.ReplaceAll(url.QueryEscape(name), "+", "%20") // RFC 8187, section 3.2.1
	}
	return p
}
