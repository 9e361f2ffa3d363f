package vips

// #cgo pkg-config: libjpeg vips
// #cgo LDFLAGS: -lm
// #include "tramo_jpeg.h"
import "C"

// decodeJPEG asks libjpeg itself: libvips decodes all pixels of all components at full size before it scales them, and of
// libjpeg's warnings, which have numbers, it passes on only the text of the first, in its log, when the image is closed, which
// may be after the decode has returned. What libjpeg gives up on is partial, if it has decoded some rows before.
func (s source) decodeJPEG(h how) (decoded, error) {
	var out decoded
	var damaged C.int
	C.tramo_clear()
	buf, length, _ := s.start()
	failed := C.tramo_decode_jpeg(buf, length, C.int(max(1, h.shrink)), C.int(h.size), C.int(h.turn.clockwise), flag(h.turn.mirror), out.c(), &damaged)
	if failed != 0 {
		return decoded{}, fault()
	}
	out.partial = damaged != 0
	return out, nil
}
