package facts

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/bep/imagemeta"
)

// maxChunk bounds what is read of one chunk, in bytes, also once it is inflated.
const maxChunk = 2 << 20

// chunks finds the EXIF and the XMP of a PNG or a WebP. imagemeta knows no XMP in PNG, and misreads a WebP behind a
// chunk of odd length.
func chunks(r io.ReadSeeker, format imagemeta.ImageFormat) (exif, xmp []byte, err error) {
	layout := chunkLayout{lead: 8, order: binary.BigEndian, lengthFirst: true, trailer: 4}
	if format == imagemeta.WebP {
		layout = chunkLayout{lead: 12, order: binary.LittleEndian, even: true}
	}
	err = layout.each(r, func(name string, read func() ([]byte, error)) (err error) {
		switch {
		case (name == "eXIf" || name == "EXIF") && exif == nil:
			exif, err = read()
		case name == "XMP " && xmp == nil:
			xmp, err = read()
		case name == "iTXt" || name == "zTXt" || name == "tEXt":
			if exif != nil && xmp != nil {
				return nil
			}
			text, err := read()
			if err != nil {
				return err
			}
			if bytes.HasPrefix(text, []byte(rawProfile)) {
				oldExif, oldXMP := profileOfText(text, name == "zTXt")
				exif, xmp = cmpOr(exif, oldExif), cmpOr(xmp, oldXMP)
			} else if xmp == nil && name != "tEXt" {
				xmp, err = xmpOfText(text, name == "zTXt")
			}
			return err
		}
		return err
	})
	return exif, xmp, err
}

func cmpOr(a, b []byte) []byte {
	if a != nil {
		return a
	}
	return b
}

const rawProfile = "Raw profile type "

// profileOfText returns the EXIF or the XMP of a text chunk as ImageMagick wrote it before PNG had a chunk for it: the name and the
// length on a line each, and then hexadecimal digits. What is something else is left out.
func profileOfText(text []byte, compressed bool) (exif, xmp []byte) {
	kind, text, _ := bytes.Cut(bytes.TrimPrefix(text, []byte(rawProfile)), []byte{0})
	if compressed && len(text) > 0 {
		text, _ = inflate(text[1:])
	}
	lines := bytes.SplitN(bytes.TrimLeft(text, "\n"), []byte("\n"), 3)
	if len(lines) < 3 {
		return nil, nil
	}
	content := bytes.ReplaceAll(lines[2], []byte("\n"), nil)
	n, _ := hex.Decode(content, bytes.TrimSpace(content))
	content = content[:n]
	packet, isXMP := bytes.CutPrefix(content, []byte(xmpHeader))
	switch {
	case n == 0:
		return nil, nil
	case string(kind) == "xmp" || isXMP:
		return nil, packet
	case string(kind) == "exif" || string(kind) == "APP1":
		return content, nil
	}
	return nil, nil
}

// A chunkLayout is the layout of a file's chunks: PNG (third edition, 5.3) or RIFF (RFC 9649, 2.3).
type chunkLayout struct {
	lead        int64 // bytes before the first
	order       binary.ByteOrder
	lengthFirst bool // before the name
	trailer     int64
	even        bool // padded to
}

// each calls found with each chunk's name and a way to read it, until the file ends.
func (l chunkLayout) each(r io.ReadSeeker, found func(name string, read func() ([]byte, error)) error) error {
	for at := l.lead; ; {
		if _, err := r.Seek(at, io.SeekStart); err != nil {
			return err
		}
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		} else if err != nil {
			return err
		}
		name, length := head[:4], head[4:]
		if l.lengthFirst {
			name, length = length, name
		}
		size := int64(l.order.Uint32(length))
		err := found(string(name), func() ([]byte, error) {
			if size > maxChunk {
				return nil, fmt.Errorf("%w: a chunk of %d bytes", errMetadataTooLarge, size)
			}
			content := make([]byte, size)
			_, err := io.ReadFull(r, content)
			return content, err
		})
		if err != nil {
			return err
		}
		at += 8 + size + l.trailer
		if l.even {
			at += size % 2
		}
	}
}

// xmpOfText returns the packet of a text chunk that has one (XMP specification part 3, 1.1.5), or nil. Some programs put it
// into a zTXt, all of which is compressed, and not into an iTXt.
func xmpOfText(text []byte, compressed bool) ([]byte, error) {
	content, isXMP := bytes.CutPrefix(text, []byte("XML:com.adobe.xmp\x00"))
	switch {
	case !isXMP:
		return nil, nil
	case compressed && len(content) > 1:
		return inflate(content[1:])
	case len(content) < 2:
		return nil, errShortText
	}
	compressed = content[0] == 1
	content = content[2:]
	for range 2 { // the language, and the keyword in it: both empty
		var ok bool
		if _, content, ok = bytes.Cut(content, []byte{0}); !ok {
			return nil, errShortText
		}
	}
	if compressed {
		return inflate(content)
	}
	return content, nil
}

var errShortText = errors.New("a text chunk ends before its text")

func inflate(compressed []byte) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxChunk))
}
