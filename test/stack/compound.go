package stack

import (
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf16"
)

// An OLEStream is one stream in the root of a compound file.
type OLEStream struct {
	Name    string
	Content string
}

// CompoundFile makes a compound file of version 3 ([MS-CFB]), such as Office 97-2003 wrote: its streams first, then the directory,
// and the table of sectors at its end. A stream is filled up with zeros to 4 KiB, so that it has sectors of its own.
func CompoundFile(classID [16]byte, streams ...OLEStream) []byte {
	const (
		sector, entry, least          = 512, 128, 4096
		endOfChain, fatSector, difSec = 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFC
		none                          = 0xFFFFFFFF
	)
	var body []byte
	var next []uint32 // of each sector
	add := func(content []byte) (first uint32) {
		first = uint32(len(next))
		sectors := (len(content) + sector - 1) / sector
		body = append(body, content...)
		body = append(body, make([]byte, sectors*sector-len(content))...)
		for i := range sectors {
			next = append(next, first+uint32(i)+1)
		}
		next[len(next)-1] = endOfChain
		return first
	}
	directoryEntry := func(name string, kind byte, right, child, first uint32, size int) []byte {
		e := make([]byte, entry)
		units := utf16.Encode([]rune(name))
		for i, u := range units {
			binary.LittleEndian.PutUint16(e[2*i:], u)
		}
		binary.LittleEndian.PutUint16(e[64:], uint16(2*len(units)+2))
		e[66], e[67] = kind, 1
		for at, n := range map[int]uint32{68: none, 72: right, 76: child, 116: first, 120: uint32(size)} {
			binary.LittleEndian.PutUint32(e[at:], n)
		}
		return e
	}
	root := directoryEntry("Root Entry", 5, none, none, endOfChain, 0)
	if len(streams) > 0 {
		binary.LittleEndian.PutUint32(root[76:], 1)
	}
	copy(root[80:], classID[:])
	directory := root
	for i, s := range streams {
		content := []byte(s.Content)
		content = append(content, make([]byte, max(0, least-len(content)))...)
		right := uint32(none)
		if i < len(streams)-1 {
			right = uint32(i) + 2
		}
		directory = append(directory, directoryEntry(s.Name, 2, right, none, add(content), len(content))...)
	}
	directoryAt := add(directory)
	// The table has a place for each sector, itself and what lists its sectors included.
	fats, lists := 0, 0
	for fats*sector/4 < len(next)+fats+lists {
		fats++
		lists = max(0, fats-109+126) / 127
	}
	fatAt := uint32(len(next))
	for range fats {
		next = append(next, fatSector)
	}
	listAt := uint32(len(next))
	for range lists {
		next = append(next, difSec)
	}
	header := make([]byte, sector)
	copy(header, "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1")
	for at, n := range map[int]uint16{24: 0x3E, 26: 3, 28: 0xFFFE, 30: 9, 32: 6} {
		binary.LittleEndian.PutUint16(header[at:], n)
	}
	firstList := uint32(endOfChain)
	if lists > 0 {
		firstList = listAt
	}
	for at, n := range map[int]uint32{44: uint32(fats), 48: directoryAt, 56: least, 60: endOfChain, 68: firstList, 72: uint32(lists)} {
		binary.LittleEndian.PutUint32(header[at:], n)
	}
	table := make([]byte, 0, fats*sector)
	for _, n := range next {
		table = binary.LittleEndian.AppendUint32(table, n)
	}
	for len(table) < fats*sector {
		table = binary.LittleEndian.AppendUint32(table, none)
	}
	difat := make([]uint32, 0, 109+127*lists)
	for i := range 109 {
		difat = append(difat, sectorOf(fatAt, i, fats))
	}
	for l := range lists {
		for i := range 127 {
			difat = append(difat, sectorOf(fatAt, 109+127*l+i, fats))
		}
		if l < lists-1 {
			difat = append(difat, listAt+uint32(l)+1)
		} else {
			difat = append(difat, endOfChain)
		}
	}
	for i, n := range difat[:109] {
		binary.LittleEndian.PutUint32(header[76+4*i:], n)
	}
	tail := make([]byte, 0, lists*sector)
	for _, n := range difat[109:] {
		tail = binary.LittleEndian.AppendUint32(tail, n)
	}
	return slices.Concat(header, body, table, tail)
}

// sectorOf returns the number of a table's i-th sector, or that of none.
func sectorOf(first uint32, i, sectors int) uint32 {
	if i >= sectors {
		return 0xFFFFFFFF
	}
	return first + uint32(i)
}

// Word97 makes a document of Word 97-2003 whose directory lies behind so many bytes of text.
func Word97(text int, encrypted bool) []byte {
	fib := "\xEC\xA5\xC1\x00\x00\x00\x0A\x0C\x00\x00\x00\x02"
	if encrypted {
		fib = fib[:11] + "\x03"
	}
	return CompoundFile([16]byte{}, OLEStream{"WordDocument", fib + strings.Repeat("hormigón ", text/10)}, OLEStream{"1Table", ""},
		OLEStream{"\x05SummaryInformation", ""})
}

// Excel97 makes a workbook of Excel 97-2003.
func Excel97(rows int, encrypted bool) []byte {
	workbook := "\x09\x08\x10\x00\x00\x06\x05\x00\xBB\x0D\xCC\x07\x00\x00\x00\x00\x06\x00\x00\x00" // BOF
	if encrypted {
		workbook += "\x2F\x00\x36\x00\x01\x00" + strings.Repeat("x", 52) // FilePass
	}
	return CompoundFile([16]byte{}, OLEStream{"Workbook", workbook + strings.Repeat("\x03\x02\x0E\x00..............", rows)})
}

// EncryptedOffice makes an Office Open XML document with a password ([MS-OFFCRYPTO] 2.3.4.4).
func EncryptedOffice() []byte {
	return CompoundFile([16]byte{}, OLEStream{"EncryptionInfo", "\x04\x00\x04\x00\x40\x00\x00\x00<encryption/>"},
		OLEStream{"EncryptedPackage", strings.Repeat("secret", 20_000)})
}
