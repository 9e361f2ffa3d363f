package vips

import (
	"encoding/base64"

	"go.n16f.net/thumbhash"
)

// placeholderSide is the largest input of ThumbHash, in pixels. Its cost grows with the pixels, and it keeps a few coefficients.
const placeholderSide = 100

// placeholder is the image as a ThumbHash (https://evanw.github.io/thumbhash), at most 25 bytes, in base64: a page shows it
// while the image itself is on its way. It shrinks p.
func (p *pixels) placeholder() (string, error) {
	if err := p.shrink(placeholderSide); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(thumbhash.EncodeImage(p.image())), nil
}
