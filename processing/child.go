package processing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Picture is one rendered size of a photo: a WebP in sRGB, upright, without metadata. Size is the long
// side asked for; Width and Height are in pixels. It and Rendered are aliases of plain structs
// because processing/vips has the same and neither package may import the other.
type Picture = struct {
	Size, Width, Height int
	WebP                []byte
}

// Rendered is what a Renderer makes of a photo; Width and Height are the original's, upright.
type Rendered = struct {
	Width, Height int
	Pictures      []Picture
}

// Renderer decodes a photo; vips.Render is one. An error that can say its Reason is told apart by it.
type Renderer func(input []byte, orientation int, sizes []int, maxPixels int) (Rendered, error)

// The reasons a child gives for drawing nothing.
const (
	reasonNotAPicture   = "not-a-picture"
	reasonTooManyPixels = "too-many-pixels"
	reasonUnsupported   = "unsupported"
	reasonUnreadable    = "unreadable"
	reasonOutOfMemory   = "out-of-memory"
)

// childOrder is the child's argument. It names nothing that belongs to a tenant.
type childOrder struct {
	Request ExamineRequest `json:"request"`
	Limits  ExamineLimits  `json:"limits"`
}

// childAnswer is the line of JSON that the child writes first; the pictures follow it, back to back.
type childAnswer struct {
	Facts     Facts          `json:"facts"`
	Width     int            `json:"width"`
	Height    int            `json:"height"`
	Truncated bool           `json:"truncated"`
	Pictures  []childPicture `json:"pictures"`
	Reason    string         `json:"reason,omitempty"`
	Cause     string         `json:"cause,omitempty"`
}

type childPicture struct {
	Size   int `json:"size"`
	Width  int `json:"width"`
	Height int `json:"height"`
	Length int `json:"length"` // bytes
}

// ServeChild is the child's whole life: it gives up what it does not need, examines the one file
// that is its input, and writes what it found to output. arguments are those behind the hidden
// one that made the program a child. A picture that cannot be read is an answer, not an error.
func ServeChild(arguments []string, input *os.File, output io.Writer, render Renderer) error {
	if len(arguments) != 1 {
		return errors.New("examine is not for people: a worker starts it")
	}
	var order childOrder
	if err := json.Unmarshal([]byte(arguments[0]), &order); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if err := confine(order.Limits); err != nil {
		return fmt.Errorf("confine the child: %w", err)
	}
	data, err := mapFile(input)
	if err != nil {
		return fmt.Errorf("map the input: %w", err)
	}
	answer, pictures := examine(data, order.Request, render)
	return writeAnswer(output, answer, pictures)
}

// examine believes the bytes, not the name that came with them. What can be learnt is answered even
// when no picture can be drawn.
func examine(data []byte, request ExamineRequest, render Renderer) (childAnswer, []Picture) {
	detected := DetectType(data[:min(len(data), 4<<10)])
	if !Drawable(detected) {
		return childAnswer{Reason: reasonNotAPicture, Cause: "it begins as " + detected}, nil
	}
	var answer childAnswer
	if detected == "image/jpeg" {
		truncated, err := TruncatedJPEG(bytes.NewReader(data))
		answer.Truncated = truncated && err == nil
	}
	// Damaged metadata is common and costs nothing but itself.
	answer.Facts, _ = ReadFacts(bytes.NewReader(data), detected)

	rendered, err := render(data, answer.Facts.Orientation, request.Sizes, request.MaxPixels)
	if err != nil {
		answer.Reason, answer.Cause = reasonOf(err), err.Error()
		return answer, nil
	}
	answer.Width, answer.Height = rendered.Width, rendered.Height
	for _, picture := range rendered.Pictures {
		answer.Pictures = append(answer.Pictures, childPicture{picture.Size, picture.Width, picture.Height, len(picture.WebP)})
	}
	return answer, rendered.Pictures
}

func reasonOf(err error) string {
	var reasoned interface{ Reason() string }
	if errors.As(err, &reasoned) {
		return reasoned.Reason()
	}
	return reasonUnreadable
}

func writeAnswer(output io.Writer, answer childAnswer, pictures []Picture) error {
	if len(answer.Cause) > childCauseLimit {
		answer.Cause = answer.Cause[:childCauseLimit]
	}
	if err := json.NewEncoder(output).Encode(answer); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	for _, picture := range pictures {
		if _, err := output.Write(picture.WebP); err != nil {
			return fmt.Errorf("write the picture of %d pixels: %w", picture.Size, err)
		}
	}
	return nil
}

// Drawable reports whether pictures can be drawn of a media type at all. Of the others Examine says
// nothing, and starts no child.
func Drawable(mediaType string) bool {
	switch canonicalType(mediaType) {
	case "image/jpeg", "image/png", "image/webp", "image/gif", "image/tiff", "image/x-adobe-dng",
		"image/heic", "image/heif", "image/avif":
		return true
	}
	return false
}
