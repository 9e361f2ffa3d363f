package object

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

const mib = 1 << 20

func TestPlan(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		sizes []int64
		from  int64
		want  string
	}{
		{"one that is small", []int64{10}, 0, "[0:0-10]"},
		{"many that are small", []int64{10, 20, 30}, 0, "[0:0-10 1:0-20 2:0-30]"},
		{"one that is large", []int64{5 * mib}, 0, "copy[0:0-5242880]"},
		{"large ones", []int64{6 * mib, 7 * mib}, 0, "copy[0:0-6291456] copy[1:0-7340032]"},
		{"a small one at the end", []int64{6 * mib, 1}, 0, "copy[0:0-6291456] [1:0-1]"},
		{"a seam into one that is copied", []int64{1, 11 * mib}, 0, "[0:0-1 1:0-5242879] copy[1:5242879-11534336]"},
		{"a seam that takes what could not be copied", []int64{1, 9 * mib, 6 * mib}, 0, "[0:0-1 1:0-9437184] copy[2:0-6291456]"},
		{"more than is copied at once", []int64{300 * mib}, 0, "copy[0:0-157286400] copy[0:157286400-314572800]"},
		{"from a boundary", []int64{6 * mib, 7 * mib}, 6 * mib, "copy[1:0-7340032]"},
		{"from within", []int64{1, 11 * mib}, 5 * mib, "copy[1:5242879-11534336]"},
		{"all is there", []int64{1, 2}, 3, ""},
	} {
		if got := written(plan(c.sizes, c.from)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func written(pieces []piece) (s string) {
	for i, p := range pieces {
		if i > 0 {
			s += " "
		}
		if p.copied {
			s += "copy"
		}
		spans := make([]string, len(p.spans))
		for i, sp := range p.spans {
			spans[i] = fmt.Sprintf("%d:%d-%d", sp.partial, sp.start, sp.end)
		}
		s += fmt.Sprint(spans)
	}
	return s
}

// Whatever the sizes are: all bytes are covered once, in order; S3's limits hold; and who goes on after any
// piece covers exactly the rest.
func FuzzPlan(f *testing.F) {
	seed := func(sizes ...int64) {
		var b []byte
		for _, s := range sizes {
			b = binary.BigEndian.AppendUint64(b, uint64(s))
		}
		f.Add(b, uint8(1))
	}
	seed(1)
	seed(5*mib-1, 1, 5*mib, 5*mib+1)
	seed(100_000, 100_000, 100_000)
	seed(1<<42, 1, 1<<41)
	seed(1<<40, 104_857_599, 104_857_600, 7)
	f.Fuzz(func(t *testing.T, data []byte, stop uint8) {
		sizes := sizesIn(data)
		pieces := plan(sizes, 0)
		checkPlan(t, sizes, 0, pieces)
		from := int64(0)
		for i, p := range pieces {
			if i == int(stop) {
				break
			}
			from += p.size()
		}
		checkPlan(t, sizes, from, plan(sizes, from))
	})
}

// sizesIn makes at most as many sizes, and as many bytes altogether, as an upload may have.
func sizesIn(data []byte) (sizes []int64) {
	left := int64(5 << 40) // the largest object of S3
	for len(data) >= 8 && len(sizes) < 1000 {
		n := int64(binary.BigEndian.Uint64(data)) & (1<<43 - 1)
		n >>= data[0] % 43 // small ones, too
		data = data[8:]
		if n = min(n, left); n > 0 {
			sizes = append(sizes, n)
			left -= n
		}
	}
	return sizes
}

func checkPlan(t *testing.T, sizes []int64, from int64, pieces []piece) {
	t.Helper()
	if len(pieces) > MaxParts/2+1 {
		t.Errorf("there are %d parts", len(pieces))
	}
	partial, at := 0, from
	for partial < len(sizes) && at >= sizes[partial] {
		at -= sizes[partial]
		partial++
	}
	for i, p := range pieces {
		size := p.size()
		switch {
		case i < len(pieces)-1 && size < MinPartSize:
			t.Errorf("part %d has %d bytes", i+1, size)
		case size > MaxPartSize:
			t.Errorf("part %d has %d bytes", i+1, size)
		case p.copied && len(p.spans) != 1:
			t.Errorf("part %d is copied from %d places", i+1, len(p.spans))
		}
		if s := p.spans[0]; p.copied && s.size() < sizes[s.partial] && sizes[s.partial] <= MinPartSize {
			t.Errorf("part %d is a range of an upload of %d bytes", i+1, sizes[s.partial])
		}
		for _, s := range p.spans {
			if s.partial != partial || s.start != at || s.size() <= 0 || s.end > sizes[s.partial] {
				t.Fatalf("part %d has %+v, want %d from %d", i+1, s, partial, at)
			}
			if at = s.end; at == sizes[partial] {
				partial, at = partial+1, 0
			}
		}
	}
	if partial != len(sizes) {
		t.Errorf("what follows %d of upload %d of %d is missing", at, partial, len(sizes))
	}
	if resent := slices.ContainsFunc(pieces, func(p piece) bool { return !p.copied && p.size() > 4<<30 }); resent {
		t.Error("more is sent again than buffers should hold")
	}
}

// Pieces that are sent cover all bytes from the offset on, in order, and all but the last are of the size that was asked for.
func TestPlanSent(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var sizes []int64
		total := int64(0)
		for range 1 + random.IntN(6) {
			sizes = append(sizes, 1+random.Int64N(50))
			total += sizes[len(sizes)-1]
		}
		from, least := random.Int64N(total), 1+random.Int64N(40)
		at := from
		pieces := planSent(sizes, from, least)
		for i, p := range pieces {
			if size := p.size(); p.copied || size > least || size < least && i < len(pieces)-1 {
				t.Fatalf("%v from %d: piece %d is %+v", sizes, from, i, p)
			}
			for _, s := range p.spans {
				before := int64(0)
				for _, size := range sizes[:s.partial] {
					before += size
				}
				if before+s.start != at || s.end > sizes[s.partial] || s.size() <= 0 {
					t.Fatalf("%v from %d: span %+v at %d", sizes, from, s, at)
				}
				at += s.size()
			}
		}
		if at != total {
			t.Fatalf("%v from %d: ends at %d of %d", sizes, from, at, total)
		}
	}
}
