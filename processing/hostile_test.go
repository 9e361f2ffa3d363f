package processing

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"image/png"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/examine"
	"github.com/tramo/tramo/processing/sandbox"
	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/test/stack"
)

// Whatever a file was made to do, its upload ends as it must, and a sound photo that comes behind it, in the same
// processes, is drawn as if it had been alone.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	p := newFixture(t)
	// The children are a worker's own, without the race detector, so that they have what they have in production.
	worker, err := stack.Build(t.Context(), "tramo-worker")
	stack.Must(t, err)
	t.Cleanup(func() { stack.Must(t, worker.Remove()) })
	box := sandbox.New(sandbox.Config{
		Command: []string{worker.Path("tramo-worker"), sandbox.Argument}, Limits: sandbox.Limits{CPU: 10 * time.Second}, Env: examine.Environment(),
	})
	t.Cleanup(func() { stack.Must(t, box.Close()) })
	p.pipeline.Examiner = &examine.Examiner{Box: box, Tools: examine.FindTools(), TempDir: t.TempDir()}
	sound := stack.Photo(stack.PhotoConfig{Width: 640, Height: 480, Seed: 1})
	files := hostileFiles(sound, stack.EICAR())
	hostile, photos := make([]uuid.UUID, len(files)), make([]uuid.UUID, len(files))
	for i, f := range files {
		hostile[i] = p.receive(t, f.content, f.content, 1)
		p.Exec(t, `update uploads set declared_type = nullif($2, '') where id = $1`, hostile[i], f.declared)
		photos[i] = p.receive(t, sound, sound, 1)
	}
	p.Exec(t, `update river_job set priority = 1`) // in the order in which they came, as long as there is no pool
	p.run(t)
	unended := func() int {
		return p.Count(t, `select count(*) from uploads where status not in ('completed', 'failed')`)
	}
	for n := unended(); n > 0; n = unended() {
		stack.Until(t, fmt.Sprintf("one more of %d uploads has ended", n), func() bool { return unended() < n })
	}
	for i, f := range files {
		if end := p.end(t, hostile[i]); !f.may(end) {
			t.Errorf("%s: %s, want one of %q", f.name, end, f.want)
		}
		stack.Want(t, p.end(t, photos[i]), drawn, "end of the photo behind %s", f.name)
	}
	p.WantCount(t, len(thumbnailSizes), `select count(distinct (d.size, d.bytes)) from thumbnails d where d.upload_id = any($1)`, photos)
}

// end says how an upload ended, in the words of hostileFile.
func (p *fixture) end(t *testing.T, id uuid.UUID) (end string) {
	t.Helper()
	p.Must(t, p.ctx, func(tx storage.Tx) error {
		u, err := tx.Upload(p.ctx, id)
		if err != nil {
			return err
		}
		thumbnails, err := tx.Thumbnails(p.ctx, id)
		switch {
		case u.Status != storage.Completed:
			end = fmt.Sprintf("%s: %s", u.Status, *u.FailureReason)
		case u.NoThumbnail != nil && slices.Contains([]string{"memory", "cpu", "time", "output"}, *u.NoThumbnail):
			end = limited
		case u.NoThumbnail != nil:
			end = "completed, " + *u.NoThumbnail
		case len(thumbnails) == 0:
			end = noThumbnail
		case u.Partial:
			end = partial
		default:
			end = drawn
		}
		return err
	})
	return end
}

