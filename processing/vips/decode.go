package vips

// #cgo pkg-config: vips
// #include "tramo_decode.h"
import "C"

import (
	"errors"
	"image"
	"runtime"
	"sync"
	"unsafe"

	"github.com/h2non/bimg"
)

// libvips has one error buffer for all threads: the errors of one image must not be taken for those of another. A process that draws has one image at a time anyway.
var libvips sync.Mutex

// exclusively runs f with libvips to itself, and leaves nothing in it for the next caller.
func exclusively(f func() error) error {
	libvips.Lock()
	defer libvips.Unlock()
	runtime.LockOSThread() // libvips keeps buffers a thread, until told that the thread is done
	defer runtime.UnlockOSThread()
	defer C.vips_thread_shutdown()
	// No operation is repeated, and a cached one would keep its input, which is Go's memory.
	bimg.VipsCacheSetMax(0)
	bimg.VipsCacheSetMaxMem(0)
	return f()
}

// source is a file in a format that Render decodes.
type source struct {
	bytes []byte
	kind  format
}

func (s source) start() (unsafe.Pointer, C.size_t, C.int) {
	return unsafe.Pointer(unsafe.SliceData(s.bytes)), C.size_t(len(s.bytes)), C.int(s.kind)
}

// head is the content of an image's header, unchecked.
type head struct {
	width, height int // unturned
	frames        int
}

func (s source) head() (head, error) {
	var claimed C.TramoHead
	C.tramo_clear()
	buf, length, loader := s.start()
	if C.tramo_head(buf, length, loader, &claimed) != 0 {
		return head{}, fault()
	}
	return head{int(claimed.width), int(claimed.height), int(claimed.frames)}, nil
}

// rows counts the rows, from the top, that can be read.
func (s source) rows() (int, error) {
	var rows C.int
	C.tramo_clear()
	buf, length, loader := s.start()
	if C.tramo_rows(buf, length, loader, &rows) != 0 {
		return 0, fault()
	}
	return int(rows), nil
}

// how says how to decode.
type how struct {
	strict bool // damage is an error, as far as the loader knows of it
	shrink int  // a JPEG by this factor, while it is decoded: 1, 2, 4 or 8; only decodeJPEG
	rows   int  // so many from the top, and nothing below; 0 for all
	size   int  // pixels of the long side, at most
	turn   turning
}

// decode returns pixels that must be closed.
func (s source) decode(h how) (pixels, error) {
	var out pixels
	C.tramo_clear()
	buf, length, loader := s.start()
	failed := C.tramo_decode(buf, length, loader, flag(h.strict), C.int(h.rows), C.int(h.size),
		C.int(h.turn.clockwise), flag(h.turn.mirror), out.c())
	if failed != 0 {
		return pixels{}, fault()
	}
	return out, nil
}

func flag(set bool) C.int {
	if set {
		return 1
	}
	return 0
}

// fault is why the last call failed.
func fault() error { return classify(errors.New(C.GoString(C.vips_error_buffer()))) }

// pixels are an image in sRGB, 8 bits a band, without metadata. They are C's memory.
type pixels struct{ raw C.TramoPixels }

func (p *pixels) c() *C.TramoPixels { return &p.raw }

func (p *pixels) close() {
	C.g_free(C.gpointer(p.raw.data))
	p.raw.data = nil
}

func (p *pixels) width() int  { return int(p.raw.width) }
func (p *pixels) height() int { return int(p.raw.height) }
func (p *pixels) bands() int  { return int(p.raw.bands) }

// bytes are valid until close.
func (p *pixels) bytes() []byte { return unsafe.Slice((*byte)(p.raw.data), int(p.raw.length)) }

// shrink makes the long side at most size pixels.
func (p *pixels) shrink(size int) error {
	if max(p.width(), p.height()) <= size {
		return nil
	}
	var smaller pixels
	C.tramo_clear()
	if C.tramo_fit(p.c(), C.int(size), smaller.c()) != 0 {
		return fault()
	}
	p.close()
	*p = smaller
	return nil
}

// webp encodes without metadata, but for what libvips adds.
func (p *pixels) webp() ([]byte, error) {
	var file pixels
	C.tramo_clear()
	if C.tramo_webp(p.c(), webpQuality, file.c()) != 0 {
		return nil, fault()
	}
	defer file.close()
	return pixelsOnly(file.bytes())
}

// image copies the pixels to Go's memory.
func (p *pixels) image() *image.NRGBA {
	out := image.NewNRGBA(image.Rect(0, 0, p.width(), p.height()))
	for from, to := p.bytes(), out.Pix; len(to) > 0; from, to = from[p.bands():], to[4:] {
		to[3] = 255
		copy(to[:4], from[:p.bands()])
	}
	return out
}

// uniform reports whether the image is all of one colour, except for the block or two that libjpeg draws where it adds a missing
// end.
func (p *pixels) uniform() bool {
	const blocks = 2 * 16 * 16
	all, bands := p.bytes(), p.bands()
	count := p.width() * p.height()
	middle := all[(p.height()/2*p.width()+p.width()/2)*bands:][:bands]
	others := 0
	for at := 0; at < len(all); at += bands {
		for band, value := range middle {
			if delta := int(all[at+band]) - int(value); delta < -1 || delta > 1 { // scaling may round
				others++
				break
			}
		}
	}
	return others <= min(blocks, count/50)
}
