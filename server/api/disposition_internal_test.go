package api

import (
	"mime"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/tramo/tramo/processing/mediatype"
)

func TestPresent(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"photo.jpg":             `inline; filename="photo.jpg"`,
		"":                      `inline; filename="fallback.jpg"`,
		".":                     `inline; filename="fallback.jpg"`,
		"..":                    `inline; filename="fallback.jpg"`,
		"  ":                    `inline; filename="fallback.jpg"`,
		"../../etc/passwd":      `attachment; filename="passwd.jpg"`,
		`C:\Users\ana\plan.pdf`: `attachment; filename="plan.pdf.jpg"`,
		"IMG 14.JPEG":           `inline; filename="IMG 14.JPEG"`,
		`a"b.jpg`:               `inline; filename="a_b.jpg"; filename*=UTF-8''a%22b.jpg`,
		"100%.jpg":              `inline; filename="100_.jpg"; filename*=UTF-8''100%25.jpg`,
		"día.jpg":               `inline; filename="d_a.jpg"; filename*=UTF-8''d%C3%ADa.jpg`,
		"工.jpg":                 `inline; filename="_.jpg"; filename*=UTF-8''%E5%B7%A5.jpg`,
		"a\r\nSet-Cookie: x":    `attachment; filename="aSet-Cookie: x.jpg"`,
		"a\x00b\x7f.jpg":        `inline; filename="ab.jpg"`,
		"\u202egpj.exe":         `attachment; filename="gpj.exe.jpg"`,
		"a\xffb.jpg":            `inline; filename="ab.jpg"`,
		"a;b='c'.jpg":           `inline; filename="a;b='c'.jpg"`,
		".htaccess":             `attachment; filename=".htaccess.jpg"`,
	} {
		if _, got := present("image/jpeg", name, "fallback"); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	long := strings.Repeat("ñ", 200) + ".jpg"
	if name := cleanName(long, maxName); len(name) > maxName || !strings.HasSuffix(name, "ñ.jpg") {
		t.Errorf("%q becomes %q", long, name)
	}
}

// A name has an extension of its type, or gets one and is saved.
func TestNamesHaveTheirTypesExtension(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ mediaType, name, want string }{
		{"text/plain", "run.bat", `attachment; filename="run.bat.txt"`},
		{"text/plain", "run.ps1", `attachment; filename="run.ps1.txt"`},
		{"text/plain", "run.vbs", `attachment; filename="run.vbs.txt"`},
		{"text/plain", "sitio.url", `attachment; filename="sitio.url.txt"`},
		{"text/plain", "p.html", `attachment; filename="p.html.txt"`},
		{"text/plain", "run.bat.", `attachment; filename="run.bat..txt"`},
		{"text/plain", "puntos.XYZ", `attachment; filename="puntos.XYZ"`},
		{"message/rfc822", "nota.txt", `attachment; filename="nota.txt"`},
		{"message/rfc822", "nota.mht", `attachment; filename="nota.mht.eml"`},
		{"image/jpeg", "foto.jpg.exe", `attachment; filename="foto.jpg.exe.jpg"`},
		{"image/jpeg", "foto", `attachment; filename="foto.jpg"`},
		{"image/heic", "IMG_1.jpg", `attachment; filename="IMG_1.jpg.heic"`},
		{"image/apng", "a.png", `inline; filename="a.png"`},
		{"application/zip", "app.jar", `attachment; filename="app.jar.zip"`},
		{"application/vnd.google-earth.kmz", "obra.kmz", `attachment; filename="obra.kmz"`},
		{"application/vnd.openxmlformats-officedocument.wordprocessingml.document", "acta.docx", `attachment; filename="acta.docx"`},
		{"application/vnd.openxmlformats-officedocument.wordprocessingml.document", "acta.docm", `attachment; filename="acta.docm.docx"`},
		{"application/vnd.ms-excel.sheet.macroenabled.12", "plan.xlsm", `attachment; filename="plan.xlsm"`},
		{"text/x-msdos-batch", "run.bat", `attachment; filename="run.bat.txt"`},
		{"application/octet-stream", "nube.e57", `attachment; filename="nube.e57"`},
		{"application/octet-stream", "run.scr", `attachment; filename="run.scr.bin"`},
		{"", "run.scr", `attachment; filename="run.scr.bin"`},
		{"image/jpeg", strings.Repeat("ñ", 200), "attachment; filename=\"" + strings.Repeat("_", 125) + ".jpg\"; filename*=UTF-8''" + strings.Repeat("%C3%B1", 125) + ".jpg"},
	} {
		if _, got := present(c.mediaType, c.name, "fallback"); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.mediaType, c.name, got, c.want)
		}
	}
	// No type's extensions are among those that a system runs.
	for mediaType := range strings.SplitSeq(mediatype.Accepted+",application/octet-stream,message/rfc822", ",") {
		for _, extension := range mediatype.Extensions(mediaType) {
			if slices.Contains(strings.Fields(".bat .cmd .com .exe .scr .pif .msi .msp .ps1 .psm1 .vbs .vbe .js .jse .wsf .wsh .hta .url .lnk .reg .html .htm .xhtml .svg .jar .apk .sh .py .chm .cpl .scf .inf .desktop .command .app .dll .mht .mhtml .xla .xlam .iqy .slk"), extension) {
				t.Errorf("%s may be called %s", mediaType, extension)
			}
		}
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
	for mediaType := range servedTypes {
		if base, _, err := mime.ParseMediaType(mediaType); err != nil || base != mediaType || len(mediatype.Extensions(mediaType)) == 0 {
			t.Errorf("%s: %q, %v", mediaType, mediatype.Extensions(mediaType), err)
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
		if err != nil || kind != "inline" && kind != "attachment" || !mediatype.HasExtension("image/png", got) || got == "" || len(params) != 1 || len(got) > maxName {
			t.Fatalf("%q: %q is read as %s %v, %v", name, header, kind, params, err)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return unicode.IsControl(r) || r == '/' || r == '\\' || r == '\u202e' }) || got == ".." || got == "." {
			t.Errorf("%q becomes %q", name, got)
		}
		plain := utf8.ValidString(name) && len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool {
			return r == '/' || r == '\\' || unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) || r == utf8.RuneError
		})
		want := strings.Trim(name, " ")
		if (kind == "inline") != (mediatype.HasExtension("image/png", want) || plain && strings.Trim(want, ".") == "") && plain {
			t.Errorf("%q is %s", name, kind)
		}
		if !mediatype.HasExtension("image/png", want) {
			want += ".png"
		}
		if plain && strings.Trim(want, ".") != "png" && len(want) <= maxName && got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	})
}
