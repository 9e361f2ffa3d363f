// Package corpus makes files that no camera ever made: to exhaust whoever decodes them, to be taken for something else, or as
// they are after an accident. Each says how it must end. All are made anew, most in milliseconds: none is kept in the
// repository. It imports nothing of ours.
package corpus

import (
	"encoding/binary"
	"slices"
)

// How a file may end. A completed one says what there is to see of it.
const (
	Drawn       = "completed, drawn"
	Partial     = "completed, partial"
	NoPicture   = "completed, of a type without pictures"
	TooLarge    = "completed, too_large"
	Limited     = "completed, memory|cpu|time|output" // one of these limits was hit
	Unsupported = "completed, unsupported"
	Protected   = "completed, protected"
	Infected    = "failed: infected"
	Unscannable = "failed: unscannable"
	Unreadable  = "failed: unreadable"
	NotAllowed  = "failed: type_not_allowed"
	Mismatch    = "failed: type_mismatch"
)

// A File is one of the corpus.
type File struct {
	Name     string
	Declared string // the media type that its sender says
	Content  []byte
	Want     []string // how it may end: more than one where that is the library's affair, and neither does harm
}

// May reports whether the file may end like that.
func (f File) May(end string) bool { return slices.Contains(f.Want, end) }

// All returns the whole corpus. photo is a sound JPEG, from which some are made; eicar is what a scanner finds.
func All(photo []byte, eicar string) []File {
	return slices.Concat(pngs(), gifs(), jpegs(photo), tiffs(), boxes(), svgs(), pdfs(), archives(eicar), offices(), drawings(),
		videos(), impostors(photo, eicar))
}

// be and le append numbers, as formats write them.
func be32(to []byte, ns ...uint32) []byte {
	for _, n := range ns {
		to = binary.BigEndian.AppendUint32(to, n)
	}
	return to
}

func le32(to []byte, ns ...uint32) []byte {
	for _, n := range ns {
		to = binary.LittleEndian.AppendUint32(to, n)
	}
	return to
}

func le16(to []byte, ns ...uint16) []byte {
	for _, n := range ns {
		to = binary.LittleEndian.AppendUint16(to, n)
	}
	return to
}