// What is put together from pieces is what the formats say: others' readers unpack all of it.
func TestZerosUnpack(t *testing.T) {
	t.Parallel()
	const side = 4000
	if _, err := png.Decode(bytes.NewReader(newPNG(side, side, 1, 0, 0, deflatedZeros(side*(side/8+1))))); err != nil {
		t.Error(err)
	}
	const size = 3<<20 + 7
	packed := bomb(size)
	archive, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	file, err := archive.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, file); err != nil || n != size {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// How a file may end. A completed one says what there is to see of it.
const (
	drawn       = "completed, drawn"
	partial     = "completed, partial"
	noThumbnail = "completed, without a thumbnail"
	tooLarge    = "completed, too_large"
	limited     = "completed, memory|cpu|time|output" // one of these limits was hit
	unsupported = "completed, unsupported"
	protected   = "completed, protected"
	infected    = "failed: infected"
	unscannable = "failed: unscannable"
	unreadable  = "completed, unreadable"
	notAllowed  = "failed: type_not_allowed"
	mismatch    = "failed: type_mismatch"
)

// A hostileFile was made by no camera: to exhaust whoever decodes it, to be taken for something else, or as files are after an
// accident. It says how it must end. All are made anew, most in milliseconds: none is kept in the repository.
type hostileFile struct {
	name     string
	declared string // the media type that its sender says
	content  []byte
	want     []string // how it may end: more than one where that is the library's affair, and neither does harm
}

// may reports whether the file may end like that.
func (f hostileFile) may(end string) bool { return slices.Contains(f.want, end) }

// hostileFiles returns all of them. photo is a sound JPEG, from which some are made; eicar is what a scanner finds.
func hostileFiles(photo []byte, eicar string) []hostileFile {
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

// impostors are two things at once, or not what they are called.
func impostors(photo []byte, eicar string) []hostileFile {
	archive := zipped("a.txt", []byte("a text"))
	return []hostileFile{
		{"a photo and an archive.jpg", "image/jpeg", append(slices.Clone(photo), archive...), []string{drawn}},
		{"a photo and a virus in an archive.jpg", "image/jpeg", append(slices.Clone(photo), zipped("a.com", []byte(eicar))...), []string{drawn, infected}},
		{"a picture and a script.gif", "image/gif", append(gif(4, 4, frame(4, 4)), "=1;alert(document.cookie)//"...), []string{drawn, partial, unreadable}},
		{"a picture and a page.png", "image/png", newPNG(1, 1, 8, 2, 0, onePixel(), pngChunk("tEXt", []byte("Comment\x00<html><script>alert(1)</script>"))), []string{drawn}},
		{"a document and a photo.pdf", "application/pdf", append(pdf(1, "0 0 200 200", "1 0 0 rg 0 0 200 200 re f"), photo...), []string{drawn}},
		{"a page, said to be a photo.jpg", "image/jpeg", []byte("<!DOCTYPE html><html><script>alert(1)</script></html>"), []string{mismatch, notAllowed}},
		{"a program, said to be a photo.jpg", "image/jpeg", append([]byte("MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xFF\xFF"), zeros(4000)...), []string{mismatch, notAllowed}},
		{"an ELF, said to be a document.pdf", "application/pdf", append([]byte("\x7FELF\x02\x01\x01"), zeros(4000)...), []string{mismatch}},
		{"a photo, said to be a document.pdf", "application/pdf", photo, []string{mismatch}},
		{"a photo, said to be another kind of photo.heic", "image/heic", photo, []string{drawn}},
		{"a document, said to be a photo.jpg", "image/jpeg", pdf(1, "0 0 9 9", ""), []string{mismatch}},
		{"a text, said to be a photo.jpg", "image/jpeg", []byte("Acta de la reunión del martes\n"), []string{mismatch}},
		{"a text, said to be nothing", "", []byte("Acta de la reunión del martes\n"), []string{noThumbnail}},
		{"zeros, said to be a photo.jpg", "image/jpeg", zeros(100_000), []string{mismatch}},
		{"zeros, said to be nothing", "", zeros(100_000), []string{notAllowed}},
		{"one byte", "image/jpeg", []byte{0xFF}, []string{mismatch, notAllowed}},
		{"a start and nothing.jpg", "image/jpeg", []byte{0xFF, 0xD8, 0xFF}, []string{unreadable}},
		{"noise behind a start.jpg", "image/jpeg", append([]byte{0xFF, 0xD8, 0xFF, 0xE0}, bytesOf(100_000)...), []string{unreadable, partial}},
		{"a shell script.txt", "text/plain", []byte("#!/bin/sh\nrm -rf /\n"), []string{notAllowed}},
		{"a batch.txt", "text/plain", []byte("@echo off\r\necho hi\r\n"), []string{notAllowed}},
		{"a shortcut.txt", "text/plain", []byte("[InternetShortcut]\r\nURL=file://server/run.exe\r\n"), []string{notAllowed}},
		{"a Java program.zip", "application/zip", zipped("META-INF/MANIFEST.MF", []byte("Main-Class: A\n")), []string{notAllowed}},
		{"a text of one line of ten megabytes.txt", "text/plain", bytes.Repeat([]byte("hormigón "), 1_200_000), []string{noThumbnail}},
	}
}
