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

// Thumbnail is one rendered size of an image: a WebP in sRGB, upright, without metadata. Size is the long
// side asked for; Width and Height are in pixels. It and Rendered are aliases of plain structs
// because processing/vips has the same and neither package may import the other.
type Thumbnail = struct {
	Size, Width, Height int
	WebP                []byte
}

// Rendered is what a Renderer makes of an image; Width and Height are the original's, upright.
type Rendered = struct {
	Width, Height int
	Partial       bool   // the thumbnails show a part: the rest is missing or damaged
	Placeholder   string // ThumbHash, base64
	Thumbnails    []Thumbnail
}

// Renderer decodes an image; vips.Render is one. Its errors may have a method Reason, which returns one of the reasons below.
type Renderer func(input []byte, orientation int, sizes []int, maxPixels int) (Rendered, error)

// Why a child draws nothing: the reasons of vips.Fault.
const (
	reasonNotAnImage    = "not-an-image"
	reasonTooManyPixels = "too-many-pixels"
	reasonUnsupported   = "unsupported"
	reasonUnreadable    = "unreadable"
	reasonOutOfMemory   = "out-of-memory"
)

// childRequest asks for one of these.
type childRequest struct {
	Draw    *DrawRequest `json:"draw,omitempty"`
	FactsOf string       `json:"facts_of,omitempty"` // a media type
	Type    bool         `json:"type,omitempty"`
}

// childAnswer is the line of JSON that the child writes first; the thumbnails follow it, back to back.
type childAnswer struct {
	Type        string           `json:"type,omitempty"`
	Protected   bool             `json:"protected,omitempty"`
	Facts       facts.Facts      `json:"facts"`
	Width       int              `json:"width"`
	Height      int              `json:"height"`
	Truncated   bool             `json:"truncated"`
	Partial     bool             `json:"partial"`
	Placeholder string           `json:"placeholder"`
	Thumbnails  []childThumbnail `json:"thumbnails"`
	Reason      string           `json:"reason,omitempty"`
	Cause       string           `json:"cause,omitempty"`
}

type childThumbnail struct {
	Size   int `json:"size"`
	Width  int `json:"width"`
	Height int `json:"height"`
	Length int `json:"length"` // bytes
}

// ServeChild is the main function of a child: it gives up the rights that it does not need, examines one file after the other, and
// answers. arguments are those after the hidden one that makes the program a child. An image that cannot be read is an answer, not
// an error.
func ServeChild(arguments []string, render Renderer) error {
	return sandbox.Serve(arguments, sandbox.Service{
		Warm: func() { warm(render) },
		Answer: func(order, input []byte, output io.Writer) error {
			var request childRequest
			if err := json.Unmarshal(order, &request); err != nil {
				return fmt.Errorf("read the request: %w", err)
			}
			answer, thumbnails := examine(input, request, render)
			return writeAnswer(output, answer, thumbnails)
		},
	})
}

// WarmSize is the size, in pixels, of the image that a child draws before the first file.
const WarmSize = 16

// warm makes libraries initialize. An error here comes again with the first file.
func warm(render Renderer) {
	var picture bytes.Buffer
	_ = jpeg.Encode(&picture, image.NewGray(image.Rect(0, 0, 2*WarmSize, 2*WarmSize)), nil)
	_, _ = draw(picture.Bytes(), DrawRequest{Sizes: []int{WarmSize}}, render)
}

// examine answers a request. It detects the type by the bytes again.
func examine(data []byte, request childRequest, render Renderer) (childAnswer, []Thumbnail) {
	if request.Draw != nil {
		return draw(data, *request.Draw, render)
	}
	if request.Type {
		found := mediatype.Inspect(bytes.NewReader(data), int64(len(data)))
		return childAnswer{Type: found.Type, Protected: found.Protected}, nil
	}
	// Damaged metadata is common; the rest counts.
	found, _ := facts.Read(bytes.NewReader(data), request.FactsOf)
	return childAnswer{Facts: found}, nil
}

func draw(data []byte, request DrawRequest, render Renderer) (childAnswer, []Thumbnail) {
	detected := mediatype.Inspect(bytes.NewReader(data), int64(len(data))).Type
	switch routeOf(detected) {
	case routeDirect:
	case routeEmbedded:
		return drawEmbedded(data, detected, request, render)
	default:
		return childAnswer{Reason: reasonNotAnImage, Cause: "it begins as " + detected}, nil
	}
	var answer childAnswer
	switch detected {
	case "image/jpeg":
		answer.Truncated = truncatedJPEG(data)
	case "image/png":
		answer.Truncated = truncatedPNG(data)
	}
	found, _ := facts.Read(bytes.NewReader(data), detected)
	rendered, err := render(data, found.Orientation, request.Sizes, request.MaxPixels)
	if err != nil {
		answer.Reason, answer.Cause = reasonOf(err), err.Error()
		return answer, nil
	}
	answer.Width, answer.Height, answer.Placeholder = rendered.Width, rendered.Height, rendered.Placeholder
	answer.Partial = rendered.Partial || answer.Truncated
	for _, t := range rendered.Thumbnails {
		answer.Thumbnails = append(answer.Thumbnails, childThumbnail{t.Size, t.Width, t.Height, len(t.WebP)})
	}
	return answer, rendered.Thumbnails
}

func reasonOf(err error) string {
	var reasoned interface{ Reason() string }
	if errors.As(err, &reasoned) {
		return reasoned.Reason()
	}
	return reasonUnreadable
}

func writeAnswer(output io.Writer, answer childAnswer, thumbnails []Thumbnail) error {
	if len(answer.Cause) > childCauseLimit {
		answer.Cause = answer.Cause[:childCauseLimit]
	}
	if err := json.NewEncoder(output).Encode(answer); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	for _, t := range thumbnails {
		if _, err := output.Write(t.WebP); err != nil {
			return fmt.Errorf("write the thumbnail of %d pixels: %w", t.Size, err)
		}
	}
	return nil
}
