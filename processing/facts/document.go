package facts

import (
	"bytes"
	"strconv"
	"strings"
)

// Document is what a document says of itself. A field may be empty.
type Document struct {
	Pages int    // at least 1, or 0 if unknown
	Title string // as clean as the texts of Facts
}

// ParsePDFInfo reads what pdfinfo has found in a PDF. The title and what follows it are a stranger's words, which may
// hold line ends and look like pdfinfo's own; the number of pages comes behind them all.
func ParsePDFInfo(output []byte) Document {
	var d Document
	for i, line := range bytes.Split(output, []byte("\n")) {
		name, value, _ := strings.Cut(string(line), ":")
		switch {
		case name == "Title" && i == 0:
			d.Title = cleanText(strings.TrimSpace(value), textLimit)
		case name == "Pages":
			if pages, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32); err == nil && pages > 0 && pages <= maxPages {
				d.Pages = int(pages)
			}
		}
	}
	return d
}
