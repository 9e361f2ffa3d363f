package api

import (
	"mime"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPresent(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"photo.jpg":             `inline; filename="photo.jpg"`,
		"":                      `inline; filename="fallback.jpg"`,
		".":                     `inline; filename="fallback.jpg"`,
		"..":                    `inline; filename="fallback.jpg"`,
		"  ":                    `inline; filename="fallback.jpg"`,
		"../../etc/passwd":      `inline; filename="passwd"`,
		`C:\Users\ana\plan.pdf`: `inline; filename="plan.pdf"`,
		`a"b.jpg`:               `inline; filename="a_b.jpg"; filename*=UTF-8''a%22b.jpg`,
		"100%.jpg":              `inline; filename="100_.jpg"; filename*=UTF-8''100%25.jpg`,
		"día.jpg":               `inline; filename="d_a.jpg"; filename*=UTF-8''d%C3%ADa.jpg`,
		"工.jpg":                 `inline; filename="_.jpg"; filename*=UTF-8''%E5%B7%A5.jpg`,
		"a\r\nSet-Cookie: x":    `inline; filename="aSet-Cookie: x"`,
		"a\x00b\x7f.jpg":        `inline; filename="ab.jpg"`,
		"\u202egpj.exe":         `inline; filename="gpj.exe"`,
		"a\xffb.jpg":            `inline; filename="ab.jpg"`,
		"a;b='c'.jpg":           `inline; filename="a;b='c'.jpg"`,
		".htaccess":             `inline; filename=".htaccess"`,
	} {
		if _, got := present("image/jpeg", name, "fallback"); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	long := strings.Repeat("ñ", 200) + ".jpg"
	if name := cleanName(long); len(name) > maxName || !strings.HasSuffix(name, "ñ.jpg") {
		t.Errorf("%q becomes %q", long, name)
	}
}

// What a browser may run is never among what it is told that it is.
func TestServedTypes(t *testing.T) {
	t.Parallel()
	for _, dangerous := range []string{
		"text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml", "text/javascript",
		"application/javascript", "application/ecmascript", "text/css", "application/json", "multipart/related", "message/rfc822",
		"application/x-shockwave-flash", "application/wasm", "text/cache-manifest", "", "nonsense",
	} {
		if contentType, disposition := present(dangerous, "a", "b"); contentType != unknownType || !strings.HasPrefix(disposition, "attachment;") {
			t.Errorf("%s is served as %s, %s", dangerous, contentType, disposition)
		}
	}
	for mediaType, served := range servedTypes {
		if base, _, err := mime.ParseMediaType(mediaType); err != nil || base != mediaType || !strings.HasPrefix(served.extension, ".") {
			t.Errorf("%s: %+v, %v", mediaType, served, err)
		}
		for _, runs := range []string{"html", "svg", "script", "+xml", "/xml"} {
			if strings.Contains(mediaType, runs) {
				t.Errorf("%s is served as what it is", mediaType)
			}
		}
	}
}

// Whatever a file is called, its header is one line of ASCII that a parser reads back as a name without directories,
// controls or tricks; a name that had none comes back as it was.
func FuzzDisposition(f *testing.F) {
	for _, s := range []string{"a.jpg", "", `"; filename=evil.exe`, "día\u202e.exe", "a\r\nX: y", `\"`, "%", "a'b'c", strings.Repeat("ñ", 300), "a/b\\c", "\xff", " . "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		_, header := present("image/png", name, "fallback")
		if strings.ContainsFunc(header, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("%q: %q is not a line of ASCII", name, header)
		}
		kind, params, err := mime.ParseMediaType(header)
		got := params["filename"]
		if err != nil || kind != "inline" || got == "" || len(params) != 1 || len(got) > maxName {
			t.Fatalf("%q: %q is read as %s %v, %v", name, header, kind, params, err)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return unicode.IsControl(r) || r == '/' || r == '\\' || r == '\u202e' }) || got == ".." || got == "." {
			t.Errorf("%q becomes %q", name, got)
		}
		plain := utf8.ValidString(name) && len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool {
			return r == '/' || r == '\\' || unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) || r == utf8.RuneError
		})
		if trimmed := strings.Trim(name, " "); plain && strings.Trim(trimmed, ".") != "" && got != trimmed {
			t.Errorf("%q becomes %q", name, got)
		}
	})
}
