package corpus

import (
	"bytes"
	"fmt"
	"strings"
)

func pdfs() []File {
	pictured := []string{Drawn, Limited}
	return []File{
		{"fifty thousand pages.pdf", "application/pdf", pdf(50_000, "0 0 200 200", "1 0 0 rg 0 0 200 200 re f"), pictured},
		{"a page of kilometres.pdf", "application/pdf", pdf(1, "0 0 9000000 9000000", "1 0 0 rg 0 0 9000000 9000000 re f"), append(pictured, Unreadable, Unsupported)},
		{"a page of nothing.pdf", "application/pdf", pdf(1, "0 0 0 0", ""), append(pictured, Unreadable, Unsupported)},
		{"a thin page.pdf", "application/pdf", pdf(1, "0 0 1 14400", "1 0 0 rg 0 0 1 14400 re f"), append(pictured, Unreadable, Unsupported)},
		{"two million operators.pdf", "application/pdf", pdf(1, "0 0 2000 2000", strings.Repeat("0 0 m 2000 2000 l S\n", 2_000_000)), pictured},
		{"a form that contains itself.pdf", "application/pdf", recursive(), pictured},
		{"JavaScript and a launch.pdf", "application/pdf", bytes.Replace(pdf(1, "0 0 200 200", "0 0 9 9 re f"), []byte("/Type /Catalog"),
			[]byte("/Type /Catalog /OpenAction << /S /Launch /F (/bin/sh) >> /AA << /WC << /S /JavaScript /JS (app.alert(1)) >> >>"), 1), pictured},
		{"a head and nothing.pdf", "application/pdf", []byte("%PDF-1.7\n"), []string{Unreadable, Unsupported}},
		{"garbage.pdf", "application/pdf", append([]byte("%PDF-1.7\n"), bytesOf(100_000)...), []string{Unreadable, Unsupported}},
		{"pages that are their own parents.pdf", "application/pdf", bytes.Replace(pdf(1, "0 0 200 200", ""), []byte("/Kids [4 0 R ]"), []byte("/Kids [2 0 R ]"), 1), []string{Drawn, Limited, Unreadable, Unsupported}},
	}
}

// pdf writes so many pages that share one content (ISO 32000-1, 7.7.3), with a cross-reference table that is true.
func pdf(pages int, mediaBox, content string) []byte {
	var kids strings.Builder
	for i := range pages {
		fmt.Fprintf(&kids, "%d 0 R ", i+4)
	}
	objects := []string{
		"<< /Type /Catalog /Pages 2 0 R >>",
		fmt.Sprintf("<< /Type /Pages /Count %d /Kids [%s] /MediaBox [%s] >>", pages, kids.String(), mediaBox),
		fmt.Sprintf("<< /Length %d >>\nstream\n%s\nendstream", len(content), content),
	}
	for range pages {
		objects = append(objects, "<< /Type /Page /Parent 2 0 R /Contents 3 0 R /Resources << >> >>")
	}
	return document(objects)
}

func recursive() []byte {
	form := "/F Do /F Do /F Do"
	return document([]string{
		"<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Count 1 /Kids [4 0 R ] /MediaBox [0 0 200 200] >>",
		fmt.Sprintf("<< /Type /XObject /Subtype /Form /BBox [0 0 200 200] /Resources << /XObject << /F 3 0 R >> >> /Length %d >>\nstream\n%s\nendstream", len(form), form),
		"<< /Type /Page /Parent 2 0 R /Contents 5 0 R /Resources << /XObject << /F 3 0 R >> >> >>",
		"<< /Length 5 >>\nstream\n/F Do\nendstream",
	})
}

func document(objects []string) []byte {
	var out bytes.Buffer
	out.WriteString("%PDF-1.7\n")
	offsets := make([]int, len(objects))
	for i, object := range objects {
		offsets[i] = out.Len()
		fmt.Fprintf(&out, "%d 0 obj\n%s\nendobj\n", i+1, object)
	}
	start := out.Len()
	fmt.Fprintf(&out, "xref\n0 %d\n0000000000 65535 f \n", len(objects)+1)
	for _, at := range offsets {
		fmt.Fprintf(&out, "%010d 00000 n \n", at)
	}
	fmt.Fprintf(&out, "trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(objects)+1, start)
	return out.Bytes()
}
