package storage

import (
	"fmt"
	"strings"
	"unicode"
)

// Shown returns a text that a stranger wrote as people may see it: characters that only change the direction of writing
// (Unicode Standard Annex 9, 2), which make gpj.exe look like exe.jpg, are written as [U+202E]. Nil stays nil.
func Shown(s *string) *string {
	if s == nil || !strings.ContainsFunc(*s, isBidiControl) {
		return s
	}
	var b strings.Builder
	for _, r := range *s {
		if isBidiControl(r) {
			fmt.Fprintf(&b, "[U+%04X]", r)
		} else {
			b.WriteRune(r)
		}
	}
	shown := b.String()
	return &shown
}

func isBidiControl(r rune) bool { return unicode.Is(unicode.Bidi_Control, r) }
