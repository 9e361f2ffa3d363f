package object

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/tramo/tramo/test/stack"
)

// blocks makes buffers with so many blocks.
func blocks(t *testing.T, memory, disk int64) *buffers {
	t.Helper()
	b, err := newBuffers(BufferConfig{Memory: memory * blockSize, Disk: disk * blockSize, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever is read in whatever pieces, and whenever it is taken, also in the middle of a read: what was taken
// is what arrived, in order, from memory, from disk, and when both are full. Everything lent comes back.
func TestSpool(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if s := os.Getenv("TRAMO_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("TRAMO_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	t.Run("with a disk", func(t *testing.T) { spools(t, random, blocks(t, 3, 4)) })
	t.Run("without one", func(t *testing.T) { spools(t, random, blocks(t, 3, 0)) })
}

func spools(t *testing.T, random *rand.Rand, b *buffers) {
	type upload struct {
		spool
		arrived, taken []byte
		runs           []run
	}
	uploads := make([]*upload, 4)
	for i := range uploads {
		uploads[i] = &upload{spool: newSpool(b)}
	}
	for range 800 {
		u := uploads[random.IntN(len(uploads))]
		if !u.full {
			room := u.room()
			if random.IntN(4) == 0 {
				u.runs = append(u.runs, u.take()) // a timer fires while a read waits for the client
			}
			n := min(len(room), 1+random.IntN(2*len(room)))
			for i := range room[:n] {
				room[i] = byte(random.Uint32())
			}
			u.arrived = append(u.arrived, room[:n]...)
			if err := u.grew(n, len(room)); err != nil {
				t.Fatal(err)
			}
		}
		if u.full || random.IntN(6) == 0 {
			u.runs = append(u.runs, u.take())
		}
		for len(u.runs) > random.IntN(3) {
			u.taken = append(u.taken, checkRun(t, random, &u.runs[0])...)
			u.runs[0].release()
			u.runs = u.runs[1:]
		}
	}
	for i, u := range uploads {
		for _, r := range append(u.runs, u.take()) {
			u.taken = append(u.taken, checkRun(t, random, &r)...)
			r.release()
		}
		u.held.release()
		if !bytes.Equal(u.taken, u.arrived) {
			t.Errorf("upload %d: %d bytes were taken of %d that arrived, or they differ", i, len(u.taken), len(u.arrived))
		}
	}
	if b.file != nil {
		info, err := b.file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		stack.Want(t, info.Sys().(*syscall.Stat_t).Blocks, 0, "blocks of the disk that are taken")
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

// checkRun reads a run in all the ways that there are and returns its bytes.
func checkRun(t *testing.T, random *rand.Rand, r *run) (content []byte) {
	t.Helper()
	_ = r.pieces(func(p []byte) error {
		content = append(content, p...)
		return nil
	})
	if int64(len(content)) != r.size {
		t.Fatalf("a run of %d bytes has %d", r.size, len(content))
	}
	if len(content) < 2*waitSize { // it is slow
		if err := iotest.TestReader(r.reader(), content); err != nil {
			t.Error(err)
		}
	}
	for range 3 {
		at := random.Int64N(r.size + 1)
		reader := r.reader()
		_, _ = io.CopyN(io.Discard, reader, random.Int64N(r.size+1))
		if _, err := reader.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(reader)
		if err != nil || !bytes.Equal(got, content[at:]) {
			t.Fatalf("from %d of %d: %d bytes, %v", at, r.size, len(got), err)
		}
	}
	want := binary.BigEndian.AppendUint32(nil, crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)))
	if sum, err := r.checksum(); err != nil || sum != base64.StdEncoding.EncodeToString(want) {
		t.Errorf("the checksum is %s, %v", sum, err)
	}
	return content
}

// A client that is waited for holds no block: neither one that never sent anything, nor one whose bytes were
// taken.
func TestWaitingHoldsNoBlock(t *testing.T) {
	t.Parallel()
	b := blocks(t, 16, 0)
	s := newSpool(b)
	check := func(when string, lent int) {
		t.Helper()
		stack.Want(t, 16-len(b.memory), lent, "%s: number of blocks lent", when)
	}
	bring := func(n int) {
		t.Helper()
		room := s.room()
		if err := s.grew(min(n, len(room)), len(room)); err != nil {
			t.Fatal(err)
		}
	}
	s.room()
	check("before a byte has come", 0)
	bring(waitSize) // the read filled its buffer: more bytes may be waiting
	bring(100)
	check("with bytes", 1)
	s.room()
	taken := s.take()
	taken.release()
	check("after they were taken", 0)
	stack.Want(t, len(s.scratch), waitSize, "bytes held by a client that is waited for")
}

// Nothing is lent beyond what there is, and who waits is told when a block comes back.
func TestBuffersAreBounded(t *testing.T) {
	t.Parallel()
	b := blocks(t, 2, 2)
	var lent []block
	for {
		l, ok := b.allocate()
		if !ok {
			break
		}
		lent = append(lent, l)
	}
	if len(lent) != 4 {
		t.Fatalf("%d blocks were lent", len(lent))
	}
	if err := b.close(); err == nil {
		t.Error("buffers in use were closed")
	}
	waiting := b.wait()
	select {
	case <-waiting:
		t.Error("a block is said to be there")
	default:
	}
	for _, l := range lent {
		b.free(l)
	}
	stack.Receive(t, "free block", waiting)
	stack.Receive(t, "free block", b.wait())
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

// What makes a client slow: at its pace the part would not be full, or the upload not whole, in time.
func TestSlow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		size, at    int64 // of the upload, and what of it is durable
		tail, fresh int64
		took        time.Duration
		want        bool
	}{
		{"photo at 2 MiB/s", 3 << 20, 0, 0, 1 << 20, 500 * time.Millisecond, false},
		{"photo at 1 MiB/s", 3 << 20, 0, 0, 1 << 20, time.Second, true},
		{"video at 2 MiB/s", 1 << 30, 0, 0, 1 << 20, 500 * time.Millisecond, true},
		{"video at 8 MiB/s", 1 << 30, 0, 0, 1 << 20, 125 * time.Millisecond, false},
		{"most of a part is there", 1 << 30, 7 << 20, 7 << 20, 1 << 19, 500 * time.Millisecond, false},
	} {
		w := &writer{
			Upload: &Upload{store: &Store{conf: DefaultConfig()}},
			at:     c.at, tail: c.tail, since: time.Now().Add(-c.took),
			spool: spool{held: run{size: c.fresh}},
		}
		w.row.Size = c.size
		stack.Want(t, w.slow(), c.want, "%s: slow", c.name)
	}
}
