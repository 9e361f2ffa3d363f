package api

import (
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A servedType says how a browser handles content of a media type.
type servedType struct {
	extension string
	inline    bool // the browser shows it; otherwise it saves it
}

// servedTypes are the types that content is served as. S3 cannot send X-Content-Type-Options, so this list has only types
// that no browser runs or sniffs as something that it runs. All other content is served as application/octet-stream, which
// browsers save. HTML, SVG, XML and scripts must never be in this list.
var servedTypes = map[string]servedType{
	"image/jpeg":        {".jpg", true},
	"image/png":         {".png", true},
	"image/gif":         {".gif", true},
	"image/webp":        {".webp", true},
	"image/avif":        {".avif", true},
	"image/heic":        {".heic", true},
	"image/heif":        {".heif", true},
	"application/pdf":   {".pdf", true}, // browsers show it in a sandbox
	"video/mp4":         {".mp4", true},
	"video/quicktime":   {".mov", true},
	"video/3gpp":        {".3gp", false},
	"image/tiff":        {".tiff", false},
	"image/x-adobe-dng": {".dng", false},
	"image/vnd.dwg":     {".dwg", false},
	"text/plain":        {".txt", false},
	"text/csv":          {".csv", false},
	"application/zip":   {".zip", false},
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document":   {".docx", false},
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet":         {".xlsx", false},
	"application/vnd.openxmlformats-officedocument.presentationml.presentation": {".pptx", false},
	"application/msword":                      {".doc", false},
	"application/vnd.ms-excel":                {".xls", false},
	"application/vnd.oasis.opendocument.text": {".odt", false},
}

const unknownType = "application/octet-stream"

// present returns the Content-Type and the Content-Disposition of content of mediaType with the sender's name, or, if that
// is not usable, with fallback and the type's extension.
func present(mediaType, name, fallback string) (contentType, disposition string) {
	served, known := servedTypes[mediaType]
	if contentType = mediaType; !known {
		contentType = unknownType
	}
	kind := "attachment"
	if served.inline {
		kind = "inline"
	}
	if name = cleanName(name); name == "" {
		name = fallback + served.extension
	}
	return contentType, kind + disposed(name)
}

// maxName is the longest file name that is returned, in bytes, as in most file systems.
const maxName = 255

// cleanName removes from a file name what could mislead its receiver: directories, control characters, and characters that
// change the direction of writing, which make "gpj.exe" look like "exe.jpg" (RFC 6266, section 4.3). It may return "".
func cleanName(name string) string {
	name = path.Base(strings.ReplaceAll(strings.ToValidUTF8(name, ""), `\`, "/"))
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) || r == utf8.RuneError {
			return -1
		}
		return r
	}, name)
	for len(name) > maxName {
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
