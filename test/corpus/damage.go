package corpus

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Truncations are the file cut at every step bytes, as a phone's full memory leaves it.
func Truncations(name, mediaType string, content []byte, step int) (cut []File) {
	for n := step; n < len(content); n += step {
		cut = append(cut, File{fmt.Sprintf("%s, cut after %d bytes", name, n), mediaType, content[:n], nil})
	}
	return cut
}

// Flips are n copies of the file, each with a few bits turned over. The same seed gives the same ones.
func Flips(name, mediaType string, content []byte, n int, seed uint64) (flipped []File) {
	for i := range n {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		copied := slices.Clone(content)
		for range 1 + rng.IntN(8) {
			copied[rng.IntN(len(copied))] ^= 1 << rng.IntN(8)
		}
		flipped = append(flipped, File{fmt.Sprintf("%s, bits turned over (seed %d, number %d)", name, seed, i), mediaType, copied, nil})
	}
	return flipped
}
