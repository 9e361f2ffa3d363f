package vips

import (
	"fmt"
	"strings"
)

// Fault is why a image was not drawn. It says so in one word as well, for a caller that cannot
// import this package.
type Fault struct{ reason, text string }

func (f *Fault) Error() string { return f.text }

// Reason is "not-an-image", "too-many-pixels", "unsupported", "unreadable" or "out-of-memory".
func (f *Fault) Reason() string { return f.reason }

// What Render returns, wrapped with the cause. All but ErrOutOfMemory will be the same next time.
var (
	ErrNotAnImage    = &Fault{"not-an-image", "the file is not a picture in a format that can be drawn"}
	ErrTooManyPixels = &Fault{"too-many-pixels", "the image has too many pixels"}
	ErrUnsupported   = &Fault{"unsupported", "the image uses a feature that cannot be drawn"}
	ErrUnreadable    = &Fault{"unreadable", "the image cannot be read"}
	ErrOutOfMemory   = &Fault{"out-of-memory", "the image needs more memory than there is"}
)

// classify reads libvips' words, because libvips has no error codes.
func classify(cause error) error {
	text := strings.TrimSpace(cause.Error())
	lower := strings.ToLower(text)
	fault := ErrUnreadable
	switch {
	// What libheif says of a size that it refuses to make room for.
	case strings.Contains(lower, "security limit"):
		fault = ErrTooManyPixels
	case strings.Contains(lower, "out of memory"), strings.Contains(lower, "insufficient memory"),
		strings.Contains(lower, "cannot allocate"), strings.Contains(lower, "memory allocation"),
		// What is encoded is a image of ours by then; libwebp fails for want of memory alone.
		strings.Contains(lower, "unable to encode"),
		// libheif's name for an allocation that failed: it has every conversion that is asked of it.
		strings.Contains(lower, "unsupported color conversion"):
		fault = ErrOutOfMemory
	// libjpeg's word for noise where a marker should be; of a JPEG in another flavour it says "unsupported JPEG process".
	case strings.Contains(lower, "unsupported marker type"):
	case strings.Contains(lower, "unsupported"), strings.Contains(lower, "not supported"),
		strings.Contains(lower, "operation is blocked"),
		// libheif before 1.19 on what iOS 18 writes.
		strings.Contains(lower, "metadata not correctly assigned"):
		fault = ErrUnsupported
	}
	return fmt.Errorf("%w: %s", fault, strings.ReplaceAll(text, "\n", "; "))
}
