package examine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"

	"github.com/tramo/tramo/processing/facts"
	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/sandbox"
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
	Partial       bool   // it shows a part: the rest is missing or damaged
	Placeholder   string // ThumbHash, base64
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

// childRequest asks for one of both.
type childRequest struct {
	Draw    *DrawRequest `json:"draw,omitempty"`
	FactsOf string       `json:"facts_of,omitempty"` // a media type
}

// childAnswer is the line of JSON that the child writes first; the pictures follow it, back to back.
type childAnswer struct {
	Facts       facts.Facts    `json:"facts"`
	Width       int            `json:"width"`
	Height      int            `json:"height"`
	Truncated   bool           `json:"truncated"`
	Partial     bool           `json:"partial"`
	Placeholder string         `json:"placeholder"`
	Pictures    []childPicture `json:"pictures"`
	Reason      string         `json:"reason,omitempty"`
	Cause       string         `json:"cause,omitempty"`
}

type childPicture struct {
	Size   int `json:"size"`
	Width  int `json:"width"`
	Height int `json:"height"`
	Length int `json:"length"` // bytes
}

// ServeChild is the child's whole life: it gives up what it does not need, examines one file after the other, and answers
// what it found. arguments are those behind the hidden one that made the program a child. A picture that cannot be read is
// an answer, not an error.
func ServeChild(arguments []string, render Renderer) error {
	return sandbox.Serve(arguments, sandbox.Service{
		Warm: func() { warm(render) },
		Answer: func(order, input []byte, output io.Writer) error {
			var request childRequest
			if err := json.Unmarshal(order, &request); err != nil {
				return fmt.Errorf("read the request: %w", err)
			}
			answer, pictures := examine(input, request, render)
			return writeAnswer(output, answer, pictures)
		},
	})
}

// WarmSize is the size, in pixels, of the picture that a child draws of its own before the first file.
const WarmSize = 16

// warm has libraries load what they load once. What goes wrong will go wrong again with the first file.
func warm(render Renderer) {
	var picture bytes.Buffer
	_ = jpeg.Encode(&picture, image.NewGray(image.Rect(0, 0, 2*WarmSize, 2*WarmSize)), nil)
	_, _ = draw(picture.Bytes(), DrawRequest{Sizes: []int{WarmSize}}, render)
}

// examine believes the bytes, not the name that came with them.
func examine(data []byte, request childRequest, render Renderer) (childAnswer, []Picture) {
	if request.Draw != nil {
		return draw(data, *request.Draw, render)
	}
	// Damaged metadata is common and costs nothing but itself.
	found, _ := facts.Read(bytes.NewReader(data), request.FactsOf)
	return childAnswer{Facts: found}, nil
}

func draw(data []byte, request DrawRequest, render Renderer) (childAnswer, []Picture) {
	detected := mediatype.Detect(data[:min(len(data), mediatype.HeadSize)])
	switch routeOf(detected) {
	case routeDirect:
	case routeEmbedded:
		return drawEmbedded(data, detected, request, render)
	default:
		return childAnswer{Reason: reasonNotAPicture, Cause: "it begins as " + detected}, nil
	}
	var answer childAnswer
	if detected == "image/jpeg" {
		truncated, err := TruncatedJPEG(bytes.NewReader(data))
		answer.Truncated = truncated && err == nil
	}
	found, _ := facts.Read(bytes.NewReader(data), detected)
	rendered, err := render(data, found.Orientation, request.Sizes, request.MaxPixels)
	if err != nil {
		answer.Reason, answer.Cause = reasonOf(err), err.Error()
		return answer, nil
	}
	answer.Width, answer.Height, answer.Placeholder = rendered.Width, rendered.Height, rendered.Placeholder
	answer.Partial = rendered.Partial || answer.Truncated
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
