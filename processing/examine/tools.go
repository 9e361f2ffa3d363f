package examine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/facts"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/sandbox"
)

// The external programs that draw files which libvips does not decode. Each is optional.
const (
	PDFToPPM = "pdftoppm" // a PDF's first page
	PDFInfo  = "pdfinfo"  // its title, and how many pages it has
	FFmpeg   = "ffmpeg"   // a frame of a video
	FFprobe  = "ffprobe"  // whether its colours are those of high dynamic range
)

// ToolNames are all of them.
func ToolNames() []string { return []string{PDFToPPM, PDFInfo, FFmpeg, FFprobe} }

// Tools are the programs that are installed: their paths, by name. Only a sandbox runs them.
type Tools map[string]string

// FindTools looks for the programs in PATH.
func FindTools() Tools {
	found := Tools{}
	for _, name := range ToolNames() {
		if path, err := exec.LookPath(name); err == nil {
			found[name] = path
		}
	}
	return found
}

// Check returns an error if a program is not installed: no upload fails for it, but thumbnails are missing.
func (t Tools) Check(name string) error {
	if t[name] == "" {
		return fmt.Errorf("%s is not installed: thumbnails of some files are missing", name)
	}
	return nil
}

// pageArguments draw the first page as a viewer shows it, without the printer's margins, into a box of a size, as a PNG, which
// keeps text sharp.
func pageArguments(size int) []string {
	return []string{"-f", "1", "-l", "1", "-singlefile", "-cropbox", "-scale-to", strconv.Itoa(size), "-png", "-"}
}

// A drawer is a tool that makes an image of a file, and what it says about the files of which it makes none.
type drawer struct {
	program   string
	arguments func(size int) []string
	protected []string
	nothing   []string // there is nothing to draw in the file
	damaged   []string
}

// drawers are the tools of the routes. A PDF that no reader opens is unreadable, and so is a video that was cut off when it was
// recorded.
var drawers = map[route]drawer{
	routePage: {
		program: PDFToPPM, arguments: pageArguments,
		protected: []string{"Incorrect password", "security handler"},
		damaged:   []string{"Couldn't read xref table", "May not be a PDF file", "Wrong page range given", "Invalid page count"},
	},
	routePoster: {
		program: FFmpeg,
		nothing: []string{"matches no streams"}, // it has sound only
		damaged: []string{"moov atom not found"},
	},
}

// drawWithTool has a tool make an image, and a child draw it: the tool's output is as untrusted as its input. The dimensions of
// the image are not the file's, and if it cannot be read, the file may still be intact.
func (e *Examiner) drawWithTool(ctx context.Context, tenant uuid.UUID, file *os.File, r DrawRequest) (Drawing, error) {
	if len(r.Sizes) == 0 {
		return Drawing{}, nil
	}
	image, err := Unnamed(e.TempDir)
	if err != nil {
		return Drawing{}, err
	}
	defer func() { _ = image.Close() }()
	tool := drawers[routeOf(r.ContentType)]
	if err := e.drawLargest(ctx, tool, file, image, r); err != nil {
		return tool.explain(err)
	}
	if reason, err := looksDrawn(image, r); err != nil || reason != "" {
		return Drawing{NoThumbnail: reason}, err
	}
	r.ContentType = "image/png"
	d, err := e.Draw(ctx, tenant, image, r)
	if unreadable := new(UnreadableError); errors.As(err, &unreadable) {
		return Drawing{NoThumbnail: NoThumbnailUnsupported}, nil
	}
	d.Width, d.Height = 0, 0
	return d, err
}

// drawLargest has the tool make the image, in its largest size.
func (e *Examiner) drawLargest(ctx context.Context, tool drawer, file, image *os.File, r DrawRequest) error {
	size := slices.Max(r.Sizes)
	if routeOf(r.ContentType) == routePoster {
		return e.drawPoster(ctx, file, image, size)
	}
	return e.run(ctx, tool.program, tool.arguments(size), file, image)
}

// explain returns what follows for a file on which the tool failed.
func (t drawer) explain(err error) (Drawing, error) {
	var limit *sandbox.LimitError
	var failed *sandbox.ToolError
	switch {
	case errors.Is(err, sandbox.ErrNoProgram):
		return Drawing{NoThumbnail: NoThumbnailToolMissing}, nil
	case errors.As(err, &limit):
		return Drawing{NoThumbnail: limit.Limit}, nil
	case !errors.As(err, &failed):
		return Drawing{}, err
	case says(failed, t.protected...):
		return Drawing{NoThumbnail: NoThumbnailProtected}, nil
	case says(failed, t.nothing...):
		return Drawing{}, nil
	case says(failed, t.damaged...):
		return Drawing{}, &UnreadableError{Cause: failed.Error()}
	}
	return Drawing{NoThumbnail: NoThumbnailUnsupported}, nil
}

// says reports whether a tool's error output has one of these words.
func says(failed *sandbox.ToolError, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(failed.Said, w) })
}

// looksDrawn checks that a tool's output begins as a PNG (11.2.2), so that a compromised tool reaches no other decoder.
func looksDrawn(image *os.File, r DrawRequest) (noThumbnail string, err error) {
	head := make([]byte, 24)
	_, err = image.ReadAt(head, 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", fmt.Errorf("read the tool's image: %w", err)
	case !bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1a\n")): // or empty
		return NoThumbnailUnsupported, nil
	}
	width, height := binary.BigEndian.Uint32(head[16:]), binary.BigEndian.Uint32(head[20:])
	if routeOf(r.ContentType) == routePage && width == 1 && height == 1 {
		return sandbox.LimitMemory, nil // pdftoppm reports no error when it lacks memory for a page
	}
	return "", nil
}

// run runs a tool. One that is not installed, or was removed since the start, is [sandbox.ErrNoProgram].
func (e *Examiner) run(ctx context.Context, name string, arguments []string, file *os.File, out io.Writer) error {
	if e.Tools[name] == "" {
		return sandbox.ErrNoProgram
	}
	err := e.Box.Run(ctx, sandbox.Tool{Program: e.Tools[name], Args: arguments}, file, e.Box.Limits(), out)
	if failed := new(sandbox.ToolError); errors.As(err, &failed) && says(failed, "failed to map segment") {
		return &sandbox.LimitError{Limit: sandbox.LimitMemory, Cause: failed.Said} // the loader is out of memory
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	return nil
}

// Unnamed makes a file in dir without a name, which does not outlive the process, however it ends. "" is the system's directory for
// temporary files.
func Unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "tramo-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("unlink a temporary file: %w", err), f.Close())
	}
	return f, nil
}

// Documented reports whether ReadDocument reads a media type.
func Documented(mediaType string) bool { return mediatype.Canonical(mediaType) == "application/pdf" }

// ReadDocument reads how many pages a document has, and its title. It returns nothing for one that is damaged, protected or beyond
// the limits, or when the tool is not installed.
func (e *Examiner) ReadDocument(ctx context.Context, file *os.File, contentType string) (facts.Document, error) {
	if !Documented(contentType) {
		return facts.Document{}, nil
	}
	var said bytes.Buffer
	err := e.run(ctx, PDFInfo, []string{"-enc", "UTF-8", "-"}, file, &said)
	if err != nil {
		_, err = drawer{}.explain(err)
		return facts.Document{}, err
	}
	return facts.ParsePDFInfo(said.Bytes()), nil
}
