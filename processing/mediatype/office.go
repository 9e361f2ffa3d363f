package mediatype

import (
	"bytes"
	"encoding/binary"
)

// officeParts are the main parts of Office Open XML documents, under the names that all programs give them, and the type
// that each makes of an archive (ECMA-376 part 1, 11.3.10, 12.3.23, 13.3.6).
var officeParts = map[string]string{
	"word/document.xml":    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	"xl/workbook.xml":      "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	"ppt/presentation.xml": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}

// officeType names a document by its main part, if that is within the head, or returns "". mimetype looks only at 4 KiB,
// which a preview may fill, and does not recognize documents that begin unlike Microsoft's.
func officeType(head []byte) string {
	const localHeader = 30 // APPNOTE 6.3.10, 4.3.7
	signature := []byte("PK\x03\x04")
	for bytes.HasPrefix(head, signature) && len(head) > localHeader {
		flags, packed := binary.LittleEndian.Uint16(head[6:]), binary.LittleEndian.Uint32(head[18:])
		name, extra := int(binary.LittleEndian.Uint16(head[26:])), int(binary.LittleEndian.Uint16(head[28:]))
		if localHeader+name+extra > len(head) {
			return ""
		}
		if known, ok := officeParts[string(head[localHeader:localHeader+name])]; ok {
			return known
		}
		head = head[localHeader+name+extra:]
		if lengthFollows := flags&8 != 0; lengthFollows { // it stands behind the content, which ends where the next begins
			packed = uint32(max(0, bytes.Index(head, signature)))
		}
		head = head[min(uint64(packed), uint64(len(head))):]
	}
	return ""
}
