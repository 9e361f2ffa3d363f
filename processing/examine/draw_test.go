package examine

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/jpeg"
	"testing"

	"github.com/tramo/tramo/processing/vips"
	"github.com/tramo/tramo/test/stack"
)

func drawn(photo []byte) (childAnswer, []Thumbnail) {
	return draw(photo, DrawRequest{ContentType: "image/jpeg", Sizes: []int{160}}, vips.Render)
}

// A JPEG cut anywhere is never whole: not even when all that is missing is its last byte.
func TestCutPhotoIsNeverWhole(t *testing.T) {
	t.Parallel()
	picture := image.NewRGBA(image.Rect(0, 0, 300, 200))
	for i := range 300 * 200 {
		picture.Set(i%300, i/300, color.RGBA{uint8(i * i), uint8(i), uint8(i >> 8), 255})
	}
	var out bytes.Buffer
	stack.Must(t, jpeg.Encode(&out, picture, nil))
	whole := out.Bytes()
	shown := false
	for cut := 512; cut < len(whole); cut = min(cut+512, max(cut+1, len(whole)-8)) {
		answer, pictures := drawn(whole[:cut])
		switch {
		case answer.Reason == "" && !answer.Partial:
			t.Errorf("cut after %d of %d bytes it is whole", cut, len(whole))
		case answer.Reason == "" && len(pictures) != 1:
			t.Errorf("cut after %d bytes: %d pictures", cut, len(pictures))
		case answer.Reason != "" && (answer.Reason != reasonUnreadable || shown):
			t.Errorf("cut after %d bytes: %s, %s; something was shown before: %t", cut, answer.Reason, answer.Cause, shown)
		}
		shown = shown || answer.Reason == ""
	}
	if !shown {
		t.Error("no part of it was drawn")
	}
}

// What phones put behind a photo, or what its metadata lacks, is no damage; a page gets something to show meanwhile.
func TestWholePhotoIsWhole(t *testing.T) {
	t.Parallel()
	photo := smallJPEG(t)
	for name, tail := range map[string][]byte{"nothing": nil, "a film": []byte("\x00\x00\x00\x18ftypmp42"), "a second picture": photo[:len(photo)/2]} {
		answer, pictures := drawn(append(bytes.Clone(photo), tail...))
		if answer.Reason != "" || answer.Partial || len(pictures) != 1 {
			t.Errorf("with %s behind it: %+v", name, answer)
		}
		if hash, err := base64.StdEncoding.DecodeString(answer.Placeholder); err != nil || len(hash) < 5 || len(hash) > 25 {
			t.Errorf("placeholder %q: %v", answer.Placeholder, err)
		}
	}
}
