package corpus

import (
	"bytes"
	"slices"
)

// impostors are two things at once, or not what they are called.
func impostors(photo []byte, eicar string) []File {
	archive := zipped("a.txt", []byte("a text"))
	return []File{
		{"a photo and an archive.jpg", "image/jpeg", append(slices.Clone(photo), archive...), []string{Drawn}},
		{"a photo and a virus in an archive.jpg", "image/jpeg", append(slices.Clone(photo), zipped("a.com", []byte(eicar))...), []string{Drawn, Infected}},
		{"a picture and a script.gif", "image/gif", append(gif(4, 4, frame(4, 4)), "=1;alert(document.cookie)//"...), []string{Drawn, Partial, Unreadable}},
		{"a picture and a page.png", "image/png", newPNG(1, 1, 8, 2, 0, onePixel(), chunk("tEXt", []byte("Comment\x00<html><script>alert(1)</script>"))), []string{Drawn}},
		{"a document and a photo.pdf", "application/pdf", append(pdf(1, "0 0 200 200", "1 0 0 rg 0 0 200 200 re f"), photo...), []string{Drawn}},
		{"a page, said to be a photo.jpg", "image/jpeg", []byte("<!DOCTYPE html><html><script>alert(1)</script></html>"), []string{Mismatch, NotAllowed}},
		{"a program, said to be a photo.jpg", "image/jpeg", append([]byte("MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xFF\xFF"), zeros(4000)...), []string{Mismatch, NotAllowed}},
		{"an ELF, said to be a document.pdf", "application/pdf", append([]byte("\x7FELF\x02\x01\x01"), zeros(4000)...), []string{Mismatch}},
		{"a photo, said to be a document.pdf", "application/pdf", photo, []string{Mismatch}},
		{"a photo, said to be another kind of photo.heic", "image/heic", photo, []string{Drawn}},
		{"a document, said to be a photo.jpg", "image/jpeg", pdf(1, "0 0 9 9", ""), []string{Mismatch}},
		{"a text, said to be a photo.jpg", "image/jpeg", []byte("Acta de la reunión del martes\n"), []string{Mismatch}},
		{"a text, said to be nothing", "", []byte("Acta de la reunión del martes\n"), []string{NoPicture}},
		{"zeros, said to be a photo.jpg", "image/jpeg", zeros(100_000), []string{Mismatch}},
		{"zeros, said to be nothing", "", zeros(100_000), []string{NotAllowed}},
		{"one byte", "image/jpeg", []byte{0xFF}, []string{Mismatch, NotAllowed}},
		{"a start and nothing.jpg", "image/jpeg", []byte{0xFF, 0xD8, 0xFF}, []string{Unreadable}},
		{"noise behind a start.jpg", "image/jpeg", append([]byte{0xFF, 0xD8, 0xFF, 0xE0}, bytesOf(100_000)...), []string{Unreadable, Partial}},
		{"a shell script.txt", "text/plain", []byte("#!/bin/sh\nrm -rf /\n"), []string{NoPicture, NotAllowed}},
		{"a text of one line of ten megabytes.txt", "text/plain", bytes.Repeat([]byte("hormigón "), 1_200_000), []string{NoPicture}},
	}
}
