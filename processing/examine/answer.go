package examine

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tramo/tramo/processing/mediatype"
)

// The most that the parent reads from a child, in bytes: a file may have taken control of the child.
const (
	childHeaderLimit = 64 << 10
	childCauseLimit  = 1 << 10

	maxThumbnailSide = 16_383 // pixels, of a WebP (RFC 9649, 2.6)
	maxPlaceholder   = 40     // bytes, above the 25 of the longest ThumbHash
)

var (
	errBadAnswer  = errors.New("the child's answer is invalid")
	errLongAnswer = errors.New("the child's answer is too long")
)

// readAnswer reads and checks a child's whole answer of at most limit bytes.
func readAnswer(r io.Reader, request childRequest, limit int64) (childAnswer, []Thumbnail, error) {
	limited := &io.LimitedReader{R: r, N: limit + 1}
	in := bufio.NewReaderSize(limited, childHeaderLimit)
	line, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return childAnswer{}, nil, errLongAnswer
	}
	if err != nil {
		return childAnswer{}, nil, fmt.Errorf("%w: no first line: %w", errBadAnswer, err)
	}
	var answer childAnswer
	if err := json.Unmarshal(line, &answer); err != nil {
		return childAnswer{}, nil, fmt.Errorf("%w: %w", errBadAnswer, err)
	}
	if err := answer.check(request, limit); err != nil {
		return childAnswer{}, nil, err
	}
	thumbnails := make([]Thumbnail, 0, len(answer.Thumbnails))
	for _, announced := range answer.Thumbnails {
		webp := make([]byte, announced.Length)
		if _, err := io.ReadFull(in, webp); err != nil {
			return childAnswer{}, nil, fmt.Errorf("%w: read the thumbnail of %d pixels: %w", errBadAnswer, announced.Size, err)
		}
		if string(webp[:4]) != "RIFF" || string(webp[8:12]) != "WEBP" {
			return childAnswer{}, nil, fmt.Errorf("%w: the thumbnail of %d pixels is no WebP", errBadAnswer, announced.Size)
		}
		thumbnails = append(thumbnails, Thumbnail{announced.Size, announced.Width, announced.Height, webp})
	}
	if _, err := in.ReadByte(); err == nil {
		return childAnswer{}, nil, fmt.Errorf("%w: longer than announced", errLongAnswer)
	} else if !errors.Is(err, io.EOF) {
		return childAnswer{}, nil, fmt.Errorf("%w: %w", errBadAnswer, err)
	}
	return answer, thumbnails, nil
}

// check sanitizes an answer: plausible facts, only the sizes that were asked for, lengths within limit.
func (a *childAnswer) check(request childRequest, limit int64) error {
	a.Facts = a.Facts.Plausible()
	if request.Type && !mediatype.IsName(a.Type) {
		return fmt.Errorf("%w: no media type", errBadAnswer)
	}
	a.Cause = strings.ToValidUTF8(a.Cause[:min(len(a.Cause), childCauseLimit)], "")
	const maxDimension = 1 << 20
	if a.Width < 0 || a.Height < 0 || a.Width > maxDimension || a.Height > maxDimension {
		return fmt.Errorf("%w: an image of %d by %d", errBadAnswer, a.Width, a.Height)
	}
	var sizes []int
	if request.Draw != nil {
		sizes = request.Draw.Sizes
	}
	if len(a.Thumbnails) > len(sizes) {
		return fmt.Errorf("%w: %d thumbnails, %d were asked for", errBadAnswer, len(a.Thumbnails), len(sizes))
	}
	if raw, err := base64.StdEncoding.DecodeString(a.Placeholder); err != nil || len(raw) > maxPlaceholder {
		return fmt.Errorf("%w: a placeholder of %d characters", errBadAnswer, len(a.Placeholder))
	}
	var total int64
	for _, thumbnail := range a.Thumbnails {
		if !slices.Contains(sizes, thumbnail.Size) || min(thumbnail.Width, thumbnail.Height) < 1 ||
			max(thumbnail.Width, thumbnail.Height) > min(thumbnail.Size, maxThumbnailSide) || thumbnail.Length < 12 {
			return fmt.Errorf("%w: thumbnail %+v", errBadAnswer, thumbnail)
		}
		if total += int64(thumbnail.Length); thumbnail.Length > int(limit) || total > limit {
			return errLongAnswer
		}
	}
	return nil
}

// drawing turns an answer into the result of Draw.
func (a *childAnswer) drawing(thumbnails []Thumbnail) (Drawing, error) {
	d := Drawing{Width: a.Width, Height: a.Height, Thumbnails: thumbnails, Partial: a.Partial, Placeholder: a.Placeholder}
	switch {
	case a.Reason == "":
		return d, nil
	case a.Reason == reasonUnsupported:
		d.NoThumbnail = NoThumbnailUnsupported
		return d, nil
	case a.Reason == reasonTooManyPixels:
		d.NoThumbnail = NoThumbnailTooLarge
		return d, nil
	case a.Truncated:
		return d, &UnreadableError{Cause: "cut off: " + a.Cause}
	}
	return d, &UnreadableError{Cause: a.Cause}
}
