package vips

import (
	"fmt"
	"strings"
)

// Fault is why an image was not drawn. Its reason is a word, for a caller that cannot import this
// package.
type Fault struct{ reason, text string }

func (f *Fault) Error() string { return f.text }

// Reason is "not-an-image", "too-many-pixels", "unsupported", "unreadable" or "out-of-memory".
func (f *Fault) Reason() string { return f.reason }

// The errors of Render, which wraps them with the cause. Another attempt has the same result, except after ErrOutOfMemory.
var (
	ErrNotAnImage    = &Fault{"not-an-image", "the file is not a picture in a format that can be drawn"}
	ErrTooManyPixels = &Fault{"too-many-pixels", "the image has too many pixels"}
	ErrUnsupported   = &Fault{"unsupported", "the image uses a feature that cannot be drawn"}
	ErrUnreadable    = &Fault{"unreadable", "the image cannot be read"}
	ErrOutOfMemory   = &Fault{"out-of-memory", "the image needs more memory than there is"}
)

// classify reads libvips' messages, because libvips has no error codes.
func classify(cause error) error {
	text := strings.TrimSpace(cause.Error())
	lower := strings.ToLower(text)
	fault := ErrUnreadable
	switch {
	// libheif's message for a size that it refuses to allocate.
	case strings.Contains(lower, "security limit"):
		fault = ErrTooManyPixels
	case strings.Contains(lower, "out of memory"), strings.Contains(lower, "insufficient memory"),
		strings.Contains(lower, "cannot allocate"), strings.Contains(lower, "memory allocation"),
		// The input of the encoder is an image of ours; only a lack of memory makes libwebp fail.
		strings.Contains(lower, "unable to encode"),
		// libheif's name for an allocation that failed: it has every conversion that is asked of it.
		strings.Contains(lower, "unsupported color conversion"):
		fault = ErrOutOfMemory
	// libjpeg's message for noise in place of a marker; for an unsupported kind of JPEG it says "unsupported JPEG process".
	case strings.Contains(lower, "unsupported marker type"):
	case strings.Contains(lower, "unsupported"), strings.Contains(lower, "not supported"),
		strings.Contains(lower, "operation is blocked"),
		// libheif before 1.19, for the files of iOS 18.
		strings.Contains(lower, "metadata not correctly assigned"):
		fault = ErrUnsupported
	}
	return fmt.Errorf("%w: %s", fault, strings.ReplaceAll(text, "\n", "; "))
}
