// Package examine decodes what strangers sent, in child processes that hold no credentials: it draws
// thumbnails and reads facts. [Examiner] is the parent's side, [ServeChild] the child's. Every answer of a child is checked.
package examine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/google/uuid"

	"github.com/tramo/tramo/processing/facts"
	"github.com/tramo/tramo/processing/sandbox"
)

// For errors.Is. Another attempt at the first has the same result.
var (
	// ErrUnreadable: the file is damaged; the error is an *UnreadableError.
	ErrUnreadable = errors.New("the image cannot be read")
	// ErrChildCrashed: the child process died, or its answer was invalid.
	ErrChildCrashed = sandbox.ErrCrashed
)

// UnreadableError says why a file cannot be drawn.
type UnreadableError struct {
	Sentence string // for the person who sent it: what to do
	Cause    string // for the log
}

func (e *UnreadableError) Error() string { return ErrUnreadable.Error() + ": " + e.Cause }

// Is makes an UnreadableError an ErrUnreadable.
func (e *UnreadableError) Is(target error) bool { return target == ErrUnreadable }

// Limits bound one examination.
type Limits = sandbox.Limits

// LimitError names the limit that an examination hit, in a child that had examined nothing before.
type LimitError = sandbox.LimitError

// The limits that a LimitError names.
const (
	LimitMemory = sandbox.LimitMemory
	LimitCPU    = sandbox.LimitCPU
	LimitTime   = sandbox.LimitTime
	LimitOutput = sandbox.LimitOutput
)

// Why a file that can be read has no thumbnails. Package storage keeps them, and the API tells them.
const (
	ProblemTooLarge    = "too_large" // more pixels than are decoded
	ProblemMemory      = "memory"    // drawing it takes more memory than it may
	ProblemCPU         = "cpu"       // and so on
	ProblemTime        = "time"
	ProblemOutput      = "output"
	ProblemUnsupported = "unsupported"  // a sound file, perhaps, in a flavour that cannot be drawn
	ProblemProtected   = "protected"    // a password is needed to look inside
	ProblemToolMissing = "tool_missing" // the program that draws such files is not installed
)

// A DrawRequest says what to draw of a file.
type DrawRequest struct {
	ContentType string `json:"content_type"` // what it is taken for; the child looks for itself
	Sizes       []int  `json:"sizes"`        // pixels of the long side
	MaxPixels   int    `json:"max_pixels"`   // of the original; 0 means the renderer's default
}

// A Drawing is what was drawn of a file. Width and Height are the original's in pixels, upright.
type Drawing struct {
	Width, Height int
	Thumbnails    []Thumbnail // none, if there is a Problem
	Partial       bool        // the thumbnails show a part of it: the rest is missing or damaged
	Placeholder   string      // ThumbHash, base64
	Problem       string      // why there are no thumbnails: one of the Problem constants, or ""
}

// Examiner decodes untrusted files in child processes that hold no credentials. A child serves one tenant's files. It
// may be used by several goroutines at once.
type Examiner struct {
	// Box holds the children; its Command calls ServeChild, and its Env is Environment. Without one, the first call makes one
	// of Limits and Command, each of which may be zero.
	Box     *sandbox.Box
	Limits  Limits
	Command []string
	// Tools draw files that the child does not decode. Without a tool its files have no thumbnails.
	Tools Tools
	// TempDir is where a tool's image is kept, without a name, until a child draws it; "" for the system's.
	TempDir string

	once sync.Once
}

// Draw draws a file of the tenant, whose offset and mode do not matter: the child gets a read-only descriptor of its own. A type that
// cannot be drawn gives an empty Drawing, a file that cannot be drawn gives its Problem. ErrUnreadable says that the file is
// damaged.
func (e *Examiner) Draw(ctx context.Context, tenant uuid.UUID, file *os.File, r DrawRequest) (Drawing, error) {
	switch routeOf(r.ContentType) {
	case routeNone:
		return Drawing{}, nil
	case routePage, routePoster:
		return e.drawWithTool(ctx, tenant, file, r)
	}
	run, err := e.ask(ctx, tenant, file, childRequest{Draw: &r})
	if err != nil {
		return Drawing{}, err
	}
	return run.answer.drawing(run.pictures)
}

// ReadFacts reads the metadata of a file of the tenant. It leaves out damaged metadata.
func (e *Examiner) ReadFacts(ctx context.Context, tenant uuid.UUID, file *os.File, contentType string) (facts.Facts, error) {
	if !facts.Readable(contentType) {
		return facts.Facts{}, nil
	}
	run, err := e.ask(ctx, tenant, file, childRequest{FactsOf: contentType})
	if err != nil {
		return facts.Facts{}, err
	}
	return run.answer.Facts, nil
}

// Close ends all children, and waits until they are gone.
func (e *Examiner) Close() error { return e.box().Close() }

func (e *Examiner) box() *sandbox.Box {
	e.once.Do(func() {
		if e.Box == nil {
			e.Box = sandbox.New(sandbox.Config{Command: e.Command, Limits: e.Limits, Env: Environment()})
		}
	})
	return e.Box
}

// Environment are all environment variables of the children.
func Environment() []string {
	return []string{
		"VIPS_CONCURRENCY=1", "VIPS_BLOCK_UNTRUSTED=1", "VIPS_WARNING=0", "MALLOC_ARENA_MAX=2",
		// A child can write no file: an image that does not fit into its memory fails.
		"VIPS_DISC_THRESHOLD=1000g",
		"GOMAXPROCS=2", "GOMEMLIMIT=128MiB", "GOTRACEBACK=single",
	}
}

// reply is what a child has answered, checked.
type reply struct {
	answer   childAnswer
	pictures []Thumbnail
}

// ask has a child of the tenant answer one request.
func (e *Examiner) ask(ctx context.Context, tenant uuid.UUID, file *os.File, request childRequest) (r reply, err error) {
	box := e.box()
	limit := box.Limits().Output
	err = box.Ask(ctx, tenant.String(), request, file, func(in io.Reader, fresh bool) (err error) {
		r.answer, r.pictures, err = readAnswer(in, request, limit)
		switch {
		case errors.Is(err, errLongAnswer):
			return &LimitError{Limit: LimitOutput, Cause: err.Error()}
		case err == nil && r.answer.Reason == reasonOutOfMemory:
			// Earlier files may have left the child with less memory.
			return &LimitError{Limit: LimitMemory, Cause: r.answer.Cause}
		case err == nil && !fresh && (r.answer.Reason == reasonUnreadable || r.answer.Reason == reasonUnsupported):
			// Decoders also say so when memory is short, or when an earlier file has corrupted their state, and the upload would
			// fail for it.
			return fmt.Errorf("not trusted from a child that has served other files: %s", r.answer.Cause)
		}
		return err
	})
	return r, err
}
