package facts

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"strconv"
	"time"
)

// Before EXIF each maker had a format of its own. Of two, which cameras of 1997 to 2000 wrote into JPEGs, the time taken is read: seconds
// since 1970 of the camera's clock.

var pictureTime = regexp.MustCompile(`\nTimeDate=(\d{1,10})\r?\n`)

// keepOldTime keeps the time taken of a segment of Olympus (APP12, "[picture info]") or Canon (APP0, the Camera Image File Format, CIFF
// 1.0 revision 4).
func (t tags) keepOldTime(marker byte, content []byte) {
	var seconds uint64
	group := "PictureInfo"
	switch {
	case marker == markerAPP12 && bytes.Contains(content, []byte("[picture info]")):
		if found := pictureTime.FindSubmatch(content); found != nil {
			seconds, _ = strconv.ParseUint(string(found[1]), 10, 64)
		}
	case marker == markerAPP0 && len(content) > 14 && string(content[6:14]) == "HEAPJPGM":
		group = "CIFF"
		h := heap{order: binary.LittleEndian, left: 1000}
		if content[0] == 'M' {
			h.order = binary.BigEndian
		}
		seconds = uint64(h.time(cursor(content).skip(uint64(h.order.Uint32(content[2:])))))
	}
	if seconds > 0 {
		t.keep(group, "DateTimeOriginal", time.Unix(int64(seconds), 0).UTC().Format(exifLayout))
	}
}

// A heap of CIFF has at its end where its directory is, whose entries are a tag, a size and an offset, and may be heaps.
type heap struct {
	order binary.ByteOrder
	left  int // entries that are still looked at, against heaps that contain each other
}

// time returns 0 if there is none.
func (h *heap) time(content []byte) uint32 {
	const entryLength = 10
	if len(content) < 4 {
		return 0
	}
	directory := cursor(content).skip(uint64(h.order.Uint32(content[len(content)-4:])))
	number := 0
	if len(directory) >= 2 {
		number = int(h.order.Uint16(directory))
		directory = directory[2:]
	}
	for ; number > 0 && len(directory) >= entryLength && h.left > 0; number-- {
		h.left--
		tag, size := h.order.Uint16(directory), h.order.Uint32(directory[2:])
		value := cursor(content).skip(uint64(h.order.Uint32(directory[6:])))
		value = value[:min(uint64(size), uint64(len(value)))]
		directory = directory[entryLength:]
		switch kind := tag & 0x3800; {
		case tag == 0x180e && len(value) >= 4:
			return h.order.Uint32(value)
		case kind == 0x2800 || kind == 0x3000:
			if found := h.time(value); found != 0 {
				return found
			}
		}
	}
	return 0
}
