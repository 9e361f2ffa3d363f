package corpus

import (
	"bytes"
	"strings"
)

// svgs are refused for what they are, by whatever name they come, and never drawn.
func svgs() []File {
	const open = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="100" height="100">`
	entities := `<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "` + strings.Repeat("x", 1000) + `"><!ENTITY b "` + strings.Repeat("&a;", 1000) +
		`"><!ENTITY c "` + strings.Repeat("&b;", 1000) + `">]>` + open + `<text>&c;</text></svg>`
	refused := []string{NotAllowed, Mismatch}
	return []File{
		{"entities that unfold.svg", "image/svg+xml", []byte(entities), refused},
		{"a file from outside.svg", "image/svg+xml", []byte(open + `<image xlink:href="file:///etc/passwd" width="100" height="100"/></svg>`), refused},
		{"a page from outside.svg", "image/svg+xml", []byte(open + `<image xlink:href="http://127.0.0.1:1/" width="9" height="9"/></svg>`), refused},
		{"a filter that never ends.svg", "image/svg+xml", []byte(open + `<filter id="f"><feGaussianBlur stdDeviation="100000"/>` +
			strings.Repeat(`<feTurbulence numOctaves="1000"/>`, 1000) + `</filter><rect filter="url(#f)" width="1e6" height="1e6"/></svg>`), refused},
		{"a script, said to be a photo.jpg", "image/jpeg", []byte(open + `<script>alert(1)</script></svg>`), refused},
		{"deeper than any stack.svg", "image/svg+xml", append([]byte(open), bytes.Repeat([]byte("<g>"), 100_000)...), refused},
		{"PostScript, said to be a photo.jpg", "image/jpeg", []byte("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"), refused},
		{"a drawing of ImageMagick's.png", "image/png", []byte("push graphic-context\nviewbox 0 0 9 9\nfill 'url(https://127.0.0.1/x\"|touch /tmp/owned\")'\npop graphic-context\n"), refused},
	}
}
