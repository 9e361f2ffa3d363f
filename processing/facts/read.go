package facts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"

	"github.com/bep/imagemeta"
)

// The limits of what is kept of one file in memory: tags by number, and each by its bytes.
const (
	maxTags    = 2000
	maxTagSize = 4 << 10
)

// A reading is the metadata found in a file.
type reading struct {
	tags
	config  imagemeta.ImageConfig
	tooMany bool // there were more tags than are looked at
}

// read reads each source by itself, so that damage to one costs only that one.
func (found *reading) read(r *limitedSeeker, format imagemeta.ImageFormat) error {
	var problems []error
	attempt := func(name string, read func() error) {
		err := func() (err error) {
			defer func() {
				if cause := recover(); cause != nil {
					err = errors.Join(err, fmt.Errorf("panic: %v", cause))
				}
			}()
			if _, err = r.Seek(0, io.SeekStart); err != nil {
				return err
			}
			return read()
		}()
		if err != nil {
			problems = append(problems, fmt.Errorf("read the image's %s: %w", name, err))
		}
	}
	from := func(r io.ReadSeeker, format imagemeta.ImageFormat, source imagemeta.Source) func() error {
		return func() error {
			result, err := found.decode(r, format, source)
			if source == imagemeta.CONFIG {
				found.config = result.ImageConfig
			}
			return err
		}
	}
	var exif []byte
	var xmp [][]byte
	var dimensions, iptc io.ReadSeeker = r, r
	switch format {
	case imagemeta.JPEG:
		attempt("segments", func() error {
			header, err := readJPEGHeader(r)
			exif, xmp = header.exif, header.xmp
			maps.Copy(found.tags, header.old)
			dimensions, iptc = bytes.NewReader(header.rest), bytes.NewReader(header.rest)
			return err
		})
	case imagemeta.PNG, imagemeta.WebP:
		attempt("chunks", func() (err error) {
			var packet []byte
			if exif, packet, err = chunks(r, format); packet != nil {
				xmp = append(xmp, packet)
			}
			return err
		})
	case imagemeta.HEIF, imagemeta.AVIF:
		attempt("boxes", func() (err error) {
			exif, xmp, err = heifItems(r)
			return err
		})
	}
	isTIFF := format == imagemeta.TIFF || format == imagemeta.DNG
	if exif != nil || isTIFF {
		attempt("EXIF", func() error {
			source := io.ReadSeeker(r)
			if !isTIFF {
				content := bytes.NewReader(bytes.TrimPrefix(exif, []byte("Exif\x00\x00")))
				source = &limitedSeeker{source: content, left: readLimit, until: r.until}
			}
			sound, packet, tooMany, err := soundEXIF(source)
			if err != nil {
				return err
			}
			if packet != nil {
				xmp = append(xmp, packet)
			}
			found.tooMany = found.tooMany || tooMany
			exif = sound
			return from(bytes.NewReader(sound), imagemeta.TIFF, imagemeta.EXIF)()
		})
	}
	if isTIFF {
		iptc = bytes.NewReader(exif)
	}
	attempt("dimensions", from(dimensions, format, imagemeta.CONFIG))
	attempt("IPTC", from(iptc, format, imagemeta.IPTC))
	for _, packet := range xmp {
		attempt("XMP", func() error { return found.readXMP(bytes.NewReader(packet)) })
	}
	return errors.Join(problems...)
}

// decode adds the tags of one source. imagemeta's own helpers are not used: they assert types, and panic.
func (found *reading) decode(r io.ReadSeeker, format imagemeta.ImageFormat, source imagemeta.Source) (imagemeta.DecodeResult, error) {
	looked := 0
	return imagemeta.Decode(imagemeta.Options{
		R: r, ImageFormat: format, Sources: source,
		ShouldHandleTag: func(tag imagemeta.TagInfo) bool {
			looked++
			found.tooMany = found.tooMany || looked == maxTags
			return groupOf(tag) != ""
		},
		HandleTag: func(tag imagemeta.TagInfo) error {
			found.keep(groupOf(tag), tag.Tag, tag.Value)
			return nil
		},
		LimitNumTags: maxTags,
		LimitTagSize: maxTagSize,
	})
}

// exifGroups are the directories of EXIF that are read, by imagemeta's name, as exiftool calls them. The same number
// means something else in another one; the directory of a thumbnail does not describe the photo.
var exifGroups = map[string]string{"IFD0": "IFD0", "ExifIFDP": "ExifIFD", "GPSInfoIFD": "GPS"}

// blobs are tags of EXIF with binary values, even if imagemeta makes text of them: a camera's private notes, other images and
// files, tables, and their offsets.
var blobs = regexp.MustCompile(`^(MakerNote|Thumbnail|Preview|Profile|Opcode|Raw|NewRaw|OriginalRaw|Strip|Tile|Free|Noise|MD|PrintIM)` +
	`|Private|Padding|ICC|CFA|Curve|Digest|(Data|Tables?|Settings|Profiles?|Map|Offsets?|Schema|ByteCounts|Matrix)[0-9]?$`)

// groupOf is the group that a tag of EXIF or IPTC belongs to, or "" if it is not read.
func groupOf(tag imagemeta.TagInfo) string {
	if strings.HasPrefix(tag.Tag, imagemeta.UnknownPrefix) {
		return ""
	}
	switch tag.Source {
	case imagemeta.EXIF:
		if strings.HasPrefix(tag.Namespace, "IFD0") && !blobs.MatchString(tag.Tag) {
			return exifGroups[tag.Namespace[strings.LastIndexByte(tag.Namespace, '/')+1:]]
		}
	case imagemeta.IPTC:
		// The envelope's one tag is read because it says how the others are encoded.
		if tag.Namespace == "IPTCApplication" || tag.Tag == "CodedCharacterSet" {
			return "IPTC"
		}
	}
	return ""
}
