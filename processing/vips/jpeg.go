package vips

// #cgo pkg-config: libjpeg
// #include "tramo_jpeg.h"
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"
)

// damagedJPEG reports whether a JPEG lacks pixels, or has wrong ones. It asks libjpeg itself, whose warnings have numbers:
// libvips passes on only the text of the first, in its log, when the image is closed, which may be after the decode has
// returned.
func damagedJPEG(jpeg []byte) (bool, error) {
	found := C.tramo_jpeg_damage(unsafe.Pointer(unsafe.SliceData(jpeg)), C.size_t(len(jpeg)))
	runtime.KeepAlive(jpeg)
	if found == C.JUDGED_MEMORY {
		return false, fmt.Errorf("look for damage: %w", ErrOutOfMemory)
	}
	return found != C.JUDGED_WHOLE, nil
}
