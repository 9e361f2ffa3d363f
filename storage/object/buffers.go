package object

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// blockSize is the unit in which buffers are allocated, in bytes.
const blockSize = 64 << 10

// BufferConfig bounds what bytes may take up between their arrival and their being durable, over all
// uploads of a process.
type BufferConfig struct {
	Memory int64  `name:"buffer-memory" type:"bytes" help:"Memory for received bytes that are not yet in S3, over all uploads. Bytes that do not fit go to disk."`
	Disk   int64  `name:"buffer-disk" type:"bytes" help:"Disk for received bytes that do not fit into TRAMO_BUFFER_MEMORY, over all uploads. When both are full, uploads wait. 0 uses no disk."`
	Dir    string `name:"buffer-dir" placeholder:"DIR" help:"Directory of TRAMO_BUFFER_DISK. Default: the system's directory for temporary files."`
}

// Validate reports what is wrong with c.
func (c BufferConfig) Validate() error {
	var errs []error
	if c.Memory < 16*blockSize {
		errs = append(errs, fmt.Errorf("TRAMO_BUFFER_MEMORY: at least %d bytes (1MiB) are needed", 16*blockSize))
	}
	if c.Disk < 0 {
		errs = append(errs, errors.New("TRAMO_BUFFER_DISK: less than 0; 0 uses no disk"))
	}
	return errors.Join(errs...)
}

// buffers allocates blocks: from an arena outside the heap, so that the garbage collector neither scans nor doubles them, and
// beyond that from one unlinked file, whose space is freed with each block.
type buffers struct {
	arena []byte
	dir   string
	slots int64 // blocks that the file may have

	mu     sync.Mutex
	peak   int     // most blocks of the arena in use at once since its pages were last freed
	memory []int32 // free blocks of the arena; the last one freed is used first, to leave the rest untouched
	disk   []int64 // free blocks of the file that were in use before
	next   int64   // the file's first block that was never used
	file   *os.File
	freed  chan struct{} // closed when a block is freed; nil while nobody waits
}

func newBuffers(c BufferConfig) (*buffers, error) {
	n := c.Memory / blockSize
	arena, err := unix.Mmap(-1, 0, int(n*blockSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes for buffers: %w", n*blockSize, err)
	}
	b := &buffers{arena: arena, dir: c.Dir, slots: c.Disk / blockSize, memory: make([]int32, n)}
	for i := range b.memory {
		b.memory[i] = int32(int(n) - 1 - i)
	}
	return b, nil
}

// close frees memory and disk, unless a block is in use.
func (b *buffers) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if out := b.total() - len(b.memory) + int(b.next) - len(b.disk); out > 0 {
		return fmt.Errorf("%d buffers are still in use", out)
	}
	err := unix.Munmap(b.arena)
	if b.file != nil {
		err = errors.Join(err, b.file.Close())
	}
	return err
}

// A block is blockSize bytes: memory, or a place in the file.
type block struct {
	memory []byte // nil for a block on disk
	index  int64
}

// allocate returns a block, of memory if any is free.
func (b *buffers) allocate() (block, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.memory); n > 0 {
		i := int64(b.memory[n-1])
		b.memory = b.memory[:n-1]
		b.peak = max(b.peak, b.total()-len(b.memory))
		return block{memory: b.arena[i*blockSize : (i+1)*blockSize : (i+1)*blockSize], index: i}, true
	}
	i, ok := b.allocateDisk()
	return block{index: i}, ok
}

// wait returns a channel that is closed when a block is free.
func (b *buffers) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.memory) > 0 {
		now := make(chan struct{})
		close(now)
		return now
	}
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return b.freed
}

// allocateDisk returns a place in the file for which the file system has reserved space.
func (b *buffers) allocateDisk() (index int64, ok bool) {
	if b.slots == 0 {
		return 0, false
	}
	if b.file == nil {
		f, err := os.CreateTemp(b.dir, "tramo-buffers-*")
		if err != nil {
			return 0, false
		}
		_ = os.Remove(f.Name()) // its space is freed when the process ends, also by kill -9
		b.file = f
	}
	if n := len(b.disk); n > 0 {
		index = b.disk[n-1]
	} else {
		index = b.next
	}
	if index >= b.slots || unix.Fallocate(int(b.file.Fd()), 0, index*blockSize, blockSize) != nil {
		return 0, false
	}
	if n := len(b.disk); n > 0 {
		b.disk = b.disk[:n-1]
	} else {
		b.next++
	}
	return index, true
}

// free frees a block.
func (b *buffers) free(l block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.memory != nil {
		b.memory = append(b.memory, int32(l.index))
		b.trim()
	} else {
		b.disk = append(b.disk, l.index)
		// Where the file system cannot punch holes the place is used again, but its space is not freed.
		_ = unix.Fallocate(int(b.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, l.index*blockSize, blockSize)
	}
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// total is how many blocks the arena has.
func (b *buffers) total() int { return len(b.arena) / blockSize }

// trim returns the arena's pages to the system after a burst: when no block is in use, and many were.
func (b *buffers) trim() {
	if len(b.memory) < b.total() || b.peak < b.total()/2 {
		return
	}
	b.peak = 0
	_ = unix.Madvise(b.arena, unix.MADV_DONTNEED) // if it fails, the pages stay allocated
}

// write puts p into the block at an offset.
func (b *buffers) write(l block, p []byte, at int) error {
	if l.memory != nil {
		copy(l.memory[at:], p)
		return nil
	}
	_, err := b.file.WriteAt(p, l.index*blockSize+int64(at))
	if err != nil {
		return fmt.Errorf("write to the buffer file: %w", err)
	}
	return nil
}

// read fills p from the block at an offset.
func (b *buffers) read(l block, p []byte, at int) error {
	if l.memory != nil {
		copy(p, l.memory[at:])
		return nil
	}
	_, err := b.file.ReadAt(p, l.index*blockSize+int64(at))
	if err != nil {
		return fmt.Errorf("read from the buffer file: %w", err)
	}
	return nil
}
