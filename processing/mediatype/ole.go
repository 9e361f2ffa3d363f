package mediatype

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/richardlehane/mscfb"
)

const oleSignature = "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1" // [MS-CFB] 2.2

// oleLimit is how much of a compound file is read for its directory, in bytes: entries of 128 bytes for some 30,000 streams, when
// documents have some hundred, and the numbers of the sectors that they are in.
const oleLimit = 4 << 20

// oleStreams are the streams and storages in the root of a compound file that only one kind of document has, and its type. The first
// that is there decides.
var oleStreams = []struct{ name, mediaType string }{
	{"EncryptedPackage", EncryptedOffice},                     // [MS-OFFCRYPTO] 2.3.4.4
	{"WordDocument", "application/msword"},                    // [MS-DOC] 2.1.1
	{"Workbook", "application/vnd.ms-excel"},                  // [MS-XLS] 2.1.2
	{"Book", "application/vnd.ms-excel"},                      // of Excel 5 and 95
	{"PowerPoint Document", "application/vnd.ms-powerpoint"},  // [MS-PPT] 2.1.2
	{"__properties_version1.0", "application/vnd.ms-outlook"}, // [MS-OXMSG] 2.4
	{"VisioDocument", "application/vnd.visio"},                // Visio 2000 to 2010
	{"   114", "application/vnd.ms-project"},                  // Project 2010 to 2021, by MPXJ's MPPReader
	{"   112", "application/vnd.ms-project"},                  // 2007
	{"   19", "application/vnd.ms-project"},                   // 2000 to 2003
	{"   1", "application/vnd.ms-project"},                    // 98
	{"BasicFileInfo", "application/vnd.autodesk.revit"},       // PRONOM fmt/1149
	{"Quill", "application/vnd.ms-publisher"},                 // Publisher
}

// installerIDs are the class ids of Windows Installer's packages, transforms and patches.
var installerIDs = []string{"{000C1084-0000-0000-C000-000000000046}", "{000C1082-0000-0000-C000-000000000046}", "{000C1086-0000-0000-C000-000000000046}"}

// inspectOLE looks into the directory of a compound file. found keeps what the head told if that says nothing more.
func inspectOLE(file io.ReaderAt, size int64, found *Found) {
	root, id, err := oleRoot(&boundedReaderAt{source: file, left: oleLimit, size: size, block: 4096})
	if err != nil {
		return
	}
	for _, installer := range installerIDs {
		if strings.EqualFold(id, installer) {
			found.Type = "application/x-ms-installer"
			return
		}
	}
	for _, known := range oleStreams {
		stream, ok := root[strings.ToLower(known.name)]
		if !ok {
			continue
		}
		found.Type = known.mediaType
		found.Protected = oleProtected(known.mediaType, root, stream)
		return
	}
}

// oleRoot returns what is in the root of a compound file, by its name in lower case, and the class id of the root.
func oleRoot(file io.ReaderAt) (root map[string]*mscfb.File, id string, err error) {
	defer recovered(&err)
	directory, err := mscfb.New(file)
	if err != nil {
		return nil, "", fmt.Errorf("read the compound file's directory: %w", err)
	}
	root = make(map[string]*mscfb.File)
	for entry, err := directory.Next(); err == nil; entry, err = directory.Next() {
		if len(entry.Path) == 0 {
			root[strings.ToLower(entry.Name)] = entry
		}
	}
	return root, directory.ID(), nil
}

// oleProtected reports whether a document is encrypted, as a document of its type says so.
func oleProtected(mediaType string, root map[string]*mscfb.File, stream *mscfb.File) bool {
	switch mediaType {
	case EncryptedOffice:
		return true
	case "application/msword":
		fib := begin(stream, 12) // [MS-DOC] 2.5.2, fEncrypted
		return fib != nil && binary.LittleEndian.Uint16(fib[10:])&0x0100 != 0
	case "application/vnd.ms-excel":
		return workbookProtected(begin(stream, 512))
	case "application/vnd.ms-powerpoint":
		user, ok := root["current user"]
		if !ok {
			return false
		}
		atom := begin(user, 16) // [MS-PPT] 2.3.2, headerToken
		return atom != nil && binary.LittleEndian.Uint32(atom[12:]) == 0xF3D1C4DF
	}
	return false
}

// workbookProtected looks for the record FilePass ([MS-XLS] 2.4.117), which is among the first if it is there (2.1.7.20.3).
func workbookProtected(records []byte) bool {
	const filePass = 0x2F
	for range 4 {
		if len(records) < 4 {
			return false
		}
		if binary.LittleEndian.Uint16(records) == filePass {
			return true
		}
		size := 4 + int(binary.LittleEndian.Uint16(records[2:]))
		records = records[min(size, len(records)):]
	}
	return false
}

// begin returns the first bytes of a stream, at most n, or nil if they cannot be read.
func begin(stream *mscfb.File, n int64) (head []byte) {
	var err error
	defer func() {
		if err != nil {
			head = nil
		}
	}()
	defer recovered(&err)
	head = make([]byte, min(n, stream.Size))
	if _, err = io.ReadFull(stream, head); err != nil {
		return nil
	}
	return head
}
