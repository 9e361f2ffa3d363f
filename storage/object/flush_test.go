package object_test

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

// sending is a PATCH whose client writes to it as it likes.
type sending struct {
	*io.PipeWriter
	ended chan error
}

func (r *replica) sending(id uuid.UUID, offset int64) sending {
	pr, pw := io.Pipe()
	s := sending{pw, make(chan error, 1)}
	go func() {
		_, err := r.patch(r.site.ctx, id, offset, pr)
		s.ended <- errors.Join(err, pr.Close())
	}()
	return s
}

// A client that sends a little and falls silent: what it sent becomes durable while it is waited for, without a
// request to S3, and a server that dies then costs it nothing.
func TestCheckpoint(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := config(part)
	c.CheckpointInterval = 100 * time.Millisecond
	one, two := s.replicaWith(t, c, time.Second), s.replica(t)
	content := noise(part - 1)
	id := s.create(t, len(content))
	client := one.sending(id, 0)
	at := 0
	for _, n := range []int{1, 300 << 10, 70 << 10} {
		_, err := client.Write(content[at : at+n])
		stack.Must(t, err)
		at += n
		stack.Until(t, "checkpoint", func() bool {
			_, c, _ := s.rows(t, id)
			return c.Received == int64(at)
		})
		s.checkDurable(t, id, content)
	}
	if spent := s.proxy.spent(); len(spent) > 0 {
		t.Errorf("checkpoints took %v", spent)
	}
	one.die()
	two.wantOffset(t, id, int64(at))
	_ = client.CloseWithError(io.ErrUnexpectedEOF)
	stack.Must(t, stack.Receive(t, "end of the dead server's request", client.ended))
	two.send(t, id, content, at, len(content))
	s.checkComplete(t, id, content)
	if spent := s.proxy.spent(); len(spent) != 1 || spent[putObject] != 1 {
		t.Errorf("the upload took %v", spent)
	}
}

// One part fails for good while later ones succeed: the offset ends before it, although S3 has more.
func TestNoHoles(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	content := noise(6 * part)
	id := s.create(t, len(content))
	others := make(chan struct{}, 6)
	s.proxy.chooses(func(kind string, n int) stack.Fault {
		switch {
		case kind != uploadPart:
			return stack.Fault{}
		case n == 2:
			f := refuse
			f.Hold = func() { await(others); await(others) }
			return f
		}
		return stack.Fault{Answered: func() { others <- struct{}{} }}
	})
	_, err := r.patch(s.ctx, id, 0, bytes.NewReader(content))
	if err == nil {
		t.Fatal("a part failed and nobody was told")
	}
	s.proxy.chooses(nil)
	offset, err := r.head(s.ctx, id)
	stack.Must(t, err)
	_, c, committed := s.rows(t, id)
	if offset >= 5*part || len(s.partsInS3(t, c)) <= len(committed) {
		t.Errorf("the offset is %d, with %d parts of %d in S3", offset, len(committed), len(s.partsInS3(t, c)))
	}
	s.checkDurable(t, id, content)
	r.send(t, id, content, int(offset), len(content))
	s.checkComplete(t, id, content)
}

// S3 does not answer: no more than a few parts are taken from a client, however fast it is.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	content := noise(10 * part)
	id := s.create(t, len(content))
	var released atomic.Bool
	hold := make(chan struct{})
	held := make(chan struct{}, 10)
	s.proxy.chooses(func(kind string, _ int) stack.Fault {
		if kind != uploadPart {
			return stack.Fault{}
		}
		return stack.Fault{Hold: func() { held <- struct{}{}; await(hold) }}
	})
	taken := 0
	body := bytes.NewReader(content)
	ended := make(chan error, 1)
	go func() {
		_, err := r.patch(s.ctx, id, 0, readerFunc(func(p []byte) (int, error) {
			n, err := body.Read(p)
			if taken += n; taken > 4*part && !released.Load() {
				t.Errorf("%d bytes were taken while S3 had taken none", taken)
			}
			return n, err
		}))
		ended <- err
	}()
	for range 3 {
		stack.Receive(t, "part", held)
	}
	released.Store(true)
	close(hold)
	stack.Must(t, stack.Receive(t, "end", ended))
	s.checkComplete(t, id, content)
}

// Many uploads at once need many times the memory that there is, with and without a disk: all come through.
func TestBuffersRunOut(t *testing.T) {
	t.Parallel()
	for _, disk := range []int64{0, 1 * mib, 1 << 30} {
		t.Run(fmt.Sprint(disk), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c := config(part)
			c.Buffers = object.BufferConfig{Memory: 1 * mib, Disk: disk, Dir: t.TempDir()}
			r := s.replicaWith(t, c, time.Minute)
			g := new(errgroup.Group)
			contents := make(map[uuid.UUID][]byte)
			for i := range 8 {
				content := noise(part/4 + i*part/5)
				id := s.create(t, len(content))
				contents[id] = content
				g.Go(func() error {
					_, err := r.patch(s.ctx, id, 0, bytes.NewReader(content))
					return err
				})
			}
			stack.Must(t, stack.Ended(t, "eight uploads", g.Wait))
			for id, content := range contents {
				s.checkComplete(t, id, content)
			}
		})
	}
}

