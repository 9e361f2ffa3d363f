// Package examine decodes untrusted files in child processes that hold no credentials: it draws thumbnails
// and reads facts. [Examiner] is the parent's side, [ServeChild] the child's. Every answer of a child is checked.
package examine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/facts"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/sandbox"
)

// UnreadableError says why a file cannot be drawn: it is damaged. Another attempt has the same result.
type UnreadableError struct {
	Cause string // for the log
}

func (e *UnreadableError) Error() string { return "the image cannot be read: " + e.Cause }

// Why a file has no thumbnails, besides the limits that a [sandbox.LimitError] names. Package storage keeps the
// reasons, and the API returns them.
const (
	NoThumbnailTooLarge    = "too_large"    // more pixels than are decoded
	NoThumbnailUnreadable  = "unreadable"   // it is damaged: an UnreadableError
	NoThumbnailUnsupported = "unsupported"  // perhaps an intact file, with a feature that cannot be drawn
	NoThumbnailProtected   = "protected"    // a password is needed to look inside; of a type without thumbnails too
	NoThumbnailToolMissing = "tool_missing" // the program that draws such files is not installed
)

// A DrawRequest says what to draw of a file.
type DrawRequest struct {
	ContentType string `json:"content_type"` // as detected by the parent; the child detects it again
	Sizes       []int  `json:"sizes"`        // pixels of the long side
	MaxPixels   int    `json:"max_pixels"`   // of the original; 0 means the renderer's default
}

// A Drawing is what was drawn of a file. Width and Height are the original's in pixels, upright.
type Drawing struct {
	Width, Height int
	Thumbnails    []Thumbnail
	Partial       bool   // the thumbnails show a part of it: the rest is missing or damaged
	Placeholder   string // ThumbHash, base64
	NoThumbnail   string // why there are no thumbnails: one of the constants, a limit, or "" if the file shows nothing
}

// Examiner decodes untrusted files in child processes that hold no credentials. A child serves one tenant's files. It
// may be used by several goroutines at once.
type Examiner struct {
	// Box holds the children; its Command calls ServeChild, and its Env is Environment.
	Box *sandbox.Box
	// Tools draw files that the child does not decode. Without a tool its files have no thumbnails.
	Tools Tools
	// TempDir is where a tool's image is kept, without a name, until a child draws it; "" for the system's.
	TempDir string
}

// Draw draws a file of the tenant, whose offset and mode do not matter: the child gets a read-only descriptor of its own. A type that
// cannot be drawn gives an empty Drawing, a file that cannot be drawn gives the reason. A damaged file is an [UnreadableError]; a limit
// that a child hit, which had drawn nothing before, is a [sandbox.LimitError].
func (e *Examiner) Draw(ctx context.Context, tenant uuid.UUID, file *os.File, r DrawRequest) (Drawing, error) {
	switch routeOf(r.ContentType) {
	case routeNone:
		return Drawing{}, nil
	case routePage, routePoster:
		return e.drawWithTool(ctx, tenant, file, r)
	}
	answer, thumbnails, err := e.ask(ctx, tenant, file, childRequest{Draw: &r})
	if err != nil {
		return Drawing{}, err
	}
	return answer.drawing(thumbnails)
}

// Inspect is [mediatype.Inspect] of a file of the tenant whose first bytes are those of a container.
func (e *Examiner) Inspect(ctx context.Context, tenant uuid.UUID, file *os.File) (mediatype.Found, error) {
	answer, _, err := e.ask(ctx, tenant, file, childRequest{Type: true})
	return mediatype.Found{Type: answer.Type, Protected: answer.Protected}, err
}

// Readable reports whether ReadFacts reads a media type.
func Readable(mediaType string) bool { return readAs(mediaType) != "" }

// readAs returns the kind of a media type as which facts are read of it, or "": a camera's raw file is a TIFF.
func readAs(mediaType string) string {
	for _, kind := range mediatype.Kinds(mediaType) {
		if facts.Readable(kind) {
			return kind
		}
	}
	return ""
}

// ReadFacts reads the metadata of a file of the tenant. It leaves out damaged metadata.
func (e *Examiner) ReadFacts(ctx context.Context, tenant uuid.UUID, file *os.File, contentType string) (facts.Facts, error) {
	kind := readAs(contentType)
	if kind == "" {
		return facts.Facts{}, nil
	}
	answer, _, err := e.ask(ctx, tenant, file, childRequest{FactsOf: kind})
	return answer.Facts, err
}

// Environment is the whole environment of the children.
func Environment() []string {
	return []string{
		"VIPS_CONCURRENCY=1", "VIPS_BLOCK_UNTRUSTED=1", "VIPS_WARNING=0", "MALLOC_ARENA_MAX=2",
		// In bytes: an image's memory is kept for the next one. Else each takes some 9,000 page faults, 25 ms, to get it again.
		"MALLOC_MMAP_THRESHOLD_=33554432", "MALLOC_TRIM_THRESHOLD_=67108864",
		// A child can write no file: an image that does not fit into its memory fails.
		"VIPS_DISC_THRESHOLD=1000g",
		"GOMAXPROCS=2", "GOMEMLIMIT=128MiB", "GOTRACEBACK=single",
	}
}

// ask has a child of the tenant answer one request, and checks the answer.
func (e *Examiner) ask(ctx context.Context, tenant uuid.UUID, file *os.File, request childRequest) (answer childAnswer, thumbnails []Thumbnail, err error) {
	limit := e.Box.Limits().Output
	err = e.Box.Ask(ctx, tenant.String(), request, file, func(in io.Reader, fresh bool) (err error) {
		answer, thumbnails, err = readAnswer(in, request, limit)
		switch {
		case errors.Is(err, errLongAnswer):
			return &sandbox.LimitError{Limit: sandbox.LimitOutput, Cause: err.Error()}
		case err == nil && answer.Reason == reasonOutOfMemory:
			// Earlier files may have left the child with less memory.
			return &sandbox.LimitError{Limit: sandbox.LimitMemory, Cause: answer.Cause}
		case err == nil && !fresh && (answer.Reason == reasonUnreadable || answer.Reason == reasonUnsupported):
			// Decoders also say so when memory is short, or when an earlier file has corrupted their state, and the upload would
			// fail for it.
			return fmt.Errorf("not trusted from a child that has served other files: %s", answer.Cause)
		}
		return err
	})
	if err != nil {
		return childAnswer{}, nil, err // an invalid answer counts for nothing
	}
	return answer, thumbnails, nil
}
