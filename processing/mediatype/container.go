package mediatype

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// The containers whose list of contents tells what they are. The list may be anywhere in the file.
const (
	zipType = "application/zip"
	oleType = "application/x-ole-storage" // [MS-CFB], of Office 97-2003 and others
)

// EncryptedOffice is an Office Open XML document with a password ([MS-OFFCRYPTO] 2.3.4.4). Which program it is of shows only after
// it is decrypted. It is libmagic's name; there is no registered one.
const EncryptedOffice = "application/encrypted"

// IsContainer reports whether Inspect may know more of a file than the first bytes told, by which it is of that type.
func IsContainer(mediaType string) bool {
	return IsA(mediaType, zipType) || IsA(mediaType, oleType)
}

// Found is what a whole file is.
type Found struct {
	Type      string
	Protected bool // a password is needed to look inside
}

// Inspect names the media type of a whole file of size bytes. It decides on the first bytes as Detect does, and, for a container, on
// its list of contents. A stranger wrote that list: what is read of it is bounded, and one that is damaged counts for nothing. It is
// meant to run in a confined process.
func Inspect(file io.ReaderAt, size int64) Found {
	head := make([]byte, min(max(size, 0), HeadSize))
	n, _ := file.ReadAt(head, 0) // an error comes again below, or the file is shorter than it was said to be
	head = head[:n]
	found := Found{Type: Detect(head)}
	switch {
	case bytes.HasPrefix(head, []byte(oleSignature)):
		inspectOLE(file, size, &found)
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		inspectZip(file, size, &found)
	}
	return found
}

var errTooMuch = errors.New("the list of contents is too long")

// A boundedReaderAt ends a reader that a crafted file would keep reading.
type boundedReaderAt struct {
	source io.ReaderAt
	left   int64 // bytes
	size   int64
	block  int64 // the last one, which may be cut off, is filled up with zeros; 0 for none
}

// ReadAt implements [io.ReaderAt].
func (b *boundedReaderAt) ReadAt(p []byte, offset int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooMuch
	}
	n, err := b.source.ReadAt(p, offset)
	if errors.Is(err, io.EOF) && n < len(p) && offset < b.size && offset+int64(len(p)) < b.size+b.block {
		clear(p[n:])
		return len(p), nil
	}
	return n, err
}

// recovered turns a panic of a parser into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("read the list of contents: %v", p)
	}
}
