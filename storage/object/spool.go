package object

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
)

// Sizes of the buffer that a client's bytes are read into while it has no block, in bytes: small while the reader waits, so
// that a silent client costs little memory, and larger when bytes arrive faster than blocks are free.
const (
	waitSize  = 4 << 10
	spillSize = blockSize
)

// A spool holds bytes that have arrived and are not durable yet, in blocks that it allocates as it grows. One goroutine calls
// room, reads, and calls grew. Another may call take during that read. A mutex of the caller protects all but the read
// itself.
type spool struct {
	from    *buffers
	held    run
	scratch []byte
	direct  bool // the read in progress is into the last block
	fast    bool // the last read filled its buffer, so more bytes are waiting
	full    bool // no block is free: take must be called before the next read
}

func newSpool(from *buffers) spool { return spool{from: from, held: run{from: from, summed: true}} }

// size is how many bytes have arrived.
func (s *spool) size() int64 { return s.held.size }

// room returns where to read the next bytes into.
func (s *spool) room() []byte {
	s.direct = false
	if s.fast && s.extend() {
		last := s.held.last()
		s.direct = true
		return last.memory[last.end:]
	}
	want := waitSize
	if s.fast {
		want = spillSize
	}
	if len(s.scratch) != want {
		s.scratch = make([]byte, want)
	}
	return s.scratch
}

// extend makes sure that the last block has room, and reports whether it is in memory.
func (s *spool) extend() bool {
	if last := s.held.last(); last != nil && last.end < blockSize {
		return last.memory != nil
	}
	b, ok := s.from.allocate()
	if !ok {
		return false
	}
	s.held.extents = append(s.held.extents, extent{block: b})
	return b.memory != nil
}

// grew records that n bytes were read into the room, which had size bytes.
func (s *spool) grew(n, size int) error {
	s.fast = n == size
	if !s.direct {
		return s.append(s.scratch[:n])
	}
	s.direct = false
	last := s.held.last()
	s.held.sum = crc32.Update(s.held.sum, castagnoli, last.memory[last.end:last.end+n])
	last.end += n
	s.held.size += int64(n)
	return nil
}

// append copies p to the end. If no block is free, it keeps p itself, and the spool is full.
func (s *spool) append(p []byte) error {
	s.held.sum = crc32.Update(s.held.sum, castagnoli, p)
	for len(p) > 0 {
		last := s.held.last()
		if last == nil || last.end == blockSize || last.private {
			b, ok := s.from.allocate()
			if !ok {
				s.held.extents = append(s.held.extents, extent{block: block{memory: p}, end: len(p), private: true})
				s.held.size += int64(len(p))
				s.scratch, s.full = nil, true
				return nil
			}
			s.held.extents = append(s.held.extents, extent{block: b})
			last = s.held.last()
		}
		n := min(len(p), blockSize-last.end)
		if err := s.from.write(last.block, p[:n], last.end); err != nil {
			return err
		}
		last.end += n
		s.held.size += int64(n)
		p = p[n:]
	}
	return nil
}

// appendCopy is append for bytes that the caller will use again.
func (s *spool) appendCopy(p []byte) error {
	err := s.append(p)
	if last := s.held.last(); s.full && last.private {
		last.memory, s.full = append([]byte(nil), last.memory...), false
	}
	return err
}

// take returns all bytes that have arrived, and empties the spool. A block that is being read into stays in the spool; its
// bytes are copied.
func (s *spool) take() run {
	taken := s.held
	s.held, s.full = run{from: s.from, summed: true}, false
	if !s.direct {
		return taken
	}
	last := *taken.last()
	taken.extents = taken.extents[:len(taken.extents)-1]
	s.held.extents = []extent{{block: last.block, start: last.end, end: last.end}}
	if last.start < last.end {
		copied := append([]byte(nil), last.memory[last.start:last.end]...)
		taken.extents = append(taken.extents, extent{block: block{memory: copied}, end: len(copied), private: true})
	}
	return taken
}

// An extent is the part of a block that holds bytes.
type extent struct {
	block
	start, end int
	private    bool // on the heap, not one of buffers'
}

// A run is a sequence of bytes in blocks.
type run struct {
	from    *buffers
	extents []extent
	size    int64  // bytes
	sum     uint32 // their CRC32C, made while they were in the processor's cache
	summed  bool   // it is known
}

// runOf returns a run of bytes that are no buffer's.
func runOf(p []byte) *run {
	return &run{extents: []extent{{block: block{memory: p}, end: len(p), private: true}}, size: int64(len(p))}
}

func (r *run) last() *extent {
	if len(r.extents) == 0 {
		return nil
	}
	return &r.extents[len(r.extents)-1]
}

// then returns r followed by next, which keep their blocks.
func (r run) then(next run) run {
	return run{from: r.from, extents: slices.Concat(r.extents, next.extents), size: r.size + next.size}
}

// release frees the blocks.
func (r *run) release() {
	for _, e := range r.extents {
		if !e.private {
			r.from.free(e.block)
		}
	}
	r.extents, r.size = nil, 0
}

// pieces calls do with the bytes in order, at most one block at a time. They are valid until do returns.
func (r *run) pieces(do func([]byte) error) error {
	var spilt []byte
	for _, e := range r.extents {
		p := e.memory
		if p == nil {
			if spilt == nil {
				spilt = make([]byte, blockSize)
			}
			if err := r.from.read(e.block, spilt[e.start:e.end], e.start); err != nil {
				return err
			}
			p = spilt
		}
		if e.start == e.end {
			continue
		}
		if err := do(p[e.start:e.end]); err != nil {
			return err
		}
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the CRC32C as S3 takes it: big-endian, in Base64 (Amazon S3 User Guide, "Checking object
// integrity").
func (r *run) checksum() (string, error) {
	if !r.summed {
		r.sum = 0
		err := r.pieces(func(p []byte) error {
			r.sum = crc32.Update(r.sum, castagnoli, p)
			return nil
		})
		if err != nil {
			return "", err
		}
		r.summed = true
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, r.sum)), nil
}

// reader returns a reader that can be rewound, because requests to S3 are repeated.
func (r *run) reader() *runReader { return &runReader{run: r} }

type runReader struct {
	*run
	at     int64 // offset in the run
	extent int   // that the next byte is in
	within int   // bytes of that extent before it
}

// Read implements [io.Reader].
func (r *runReader) Read(p []byte) (int, error) {
	for r.extent < len(r.extents) {
		e := r.extents[r.extent]
		left := e.end - e.start - r.within
		if left == 0 {
			r.extent, r.within = r.extent+1, 0
			continue
		}
		n := min(len(p), left)
		if err := r.from.read(e.block, p[:n], e.start+r.within); err != nil {
			return 0, err
		}
		r.within += n
		r.at += int64(n)
		return n, nil
	}
	return 0, io.EOF
}

// Seek implements [io.Seeker].
func (r *runReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 || offset > r.size {
		return 0, errors.New("seek beyond the buffer")
	}
	r.at, r.extent, r.within = offset, 0, 0
	for left := int(offset); left > 0; {
		e := r.extents[r.extent]
		if have := e.end - e.start; left >= have {
			r.extent, left = r.extent+1, left-have
			continue
		}
		r.within, left = left, 0
	}
	return offset, nil
}
