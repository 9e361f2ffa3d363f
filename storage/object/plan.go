package object

// MaxPartSize is the largest part that S3 takes, in bytes (Amazon S3 User Guide, "Amazon S3 multipart upload
// limits").
const MaxPartSize = 5 << 30

// copySize is the most that one request copies where S3's limits leave a choice, in bytes. A failure costs that much.
const copySize = 256 << 20

// A span is a range of bytes of a partial upload.
type span struct {
	partial    int   // which one
	start, end int64 // offsets
}

func (s span) size() int64 { return s.end - s.start }

// A piece becomes one part of a final upload. S3 copies a piece that is one span of enough bytes. A seam, which spans partial
// uploads that are too small to copy, is read and sent again.
type piece struct {
	spans  []span
	copied bool
}

func (p piece) size() (size int64) {
	for _, s := range p.spans {
		size += s.size()
	}
	return size
}

// plan cuts the bytes of partial uploads of these sizes into pieces, in order, from an offset at which an earlier piece ended.
// Each piece but the last has at least [MinPartSize] bytes, none has more than [MaxPartSize], and there are at most half of
// [MaxParts], so that each part can fail once. A span that is copied is a whole partial upload, or a range of one with more
// than MinPartSize bytes, because S3 copies no range of a smaller object.
func plan(sizes []int64, from int64) (pieces []piece) {
	least := leastPiece(sizes)
	var seam piece
	for i, size := range sizes {
		start := min(from, size)
		from -= start
		if have := seam.size(); have > 0 {
			n := size - start
			if n >= least-have+least { // the rest is enough to be copied
				n = least - have
			}
			seam.spans = append(seam.spans, span{i, start, start + n})
			start += n
			if seam.size() >= least {
				pieces = append(pieces, seam)
				seam = piece{}
			}
		}
		switch left := size - start; {
		case left >= least:
			pieces = append(pieces, cut(span{i, start, size}, least)...)
		case left > 0:
			seam.spans = append(seam.spans, span{i, start, size})
		}
	}
	if len(seam.spans) > 0 {
		pieces = append(pieces, seam)
	}
	return pieces
}

// planSent is plan for a store that copies no parts: each piece but the last has least bytes, and all are read and sent again.
func planSent(sizes []int64, from, least int64) (pieces []piece) {
	var p piece
	for i, size := range sizes {
		start := min(from, size)
		from -= start
		for start < size {
			end := min(size, start+least-p.size())
			p.spans = append(p.spans, span{i, start, end})
			start = end
			if p.size() == least {
				pieces = append(pieces, p)
				p = piece{}
			}
		}
	}
	if len(p.spans) > 0 {
		pieces = append(pieces, p)
	}
	return pieces
}

// leastPiece is the least size of all pieces but the last, in bytes.
func leastPiece(sizes []int64) int64 {
	total := int64(0)
	for _, size := range sizes {
		total += size
	}
	return max(MinPartSize, (total+MaxParts/2-1)/(MaxParts/2))
}

// cut divides a span of at least least bytes into pieces of about the same size.
func cut(s span, least int64) []piece {
	most := min(max(copySize, 2*least), MaxPartSize)
	n := (s.size() + most - 1) / most
	pieces := make([]piece, n)
	for i := range pieces {
		next := s
		next.end = s.start + s.size()/(n-int64(i))
		s.start = next.end
		pieces[i] = piece{spans: []span{next}, copied: true}
	}
	return pieces
}
