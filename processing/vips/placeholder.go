package vips

import (
	"encoding/base64"

	"go.n16f.net/thumbhash"
)

// placeholderSide is what ThumbHash wants at most: it costs by the pixel, and keeps a handful of cosines.
const placeholderSide = 100

// placeholder is the image as a ThumbHash (https://evanw.github.io/thumbhash), at most 25 bytes, in base64: a page shows it
// while the image itself is on its way. It leaves p small.
func (p *pixels) placeholder() (string, error) {
	if err := p.shrink(placeholderSide); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(thumbhash.EncodeImage(p.image())), nil
}
