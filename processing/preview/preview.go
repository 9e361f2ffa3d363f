// Package preview finds the preview image inside drawings and office documents. It reads containers and draws nothing, and is
// meant to run in a child process without credentials: it trusts no byte, and its allocations are bounded whatever a file
// claims.
package preview

import (
	"bytes"
	"errors"
	"strings"
)

// Limit is the largest preview that is read, in bytes: those of AutoCAD and Office have tens of kilobytes.
const Limit = 16 << 20

var (
	// ErrFormat means that there is a preview, in a format that is not drawn: a Windows metafile is a program for GDI.
	ErrFormat = errors.New("the preview is in a format that is not drawn")
	// ErrTooLarge means that there is a preview, of more than Limit bytes, or in a container too large to look for it.
	ErrTooLarge = errors.New("the preview is too large")
)

// Carries reports whether files of a media type, in its canonical spelling, may carry a preview that Embedded finds.
func Carries(mediaType string) bool { return finder(mediaType) != nil }

// Embedded returns the preview that a file of a media type carries: a JPEG or PNG by its first bytes, of at most Limit
// bytes, and as untrusted as the file. It is nil if there is none. The errors are ErrFormat,
// ErrTooLarge, and that the container is damaged.
func Embedded(data []byte, mediaType string) ([]byte, error) {
	find := finder(mediaType)
	if find == nil {
		return nil, nil
	}
	picture, err := find(data)
	switch {
	case err != nil || len(picture) == 0:
		return nil, err
	case len(picture) > Limit:
		return nil, ErrTooLarge
	case !isPNG(picture) && !bytes.HasPrefix(picture, []byte("\xFF\xD8\xFF")):
		return nil, ErrFormat
	}
	return picture, nil
}

func finder(mediaType string) func([]byte) ([]byte, error) {
	switch {
	case mediaType == "image/vnd.dwg":
		return fromDWG
	case strings.HasPrefix(mediaType, "application/vnd.openxmlformats-officedocument."), strings.HasSuffix(mediaType, ".macroenabled.12"):
		return fromOOXML
	case strings.HasPrefix(mediaType, "application/vnd.oasis.opendocument."):
		return fromODF
	}
	return nil
}

func isPNG(data []byte) bool { return bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")) }
