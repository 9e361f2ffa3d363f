package facts

import (
	"bytes"
	"strconv"
	"strings"
)

// Document is the metadata of a document. A field may be empty.
type Document struct {
	Pages int32  // at least 1, or 0 if unknown
	Title string // as clean as the texts of Facts
}

// ParsePDFInfo reads the output of pdfinfo. The title and the texts after it are untrusted: they may hold line ends and imitate
// pdfinfo's own lines. The number of pages is the last of them.
func ParsePDFInfo(output []byte) Document {
	var d Document
	for i, line := range bytes.Split(output, []byte("\n")) {
		name, value, _ := strings.Cut(string(line), ":")
		switch {
		case name == "Title" && i == 0:
			d.Title = cleanText(strings.TrimSpace(value), textLimit)
		case name == "Pages":
			if pages, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32); err == nil && pages > 0 && pages <= maxPages {
				d.Pages = int32(pages)
			}
		}
	}
	return d
}
