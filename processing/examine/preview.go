package examine

import (
	"errors"

	"github.com/tramo/tramo/processing/mediatype"
	"github.com/tramo/tramo/processing/preview"
)

// A route is how thumbnails of a type are made.
type route int

const (
	routeNone     route = iota
	routeDirect         // libvips decodes it
	routeEmbedded       // it carries a preview, which libvips decodes
	routePage           // pdftoppm draws its first page, which libvips decodes
	routePoster         // ffmpeg takes a frame out, which libvips decodes
)

func routeOf(mediaType string) route {
	mediaType = mediatype.Canonical(mediaType)
	switch mediaType {
	case "image/jpeg", "image/png", "image/apng", "image/webp", "image/gif", "image/tiff", "image/x-adobe-dng",
		"image/heic", "image/heif", "image/avif":
		return routeDirect
	case "application/pdf":
		return routePage
	case "video/mp4", "video/quicktime", "video/3gpp", "video/3gpp2", "video/x-m4v":
		return routePoster
	}
	if preview.Carries(mediaType) {
		return routeEmbedded
	}
	return routeNone
}

// Drawable reports whether files of a media type can have thumbnails. For the others Draw does nothing.
func Drawable(mediaType string) bool { return routeOf(mediaType) != routeNone }

// drawEmbedded draws the preview embedded in a document. A document without one, or with one that cannot be drawn, is not
// damaged. Width and Height stay unknown: they are the preview's.
func drawEmbedded(data []byte, mediaType string, request DrawRequest, render Renderer) (childAnswer, []Thumbnail) {
	picture, err := preview.Embedded(data, mediaType)
	switch {
	case errors.Is(err, preview.ErrTooLarge):
		return childAnswer{Reason: reasonTooManyPixels, Cause: err.Error()}, nil
	case err != nil:
		return childAnswer{Reason: reasonUnsupported, Cause: err.Error()}, nil
	case picture == nil:
		return childAnswer{}, nil
	}
	answer, thumbnails := draw(picture, request, render)
	answer.Width, answer.Height = 0, 0
	if answer.Reason == reasonUnreadable || answer.Reason == reasonNotAnImage {
		answer.Reason, answer.Truncated = reasonUnsupported, false
	}
	return answer, thumbnails
}
