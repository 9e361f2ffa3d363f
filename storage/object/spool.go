package object

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
)

// Sizes of what a client is read into while no block is lent to it, in bytes: small while it is waited for, so
// that its silence costs next to nothing, and more when it brings more than the blocks can take.
const (
	waitSize  = 4 << 10
	spillSize = blockSize
)

// A spool holds what has arrived and is not durable yet, in blocks that it borrows as it grows. One
// goroutine calls room, reads, and calls grew. Another may take what there is in the middle of that read; a
// lock of their caller's keeps all but the read itself apart.
type spool struct {
	from    *buffers
	held    run
	scratch []byte
	direct  bool // the bytes being read arrive in the last block
	fast    bool // the last read filled its room, so there is more
	full    bool // no block is to be had: what there is must be taken before more is read
}

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

// extend sees to it that the last block is in memory and has room.
func (s *spool) extend() bool {
	if last := s.held.last(); last != nil && last.end < blockSize {
		return last.memory != nil
	}
	b, ok := s.from.lend()
	if !ok {
		return false
	}
	s.held.extents = append(s.held.extents, extent{block: b})
	return b.memory != nil
}

// grew says that n bytes have arrived in the room, which had size bytes.
func (s *spool) grew(n, size int) error {
	s.fast = n == size
	if !s.direct {
		return s.append(s.scratch[:n])
	}
	s.direct = false
	s.held.last().end += n
	s.held.size += int64(n)
	return nil
}

// append copies p to the end. When there is no block left p stays where it is, and the spool is full.
func (s *spool) append(p []byte) error {
	for len(p) > 0 {
		last := s.held.last()
		if last == nil || last.end == blockSize || last.private {
			b, ok := s.from.lend()
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

// appendCopy is append for bytes that are somebody else's.
func (s *spool) appendCopy(p []byte) error {
	err := s.append(p)
	if last := s.held.last(); s.full && last.private {
		last.memory, s.full = append([]byte(nil), last.memory...), false
	}
	return err
}

// take hands over all that has arrived; the spool begins anew. A block that is being read into stays, and what
// it held before is copied.
func (s *spool) take() run {
	taken := s.held
	s.held, s.full = run{from: s.from}, false
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
	private    bool // memory of its own, not on loan
}

// A run is a sequence of bytes in blocks.
type run struct {
	from    *buffers
	extents []extent
	size    int64 // bytes
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

// release gives the blocks back.
func (r *run) release() {
	for _, e := range r.extents {
		if !e.private {
			r.from.giveBack(e.block)
		}
	}
	r.extents, r.size = nil, 0
}

// pieces calls do with the bytes in order, each time with at most one block of them, good until do returns.
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
	var sum uint32
	err := r.pieces(func(p []byte) error {
		sum = crc32.Update(sum, castagnoli, p)
		return nil
	})
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum)), err
}

// reader reads the run from its beginning, as often as it is rewound: requests to S3 are repeated.
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
