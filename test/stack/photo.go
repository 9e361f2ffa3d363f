package stack

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// EICAR returns the harmless file that every virus scanner reports. It is put together here so that no
// scanner reports this repository.
func EICAR() string {
	return strings.Join([]string{
		`X5O!P%@AP[4\PZX54(P^)7CC)7}$`, `EICAR-STANDARD-`, `ANTIVIRUS-`, `TEST-FILE!$H+H*`,
	}, "")
}

// PhotoConfig describes a photo. Zero fields have defaults.
type PhotoConfig struct {
	Width, Height int    // pixels; 4000 by 3000
	Seed          uint64 // the same seed gives the same bytes
	Quality       int    // JPEG quality; 85
}

// Photo returns a JPEG that costs about what a phone's photo of its size does, 2 to 6 MB at 12 megapixels:
// smooth gradients, edges, and a sensor's noise.
func Photo(cfg PhotoConfig) []byte {
	if cfg.Width == 0 {
		cfg.Width = 4000
	}
	if cfg.Height == 0 {
		cfg.Height = 3000
	}
	if cfg.Quality == 0 {
		cfg.Quality = 85
	}
	var out bytes.Buffer
	// Neither the picture nor a buffer can make the encoder err.
	_ = jpeg.Encode(&out, scene(cfg), &jpeg.Options{Quality: cfg.Quality})
	return out.Bytes()
}

// scene draws a sky above a site with some walls, the noise laid over it.
func scene(cfg PhotoConfig) image.Image {
	rng := rand.New(rand.NewPCG(cfg.Seed, 1))
	img := image.NewYCbCr(image.Rect(0, 0, cfg.Width, cfg.Height), image.YCbCrSubsampleRatio420)
	horizon := cfg.Height * (35 + rng.IntN(20)) / 100
	phase := rng.Float64() * 2 * math.Pi
	wall := max(1, cfg.Width/(9+rng.IntN(6)))
	var noise uint64
	for y := range cfg.Height {
		row := img.Y[y*img.YStride : y*img.YStride+cfg.Width]
		light := 190 - 60*float64(y)/float64(cfg.Height)
		wave := 18 * math.Sin(phase+float64(y)/97)
		for x := range row {
			if x%12 == 0 {
				noise = rng.Uint64()
			}
			v := light + wave*math.Cos(float64(x>>3)/61)
			if y > horizon && (x/wall+y/wall)%2 == 0 {
				v -= 45
			}
			row[x] = clamp(v + float64(noise&31)*0.9 - 14)
			noise >>= 5
		}
	}
	for y := range (cfg.Height + 1) / 2 {
		for x := range (cfg.Width + 1) / 2 {
			i := y*img.CStride + x
			if 2*y < horizon {
				img.Cb[i], img.Cr[i] = clamp(150+float64(y)*20/float64(cfg.Height)), 116
			} else {
				img.Cb[i], img.Cr[i] = 118, clamp(134+float64(x)*12/float64(cfg.Width))
			}
		}
	}
	return img
}

func clamp(v float64) uint8 { return uint8(max(0, min(255, v))) }

// PNG returns a small picture with transparency, width by height pixels.
func PNG(width, height int) []byte {
	img := image.NewNRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			img.SetNRGBA(x, y, color.NRGBA{R: uint8(x), G: uint8(y), B: 0x80, A: uint8(255 - x%64)})
		}
	}
	var out bytes.Buffer
	_ = png.Encode(&out, img) // neither the picture nor a buffer can make the encoder err
	return out.Bytes()
}

// AnimatedPNG makes an animated PNG (PNG third edition, 11.3.3.1) of two frames, the first of which is PNG's.
func AnimatedPNG(width, height int) []byte {
	still := PNG(width, height)
	chunk := func(kind string, content []byte) []byte {
		body := append([]byte(kind), content...)
		out := binary.BigEndian.AppendUint32(nil, uint32(len(content)))
		return binary.BigEndian.AppendUint32(append(out, body...), crc32.ChecksumIEEE(body))
	}
	control := func(sequence uint32) []byte {
		c := binary.BigEndian.AppendUint32(nil, sequence)
		c = binary.BigEndian.AppendUint32(c, uint32(width))
		c = binary.BigEndian.AppendUint32(c, uint32(height))
		return chunk("fcTL", append(c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 10, 0, 0))
	}
	const headerEnd, ending = 8 + 25, 12 // the signature and IHDR; IEND
	pixels := still[bytes.Index(still, []byte("IDAT"))+4 : len(still)-ending-4]
	return slices.Concat(still[:headerEnd], chunk("acTL", []byte{0, 0, 0, 2, 0, 0, 0, 0}), control(0), still[headerEnd:len(still)-ending],
		control(1), chunk("fdAT", append([]byte{0, 0, 0, 2}, pixels...)), still[len(still)-ending:])
}
