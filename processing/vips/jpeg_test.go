package vips

import (
	"bytes"
	"testing"
)

// behind puts bytes into a photo's header, behind the segment that a marker begins.
func behind(t *testing.T, photo []byte, marker byte, inserted string) []byte {
	t.Helper()
	at := bytes.Index(photo, []byte{0xFF, marker})
	if at < 0 {
		t.Fatalf("the photo has no marker %#x", marker)
	}
	at += 2 + int(photo[at+2])<<8 + int(photo[at+3])
	return append(append(bytes.Clone(photo[:at]), inserted...), photo[at:]...)
}

// withSpectralEnd changes what a photo's scan says of the coefficients in it: Ss and Se (ITU-T T.81, B.2.3).
func withSpectralEnd(t *testing.T, photo []byte, start, end byte) []byte {
	t.Helper()
	_, scan := markers(t, photo)
	changed := bytes.Clone(photo)
	changed[scan+int(photo[scan+3])-1], changed[scan+int(photo[scan+3])] = start, end
	return changed
}

// peculiar are photos of which libjpeg warns, though no pixel is lost.
func peculiar(t *testing.T, photo []byte) map[string][]byte {
	t.Helper()
	const (
		tables = 0xDB
		frame  = 0xC0
		huffed = 0xC4
	)
	jfif := append([]byte("\xFF\xD8\xFF\xE0\x00\x10JFIF\x00\x03\x07\x00\x00\x01\x00\x01\x00\x00"), photo[2:]...)
	adobe := append([]byte("\xFF\xD8\xFF\xEE\x00\x0EAdobe\x00\x64\x00\x00\x00\x00\x07"), photo[2:]...)
	return map[string][]byte{
		"SOS of Ss=0 Se=0, as Samsung's": withSpectralEnd(t, photo, 0, 0),
		"SOS of Ss=1 Se=0":               withSpectralEnd(t, photo, 1, 0),
		"SOS of Ss=0 Se=62":              withSpectralEnd(t, photo, 0, 62),
		"stray zeros":                    behind(t, photo, tables, "\x00\x00"),
		"stray text":                     behind(t, photo, frame, "stray bytes"),
		"stray bytes at two places":      behind(t, behind(t, photo, tables, "\x00"), huffed, "\x12\x34\x56"),
		"JFIF 3.07":                      jfif,
		"Adobe's transform 7":            adobe,
	}
}

// A photo whose header is peculiar and whose pixels are all there is whole, and looks like the plain one.
func TestPeculiarJPEGIsWhole(t *testing.T) {
	t.Parallel()
	photo := asJPEG(t, corners(600, 400))
	for name, peculiarPhoto := range peculiar(t, photo) {
		state, rendered := stateOf(t, peculiarPhoto)
		if state != whole {
			t.Errorf("%s: state %d, want %d", name, state, whole)
			continue
		}
		checkCorners(t, rendered.Thumbnails[0].WebP)
	}
	const frame = 0xC2
	if state, _ := stateOf(t, behind(t, progressive(t, asJPEG(t, noisy(450, 300))), frame, "\x00\x00")); state != whole {
		t.Errorf("progressive, with stray bytes: state %d, want %d", state, whole)
	}
}

// A peculiar photo that is damaged too is not whole: libjpeg puts only its first warning into words.
func TestDamageBehindAPeculiarity(t *testing.T) {
	t.Parallel()
	photo := asJPEG(t, noisy(450, 300))
	for name, peculiarPhoto := range peculiar(t, photo) {
		cut := peculiarPhoto[:len(peculiarPhoto)*2/3]
		if state, _ := stateOf(t, cut); state != partial {
			t.Errorf("%s, cut: state %d, want %d", name, state, partial)
		}
		_, scan := markers(t, peculiarPhoto)
		holed := bytes.Clone(peculiarPhoto)
		copy(holed[(scan+len(holed))/2:], "\xFF\xD9")
		if state, _ := stateOf(t, holed); state != partial {
			t.Errorf("%s, ended in the middle: state %d, want %d", name, state, partial)
		}
	}
}

// What is left over between two scans is data of the scan before, which went wrong.
func TestLeftOverDataIsDamage(t *testing.T) {
	t.Parallel()
	photo := progressive(t, asJPEG(t, noisy(450, 300)))
	all, first := markers(t, photo)
	for _, at := range all {
		if at > first {
			left := append(append(bytes.Clone(photo[:at]), "left over"...), photo[at:]...)
			if state, _ := stateOf(t, left); state != partial {
				t.Errorf("in front of the marker at %d: state %d, want %d", at, state, partial)
			}
			return
		}
	}
	t.Fatal("the photo has one scan: this test would pass vacuously")
}

// The last rows count as well: a decoder that looks for damage before each row never looks behind the last one.
func TestDamageInTheLastRows(t *testing.T) {
	t.Parallel()
	photo := asJPEG(t, noisy(450, 300))
	damaged := append(bytes.Clone(photo[:len(photo)-200]), 0xFF, 0xD9)
	if state, _ := stateOf(t, damaged); state != partial {
		t.Errorf("state %d, want %d", state, partial)
	}
}
