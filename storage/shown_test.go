package storage

import "testing"

func TestShown(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"":                      "",
		"día ñ 工.jpg":           "día ñ 工.jpg",
		"foto\u202egpj.exe":     "foto[U+202E]gpj.exe",
		"\u2066a\u2069\u061c.b": "[U+2066]a[U+2069][U+061C].b",
		"שלום\u200f.pdf":        "שלום[U+200F].pdf",
	} {
		if got := Shown(&s); *got != want {
			t.Errorf("%q is shown as %q, want %q", s, *got, want)
		}
	}
	if Shown(nil) != nil {
		t.Error("nil is shown")
	}
}
