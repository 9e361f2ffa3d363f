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

// The programs of others that draw what libvips does not. Each is optional.
const (
	PDFToPPM = "pdftoppm" // a PDF's first page
	PDFInfo  = "pdfinfo"  // its title, and how many pages it has
	FFmpeg   = "ffmpeg"   // a video's poster
)

// ToolNames are all of them.
func ToolNames() []string { return []string{PDFToPPM, PDFInfo, FFmpeg} }

// Tools are the programs that are installed: their paths, by name. They are run by a sandbox alone.
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

// Check is the error of a program that is not installed: no upload fails for it, but pictures are missing.
func (t Tools) Check(name string) error {
	if t[name] == "" {
		return fmt.Errorf("%s is not installed: pictures of some files are missing", name)
	}
	return nil
}

var errNothingToDraw = errors.New("there is nothing to draw in the file")

// pageArguments draw the first page as a viewer shows it, without the printer's margins, into a box of a size. It is a
// PNG, as text is no photo.
func pageArguments(size int) []string {
	return []string{"-f", "1", "-l", "1", "-singlefile", "-cropbox", "-scale-to", strconv.Itoa(size), "-png", "-"}
}

// posterPixels is the largest video whose frames are decoded: twice 8K.
const posterPixels = 1 << 26

// posterArguments take one frame out of a video, upright, into a box of a size. The file is a film (ISO/IEC 14496-12),
// whatever it looks like: no playlist is followed, no other file opened. The frame is the last within
// the first second that needs no other to be decoded: the first is often black. Its time is kept (-copyts), or that
// of a shorter film would be before the beginning.
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

// drawWithTool has a tool make a picture, and a child draw it: what the tool makes of a stranger's bytes is a stranger's.
func (e *Examiner) drawWithTool(ctx context.Context, tenant uuid.UUID, file *os.File, r DrawRequest) (Drawing, error) {
	if len(r.Sizes) == 0 {
		return Drawing{}, nil
	}
	picture, err := os.CreateTemp(e.TempDir, "tramo-*")
	if err != nil {
		return Drawing{}, fmt.Errorf("make a file for a picture: %w", err)
	}
	defer func() { _ = picture.Close() }()
	if err := os.Remove(picture.Name()); err != nil {
		return Drawing{}, fmt.Errorf("unlink the file of a picture: %w", err)
	}
	var problem string
	if routeOf(r.ContentType) == routePage {
		problem, err = e.drawPage(ctx, file, picture, slices.Max(r.Sizes))
	} else {
		problem, err = e.drawPoster(ctx, file, picture, slices.Max(r.Sizes))
	}
	switch {
	case errors.Is(err, errNothingToDraw):
		return Drawing{}, nil
	case err != nil || problem != "":
		return Drawing{Problem: problem}, err
	}
	if problem, err := looksDrawn(picture, r); err != nil || problem != "" {
		return Drawing{Problem: problem}, err
	}
	r.ContentType = "image/png"
	return derived(e.Draw(ctx, tenant, picture, r))
}

// looksDrawn looks at the head of a tool's picture (PNG, 11.2.2): it must be one, so that a tool that was taken over
// reaches no other decoder.
func looksDrawn(picture *os.File, r DrawRequest) (problem string, err error) {
	head := make([]byte, 24)
	_, err = picture.ReadAt(head, 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", fmt.Errorf("read the tool's picture: %w", err)
	case !bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1a\n")): // nothing, perhaps
		return ProblemUnsupported, nil
	}
	width, height := binary.BigEndian.Uint32(head[16:]), binary.BigEndian.Uint32(head[20:])
	if routeOf(r.ContentType) == routePage && width == 1 && height == 1 {
		return ProblemMemory, nil // pdftoppm that lacks it for a page says that all is well
	}
	return "", nil
}

// drawPage draws a PDF's first page. The sender is told of a PDF that no reader opens.
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

// drawPoster takes a frame out of a video. The sender is told of one that was cut off when it was recorded.
func (e *Examiner) drawPoster(ctx context.Context, file, frame *os.File, size int) (problem string, err error) {
	problem, failed, err := e.runTool(ctx, FFmpeg, posterArguments(size), file, frame)
	switch {
	case failed == nil:
		return problem, err
	case says(failed.Said, "matches no streams"):
		return "", errNothingToDraw // it is only sound
	case says(failed.Said, "moov atom not found"):
		return "", &UnreadableError{
			Sentence: "The video is cut off; check that it plays on the phone, and send it again.", Cause: failed.Error(),
		}
	}
	return ProblemUnsupported, nil
}

// runTool runs a tool, and says which limit it hit. What it has failed of otherwise is for its caller to judge.
func (e *Examiner) runTool(ctx context.Context, name string, arguments []string, file *os.File, out io.Writer) (problem string, failed *sandbox.ToolError, err error) {
	if e.Tools[name] == "" {
		return ProblemToolMissing, nil, nil
	}
	box := e.box()
	err = box.Run(ctx, sandbox.Tool{Program: e.Tools[name], Args: arguments}, file, box.Limits(), out)
	var limit *LimitError
	switch {
	case errors.Is(err, sandbox.ErrNoProgram):
		return ProblemToolMissing, nil, nil // it is, since we started
	case errors.As(err, &limit):
		return limit.Limit, nil, nil // each has a problem of its name
	case errors.As(err, &failed) && says(failed.Said, "failed to map segment"):
		return ProblemMemory, nil, nil // the loader's word for it
	case failed != nil:
		return "", failed, nil
	case err != nil:
		return "", nil, fmt.Errorf("run %s: %w", name, err)
	}
	return "", nil, nil
}

// Documented reports whether ReadDocument can say anything of a media type.
func Documented(mediaType string) bool { return mediatype.Canonical(mediaType) == "application/pdf" }

// ReadDocument reads how many pages a document has, and its title. It knows nothing of one that is damaged, protected
// or too much for the limits, or when the tool is not installed: that costs nothing else.
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
