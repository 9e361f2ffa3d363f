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
)

// ToolNames are all of them.
func ToolNames() []string { return []string{PDFToPPM, PDFInfo, FFmpeg} }

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

var errNothingToDraw = errors.New("there is nothing to draw in the file")

// pageArguments draw the first page as a viewer shows it, without the printer's margins, into a box of a size, as a PNG, which
// keeps text sharp.
func pageArguments(size int) []string {
	return []string{"-f", "1", "-l", "1", "-singlefile", "-cropbox", "-scale-to", strconv.Itoa(size), "-png", "-"}
}

// posterPixels is the largest video whose frames are decoded: twice 8K.
const posterPixels = 1 << 26

// posterArguments take one frame out of a video, upright, into a box of a size. The file is read as ISO/IEC 14496-12 whatever
// it looks like: no playlist is followed, no other file opened. The frame is the last key frame within the first second: the first
// frame is often black. Its time is kept (-copyts), because that of a shorter video would be before the beginning.
func posterArguments(size int) []string {
	box := strconv.Itoa(size)
	return []string{
		"-nostdin", "-hide_banner", "-loglevel", "error",
		"-protocol_whitelist", "file", "-f", "mov", "-threads", "1", "-max_pixels", strconv.Itoa(posterPixels),
		"-noaccurate_seek", "-ss", "1", "-copyts", "-i", sandbox.StdinPath, "-map", "0:V:0", "-an", "-sn", "-dn", "-frames:v", "1",
		"-vf", "scale='min(" + box + ",iw*sar)':'min(" + box + ",ih)':force_original_aspect_ratio=decrease",
		"-threads", "1", "-pix_fmt", "rgb24", "-c:v", "png", "-f", "image2pipe", "pipe:1",
	}
}

// drawWithTool has a tool make an image, and a child draw it: the tool's output is as untrusted as its input.
func (e *Examiner) drawWithTool(ctx context.Context, tenant uuid.UUID, file *os.File, r DrawRequest) (Drawing, error) {
	if len(r.Sizes) == 0 {
		return Drawing{}, nil
	}
	image, err := os.CreateTemp(e.TempDir, "tramo-*")
	if err != nil {
		return Drawing{}, fmt.Errorf("make a file for an image: %w", err)
	}
	defer func() { _ = image.Close() }()
	if err := os.Remove(image.Name()); err != nil {
		return Drawing{}, fmt.Errorf("unlink the file of an image: %w", err)
	}
	var problem string
	if routeOf(r.ContentType) == routePage {
		problem, err = e.drawPage(ctx, file, image, slices.Max(r.Sizes))
	} else {
		problem, err = e.drawPoster(ctx, file, image, slices.Max(r.Sizes))
	}
	switch {
	case errors.Is(err, errNothingToDraw):
		return Drawing{}, nil
	case err != nil || problem != "":
		return Drawing{Problem: problem}, err
	}
	if problem, err := looksDrawn(image, r); err != nil || problem != "" {
		return Drawing{Problem: problem}, err
	}
	r.ContentType = "image/png"
	return derived(e.Draw(ctx, tenant, image, r))
}

// looksDrawn checks that a tool's output begins as a PNG (11.2.2), so that a compromised tool reaches no other decoder.
func looksDrawn(image *os.File, r DrawRequest) (problem string, err error) {
	head := make([]byte, 24)
	_, err = image.ReadAt(head, 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", fmt.Errorf("read the tool's image: %w", err)
	case !bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1a\n")): // or empty
		return ProblemUnsupported, nil
	}
	width, height := binary.BigEndian.Uint32(head[16:]), binary.BigEndian.Uint32(head[20:])
	if routeOf(r.ContentType) == routePage && width == 1 && height == 1 {
		return ProblemMemory, nil // pdftoppm reports no error when it lacks memory for a page
	}
	return "", nil
}

// drawPage draws a PDF's first page. A PDF that no reader opens is unreadable.
func (e *Examiner) drawPage(ctx context.Context, file, page *os.File, size int) (problem string, err error) {
	problem, failed, err := e.runTool(ctx, PDFToPPM, pageArguments(size), file, page)
	switch {
	case failed == nil:
		return problem, err
	case says(failed.Said, "Incorrect password", "security handler"):
		return ProblemProtected, nil
	case says(failed.Said, "Couldn't read xref table", "May not be a PDF file", "Wrong page range given", "Invalid page count"):
		return "", &UnreadableError{
			Sentence: "The PDF is damaged, or has no page; check that it opens, and send it again.", Cause: failed.Error(),
		}
	}
	return ProblemUnsupported, nil
}

// drawPoster takes a frame out of a video. A video that was cut off when it was recorded is unreadable.
func (e *Examiner) drawPoster(ctx context.Context, file, frame *os.File, size int) (problem string, err error) {
	problem, failed, err := e.runTool(ctx, FFmpeg, posterArguments(size), file, frame)
	switch {
	case failed == nil:
		return problem, err
	case says(failed.Said, "matches no streams"):
		return "", errNothingToDraw // it has sound only
	case says(failed.Said, "moov atom not found"):
		return "", &UnreadableError{
			Sentence: "The video is cut off; check that it plays on the phone, and send it again.", Cause: failed.Error(),
		}
	}
	return ProblemUnsupported, nil
}

// runTool runs a tool and returns the problem of the limit that it hit, or how it failed otherwise.
func (e *Examiner) runTool(ctx context.Context, name string, arguments []string, file *os.File, out io.Writer) (problem string, failed *sandbox.ToolError, err error) {
	if e.Tools[name] == "" {
		return ProblemToolMissing, nil, nil
	}
	box := e.box()
	err = box.Run(ctx, sandbox.Tool{Program: e.Tools[name], Args: arguments}, file, box.Limits(), out)
	var limit *LimitError
	switch {
	case errors.Is(err, sandbox.ErrNoProgram):
		return ProblemToolMissing, nil, nil // it was removed since the start
	case errors.As(err, &limit):
		return limit.Limit, nil, nil // a limit and its problem have the same name
	case errors.As(err, &failed) && says(failed.Said, "failed to map segment"):
		return ProblemMemory, nil, nil // the loader is out of memory
	case failed != nil:
		return "", failed, nil
	case err != nil:
		return "", nil, fmt.Errorf("run %s: %w", name, err)
	}
	return "", nil, nil
}

// Documented reports whether ReadDocument reads a media type.
func Documented(mediaType string) bool { return mediatype.Canonical(mediaType) == "application/pdf" }

// ReadDocument reads how many pages a document has, and its title. It returns nothing for one that is damaged, protected or beyond
// the limits, or when the tool is not installed.
func (e *Examiner) ReadDocument(ctx context.Context, _ uuid.UUID, file *os.File, contentType string) (facts.Document, error) {
	if !Documented(contentType) {
		return facts.Document{}, nil
	}
	var said bytes.Buffer
	problem, failed, err := e.runTool(ctx, PDFInfo, []string{"-enc", "UTF-8", "-"}, file, &said)
	if err != nil || failed != nil || problem != "" {
		return facts.Document{}, err
	}
	return facts.ParsePDFInfo(said.Bytes()), nil
}
