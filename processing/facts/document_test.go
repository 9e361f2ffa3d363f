package facts

import (
	"testing"
	"unicode/utf8"
)

func TestParsePDFInfo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		output string
		want   Document
	}{
		"both":                  {"Title:           Acta\nProducer:        x\nPages:           3\nPage size:       595 x 842 pts\n", Document{3, "Acta"}},
		"a title with a colon":  {"Title:           Acta: obra\nPages: 3\n", Document{3, "Acta: obra"}},
		"no title":              {"Subject: x\nTitle: not the title\nPages: 3\n", Document{3, ""}},
		"a lie about the pages": {"Title: x\nPages:  7\nPages:           3\n", Document{3, "x"}},
		"no page":               {"Pages: 0\n", Document{}},
		"too many to be true":   {"Pages: 99999999999\n", Document{}},
		"more than 32 bits":     {"Pages: 4294967297\n", Document{}},
		"as many as 31 bits":    {"Pages: 2147483648\n", Document{}},
		"less than none":        {"Pages: -3\n", Document{}},
		"nothing":               {"", Document{}},
	} {
		if got := ParsePDFInfo([]byte(c.output)); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func FuzzParsePDFInfo(f *testing.F) {
	f.Add([]byte("Title:           Acta\nPages:           3\n"))
	f.Fuzz(func(t *testing.T, output []byte) {
		d := ParsePDFInfo(output)
		if d.Pages < 0 || !utf8.ValidString(d.Title) || utf8.RuneCountInString(d.Title) > textLimit || cleanText(d.Title, textLimit) != d.Title {
			t.Errorf("%+v", d)
		}
	})
}
