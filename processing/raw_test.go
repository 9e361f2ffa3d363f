package processing

import (
	"encoding/binary"
	"testing"

	"github.com/tramo/tramo/storage"
)

// A raw file of a camera is kept without a picture, and says when it was taken, as the TIFF does that it is a kind of.
func TestRawThroughThePipeline(t *testing.T) {
	t.Parallel()
	const entries, subIFD = 5, 99
	texts := "NIKON CORPORATION\x00\x002024:03:14 16:20:05\x00"
	at := uint32(8 + 2 + 12*entries + 4)
	raw := binary.LittleEndian.AppendUint16([]byte("II*\x00\x08\x00\x00\x00"), entries)
	for _, e := range [entries][4]uint32{{0xFE, 4, 1, 1}, {0x10F, 2, 18, at}, {0x132, 2, 20, at + 19}, {0x14A, 4, 1, subIFD}, {0x8769, 4, 1, at + 40}} {
		raw = binary.LittleEndian.AppendUint16(raw, uint16(e[0]))
		raw = binary.LittleEndian.AppendUint16(raw, uint16(e[1]))
		raw = binary.LittleEndian.AppendUint32(raw, e[2])
		raw = binary.LittleEndian.AppendUint32(raw, e[3])
	}
	raw = append(append(raw, 0, 0, 0, 0), texts...)
	raw = append(raw, 0, 1, 0) // the Exif directory has one entry: DateTimeOriginal
	raw = append(raw, 0x03, 0x90, 2, 0, 20, 0, 0, 0)
	raw = binary.LittleEndian.AppendUint32(raw, at+19)
	raw = append(raw, 0, 0, 0, 0)
	p := newFixture(t)
	id := p.receive(t, raw, raw, 1)
	p.run(t)
	p.await(t, allJobs, "completed")
	p.want(t, id, storage.Completed, "", 0, 1)
	p.WantCount(t, 1, `select count(*) from uploads where detected_type = 'image/x-nikon-nef' and camera_make = 'NIKON CORPORATION'
		and taken_local = '2024-03-14T16:20:05'`)
}