// A body with a checksum counts only once all of it is there and right: not at a checkpoint, not by the parts
// that S3 has already, not when it is cut off.
func TestChecksum(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := config(part)
	c.CheckpointInterval = 100 * time.Millisecond
	r := s.replicaWith(t, c, time.Minute)
	content := noise(6*part + 1000)
	id := s.create(t, len(content))
	sum := sha1.Sum(content)
	check := func() *object.Check {
		return object.NewCheck(func() (object.Checksum, error) { return object.Checksum{Algorithm: "sha1", Sum: sum[:]}, nil }, "sha1")
	}
	send := func(content []byte, cut int) error {
		_, err := r.patchChecked(s.ctx, id, 0, &sent{bytes.NewReader(content[:cut]), cut < len(content)}, check())
		return err
	}
	wrong := bytes.Clone(content)
	wrong[len(wrong)-1]++
	for range 3 {
		stack.WantErr(t, send(wrong, len(wrong)), object.ErrChecksum)
		stack.Must(t, send(content, len(content)-1))  // the caller, which reads from the client, knows what ended it
		if bytes := s.partBytes(t, id); bytes > 100 { // one for each part that was sent
			t.Errorf("S3 has parts of %d bytes that nobody is charged for", bytes)
		}
	}
	u, _, parts := s.rows(t, id)
	if u.Received != 0 || len(parts) != 0 {
		t.Errorf("%d bytes and %d parts count", u.Received, len(parts))
	}
	stack.Must(t, send(content, len(content)))
	s.checkComplete(t, id, content)
}

// A slow client that announced a checksum: nothing of it is durable before it is verified.
func TestNoCheckpointBeforeTheChecksum(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := config(part)
	c.CheckpointInterval, c.CheckpointBytes = time.Millisecond, 1
	r := s.replicaWith(t, c, time.Minute)
	content := noise(100_000)
	id := s.create(t, len(content))
	sum := sha1.Sum(content[1:])
	check := func() *object.Check {
		return object.NewCheck(func() (object.Checksum, error) { return object.Checksum{Algorithm: "sha1", Sum: sum[:]}, nil }, "sha1")
	}
	pr, pw := io.Pipe()
	go func() {
		for _, b := range content {
			_, _ = pw.Write([]byte{b}) // the check is at the end
		}
		_ = pw.Close()
	}()
	_, err := r.patchChecked(s.ctx, id, 0, &sent{Reader: pr}, check())
	stack.WantErr(t, err, object.ErrChecksum)
	if u, c, _ := s.rows(t, id); u.Received != 0 || c.TailSize != 0 || c.HashState != nil {
		t.Errorf("the content became %+v", c)
	}
}

// An upload whose size its client does not know yet takes no more than it was charged for.
func TestDeferredSizeIsBounded(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	content := noise(1001)
	id := s.create(t, 1000)
	s.Exec(t, `update uploads set size = null where id = $1`, id)
	err := r.under(s.ctx, id, func() {}, func(u *upload) error {
		if n, err := u.Write(s.ctx, 0, &sent{Reader: bytes.NewReader(content[:400])}, nil); n != 400 || err != nil {
			t.Errorf("%d bytes were written, %v", n, err)
		}
		_, err := u.Write(s.ctx, 400, &sent{Reader: bytes.NewReader(content[400:])}, nil)
		return err
	})
	stack.WantErr(t, err, object.ErrTooLong)
	s.checkDurable(t, id, content)
	if u, _, _ := s.rows(t, id); u.Received != 1000 || !u.Status.Receiving() {
		t.Errorf("the upload has %d bytes and is %s", u.Received, u.Status)
	}
}

// S3 is down: bytes that have arrived are kept and not sent again, more are refused before they are read, and the upload is not
// complete. When S3 is back, it is finished.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, size := range []int{part / 2, 2*part + 1000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			s, r := serve(t)
			content := noise(size)
			id := s.create(t, size)
			s.proxy.chooses(func(string, int) stack.Fault { return hiccup })
			_, err := r.patch(s.ctx, id, 0, bytes.NewReader(content))
			stack.WantErr(t, err, object.ErrUnavailable)
			u, _, _ := s.rows(t, id)
			if u.Received < int64(min(part, size)) {
				t.Errorf("%d bytes of %d were kept", u.Received, size)
			}
			s.checkDurable(t, id, content)
			stack.Until(t, "end of patience with S3", func() bool {
				offset, err := r.head(s.ctx, id)
				if err == nil && offset == int64(size) {
					t.Fatal("an upload is complete without S3")
				}
				read := false
				_, err = r.patch(s.ctx, s.create(t, 1), 0, readerFunc(func(p []byte) (int, error) {
					read = true
					return 1, io.EOF
				}))
				stack.WantErr(t, err, object.ErrUnavailable)
				return !read
			})

			s.proxy.chooses(nil)
			stack.Until(t, "complete upload", func() bool {
				at, err := r.head(s.ctx, id)
				if err != nil {
					stack.WantErr(t, err, object.ErrUnavailable)
					return false
				}
				at, err = r.patch(s.ctx, id, at, bytes.NewReader(content[at:]))
				return err == nil && at == int64(size)
			})
			s.checkComplete(t, id, content)
		})
	}
}

// The first write after a resume fails: the offset does not fall, and nothing of what was there is gone.
func TestFailureAfterAResume(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	content := noise(2 * part)
	for at, kind := range map[int]string{4 * mib: createUpload, part - 1: uploadPart, part + 4*mib: uploadPart} {
		id := s.create(t, len(content))
		r.send(t, id, content, 0, at)
		s.proxy.next(kind, refuse)
		if _, err := r.patch(s.ctx, id, int64(at), bytes.NewReader(content[at:])); err == nil {
			t.Errorf("at %d: a write failed and nobody was told", at)
		}
		offset, err := r.head(s.ctx, id)
		stack.Must(t, err)
		if offset < int64(at) {
			t.Errorf("the offset fell from %d to %d", at, offset)
		}
		s.checkDurable(t, id, content)
		r.send(t, id, content, int(offset), len(content))
		s.checkComplete(t, id, content)
	}
}
