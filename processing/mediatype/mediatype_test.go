package mediatype

import (
	"strings"
	"testing"
)

// isoFile begins an ISO base media file with the given brands, the major one first.
func isoFile(brands ...string) string {
	all := brands[0] + "\x00\x00\x00\x00" + strings.Join(brands[1:], "")
	return "\x00\x00\x00" + string(rune(8+len(all))) + "ftyp" + all + "\x00\x00\x00\x08mdat"
}

func TestDetectType(t *testing.T) {
	t.Parallel()
	dng := "II*\x00\x08\x00\x00\x00\x02\x00" + "\xFE\x00\x04\x00\x01\x00\x00\x00\x01\x00\x00\x00" + "\x12\xC6\x01\x00\x04\x00\x00\x00\x01\x04\x00\x00"
	for _, c := range []struct{ name, head, want string }{
		{"jpeg", "\xFF\xD8\xFF\xE0\x00\x10JFIF\x00", "image/jpeg"},
		{"png", "\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR", "image/png"},
		{"webp", "RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"},
		{"tiff", "II*\x00\x08\x00\x00\x00\x00\x00", "image/tiff"},
		{"dng", dng, "image/x-adobe-dng"},
		{"tiff with a directory beyond the head", "MM\x00*\xFF\xFF\xFF\xFF", "image/tiff"},
		{"iphone", isoFile("heic", "mif1", "heic"), "image/heic"},
		{"heif of any codec", isoFile("mif1", "mif1", "unci"), "image/heif"},
		{"heic behind mif1", isoFile("mif1", "mif1", "heic"), "image/heic"},
		{"sony", isoFile("MiHE", "mif1", "heix"), "image/heic"},
		{"canon", isoFile("jpeg", "mif1"), "image/heif"},
		{"avif", isoFile("avif", "mif1"), "image/avif"},
		{"avif behind mif1", isoFile("mif1", "avif"), "image/avif"},
		{"mp4", isoFile("isom", "isom", "iso2", "avc1", "mp41"), "video/mp4"},
		{"mp4 of a phone", isoFile("mp42", "isom", "mp42"), "video/mp4"},
		{"quicktime", isoFile("qt  ", "qt  "), "video/quicktime"},
		{"dwg 2013", "AC1027\x00\x00\x00\x00\x00", "image/vnd.dwg"},
		{"dwg 2018", "AC1032\x00\x00\x00\x00\x00", "image/vnd.dwg"},
		{"a text that begins like one", "AC10 is the room", "text/plain"},
		{"pdf", "%PDF-1.7\n", "application/pdf"},
		{"text", "hormigón\n", "text/plain"},
		{"zip", "PK\x03\x04\x14\x00\x00\x00\x08\x00", "application/zip"},
		{"unknown", "\x00\x01\x02\x03", Unknown},
		{"a header cut off", "\x00\x00\x00\x18ftyp", Unknown},
	} {
		if got := Detect([]byte(c.head)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestTypePolicy(t *testing.T) {
	t.Parallel()
	policy, err := ParsePolicy(" image/*, application/PDF ,,text/plain")
	if err != nil {
		t.Fatal(err)
	}
	for mediaType, want := range map[string]bool{
		"image/jpeg": true, "IMAGE/HEIC": true, "application/acad": true, "application/pdf": true, "text/plain; charset=utf-8": true,
		"video/mp4": false, "text/html": false, "": false, "image": false, "imagery/jpeg": false,
	} {
		if got := policy.Allows(mediaType); got != want {
			t.Errorf("%q: %t, want %t", mediaType, got, want)
		}
	}
	if (Policy{}).Allows("image/jpeg") {
		t.Error("the zero policy allows something")
	}
	if !(Policy{Allowed: []string{"*/*"}}).Allows("a/b") {
		t.Error("*/* does not allow everything")
	}
	for _, list := range []string{"", " , ", "jpeg", "image/", "*/jpeg", "image/jpeg image/png"} {
		if _, err := ParsePolicy(list); err == nil {
			t.Errorf("%q was accepted", list)
		}
	}
	standard, err := ParsePolicy(Accepted)
	if err != nil || len(standard.Allowed) != 22 {
		t.Errorf("the default list has %d entries, %v", len(standard.Allowed), err)
	}
}

func TestMismatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		declared, detected string
		want               bool
	}{
		{"image/jpeg", "image/heic", false},
		{"image/jpeg", "video/mp4", true},
		{"image/jpeg", "text/html", true},
		{"image/jpeg", Unknown, true},
		{"video/mp4", Unknown, true},
		{"video/mp4", "audio/mp4", false},
		{"application/pdf", Unknown, true},
		{"application/pdf", "text/html", true},
		{"application/pdf", "application/pdf", false},
		{"application/msword", Unknown, false},
		{"application/vnd.ms-excel", "text/csv", false},
		{"text/plain", "application/zip", false},
		{"text/plain", "image/png", true},
		{"application/acad", "image/vnd.dwg", false},
		{"image/x-dwg", "image/vnd.dwg", false},
		{"application/zip", "image/jpeg", true},
		{"", "image/jpeg", false},
		{Unknown, "image/jpeg", false},
		{"Image/JPG; name=x", "image/jpeg", false},
	} {
		if got := Mismatch(c.declared, c.detected); got != c.want {
			t.Errorf("declared %q, detected %q: %t, want %t", c.declared, c.detected, got, c.want)
		}
	}
}

func FuzzDetectType(f *testing.F) {
	f.Add([]byte(isoFile("mif1", "heic")))
	f.Add([]byte("MM\x00*\xFF\xFF\xFF\xFF"))
	f.Fuzz(func(t *testing.T, head []byte) {
		if got := Detect(head); !typePattern.MatchString(got) {
			t.Errorf("%q is not a media type", got)
		}
	})
}
