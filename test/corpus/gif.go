package corpus

import "slices"

func gifs() []File {
	return []File{
		{"a hundred thousand frames.gif", "image/gif", gif(64, 64, slices.Repeat(frame(64, 64), 100_000)), []string{Drawn, Unreadable, TooLarge, Limited}},
		{"a screen of four gigapixels.gif", "image/gif", gif(65_535, 65_535, frame(1, 1)), []string{TooLarge, Drawn} /* libnsgif goes by the frames */},
		{"a frame larger than its screen.gif", "image/gif", gif(4, 4, frame(65_535, 65_535)), []string{Drawn, Partial, Unreadable, Unsupported, TooLarge, Limited}},
		{"no frame.gif", "image/gif", gif(4, 4, nil), []string{Unreadable}},
		{"a comment without end.gif", "image/gif", gif(4, 4, slices.Concat([]byte{0x21, 0xFE}, slices.Repeat(append([]byte{255}, zeros(255)...), 4096))), []string{Unreadable}},
	}
}

// gif is a GIF89a with a palette of two colours.
func gif(width, height uint16, frames []byte) []byte {
	out := le16([]byte("GIF89a"), width, height)
	out = append(out, 0x80, 0, 0, 200, 30, 30, 255, 255, 255)
	return append(append(out, frames...), 0x3B)
}

// frame is one that says its first pixel and then ends (GIF89a, appendix F): the others are up to the reader.
func frame(width, height uint16) []byte {
	out := le16([]byte{0x2C}, 0, 0, width, height)
	return append(out, 0, 2, 2, 0x44, 0x01, 0)
}
