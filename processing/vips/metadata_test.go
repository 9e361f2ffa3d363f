package vips

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tramo/tramo/test/stack"
)

// chunks lists the chunks of a WebP (RFC 9649, 2.3).
func chunks(t *testing.T, webp []byte) []string {
	t.Helper()
	if len(webp) < 12 || string(webp[:4]) != "RIFF" || string(webp[8:12]) != "WEBP" {
		t.Fatalf("not a WebP: % x", webp[:min(12, len(webp))])
	}
	var names []string
	if size := int(binary.LittleEndian.Uint32(webp[4:])); size != len(webp)-8 {
		t.Fatalf("the RIFF header says %d bytes, there are %d", size, len(webp)-8)
	}
	for at := 12; at+8 <= len(webp); {
		size := int(binary.LittleEndian.Uint32(webp[at+4:]))
		names = append(names, string(webp[at:at+4]))
		at += 8 + size + size%2
	}
	return names
}

// No size of a photo that says where it was taken says so itself, in whichever format it came, and whichever way it was held.
func TestMetadataStaysBehind(t *testing.T) {
	t.Parallel()
	source := filepath.Join(t.TempDir(), "source.png")
	write(t, source, asPNG(t, corners(900, 600)))
	for _, c := range []struct {
		name string
		save []string // arguments of vips
		xmp  bool     // the format has no place for EXIF
	}{
		{"jpg", []string{"icc_transform", source, "", "p3", "--input-profile", "srgb"}, false},
		{"png", []string{"icc_transform", source, "", "p3", "--input-profile", "srgb"}, false},
		{"webp", []string{"icc_transform", source, "", "p3", "--input-profile", "srgb"}, false},
		{"tif", []string{"icc_transform", source, "", "p3", "--input-profile", "srgb"}, false},
		{"heic", []string{"heifsave", source, ""}, false},
		{"avif", []string{"heifsave", source, "", "--compression", "av1", "--speed", "9"}, false},
		{"gif", []string{"gifsave", source, ""}, true},
		{"dng", []string{"tiffsave", source, ""}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "photo."+c.name)
			c.save[2] = path
			vipsTool(t, c.save...)
			tags := []string{"-q", "-m", "-overwrite_original", "-n", "-XMP-dc:Creator=somebody", "-XMP-exif:GPSLatitude=-34.6", "-XMP-exif:GPSLongitude=-58.4"}
			if !c.xmp {
				tags = append(tags, "-GPSLatitude=34.6", "-GPSLatitudeRef=S", "-GPSLongitude=58.4", "-GPSLongitudeRef=W",
					"-EXIF:Make=Probe", "-EXIF:Orientation=6")
			}
			stack.Output(t, "exiftool", append(tags, path)...)
			if said := stack.Output(t, "exiftool", "-a", "-G1", "-GPS:all", "-XMP:all", path); !strings.Contains(said, "GPS") {
				t.Fatalf("the original says no place: this test would pass vacuously\n%s", said)
			}
			photo, err := os.ReadFile(path)
			stack.Must(t, err)
			rendered, err := Render(photo, 6, []int{1600, 480, 160}, DefaultMaxPixels)
			stack.Must(t, err)
			for _, picture := range rendered.Thumbnails {
				checkSilent(t, picture)
			}
		})
	}
}

func checkSilent(t *testing.T, picture Thumbnail) {
	t.Helper()
	for _, chunk := range chunks(t, picture.WebP) {
		if !slices.Contains([]string{"VP8 ", "VP8L", "VP8X", "ALPH"}, chunk) {
			t.Errorf("size %d carries a %q chunk", picture.Size, chunk)
		}
	}
	thumbnail := filepath.Join(t.TempDir(), "thumbnail.webp")
	write(t, thumbnail, picture.WebP)
	if said := stack.Output(t, "exiftool", "-a", "-G1", "-EXIF:all", "-XMP:all", "-GPS:all", "-IPTC:all", "-ICC_Profile:all", thumbnail); strings.TrimSpace(said) != "" {
		t.Errorf("size %d says:\n%s", picture.Size, said)
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	stack.Must(t, os.WriteFile(path, content, 0o600))
}

// vipsTool makes originals that bimg cannot make.
func vipsTool(t *testing.T, arguments ...string) {
	t.Helper()
	stack.Output(t, "env", append([]string{"--unset=VIPS_BLOCK_UNTRUSTED", "vips"}, arguments...)...)
}
