package object_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/tenant"
	"github.com/tramo/tramo/test/stack"
)

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// piece says how much of an upload a client sends next, with a liking for the sizes where things change.
func piece(random *rand.Rand, at, size int) int {
	n := []int{
		0, 1, random.IntN(100), random.IntN(part), random.IntN(3 * part),
		part - 1, part, part + 1,
		part - at%part, part - at%part - 1, part - at%part + 1, // to the next boundary of a part, and beside it
		size - at, size - at - 1,
	}[random.IntN(13)]
	return max(0, min(n, size-at))
}

// However an upload is cut into pieces, and whichever replica gets them, the object is what was sent, byte
// for byte, and each offset is that of durable bytes.
func TestAnyPieces(t *testing.T) {
	t.Parallel()
	random := stack.Random(t)
	s := newSite(t)
	replicas := []*replica{s.replica(t), s.replica(t)}
	sizes := []int{1, 2, part - 1, part, part + 1, 2*part - 1, 2 * part, 2*part + 1, 3*part + random.IntN(2*mib), 1 + random.IntN(part)}
	for _, size := range sizes {
		content := noise(size)
		id := s.create(t, size)
		var cuts []int
		for at := 0; at < size; {
			n := piece(random, at, size)
			if len(cuts) > 12 {
				n = size - at
			}
			cuts = append(cuts, n)
			r := replicas[random.IntN(2)]
			r.send(t, id, content, at, at+n)
			at += n
			if at < size && random.IntN(3) == 0 {
				s.checkDurable(t, id, content)
			}
		}
		s.checkComplete(t, id, content)
		if t.Failed() {
			t.Fatalf("%d bytes were sent as %v", size, cuts)
		}
	}
	for _, r := range replicas {
		r.wantLost(t, 0)
	}
	for _, key := range s.left(t) {
		if !bytes.Contains([]byte(key), []byte("/original-")) {
			t.Errorf("%s is left", key)
		}
	}
}

// The number of requests to S3, which is what S3 charges for.
func TestRequestsToS3(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	for _, c := range []struct {
		name  string
		sizes []int // of the pieces
		want  map[string]int
	}{
		{"a photo of 3 MB", []int{3_000_000}, map[string]int{putObject: 1}},
		{"a whole part", []int{part}, map[string]int{putObject: 1}},
		{"a photo in ten pieces", []int{mib, 1, mib, 0, 5, mib, 7, 9, 100, mib}, map[string]int{putObject: 1}},
		{"two parts", []int{2 * part}, map[string]int{createUpload: 1, uploadPart: 2, completeUpload: 1}},
		{"two parts and a bit", []int{2*part + 1}, map[string]int{createUpload: 1, uploadPart: 3, completeUpload: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			size := 0
			for _, n := range c.sizes {
				size += n
			}
			content := noise(size)
			id := s.create(t, size)
			s.proxy.spent()
			at := 0
			for _, n := range c.sizes {
				r.send(t, id, content, at, at+n)
				at += n
			}
			if _, err := r.head(s.ctx, id); err != nil {
				t.Error(err)
			}
			stack.Want(t, s.proxy.spent(), c.want, "requests")
		})
	}
}

// Without a lease nothing can be written.
func TestViewWritesNothing(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	content := noise(part + 3)
	id := s.create(t, len(content))
	u, err := r.Open(s.ctx, id, nil)
	stack.Must(t, err)
	if n, err := u.Write(s.ctx, 0, &sent{Reader: bytes.NewReader(content)}, nil); n != 0 || err == nil {
		t.Errorf("%d bytes were written without a lease, %v", n, err)
	}
	r.send(t, id, content, 0, len(content))
	s.checkComplete(t, id, content)
}

// An upload is opened, and another request writes it before the lease is taken: what is written under the lease from the
// stale view changes nothing.
func TestStaleViewWritesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r, other := s.replica(t), s.replica(t)
	for _, size := range []int{100, part + 100} {
		content := noise(2 * size)
		id := s.create(t, len(content))
		stale, err := r.leases.Acquire(s.ctx, id, nil)
		stack.Must(t, err)
		u, err := r.Open(s.ctx, id, stale)
		stack.Must(t, err)
		stack.Must(t, stale.Release(s.ctx))
		other.send(t, id, content, 0, size)
		again, err := r.leases.Acquire(s.ctx, id, nil)
		stack.Must(t, err)
		_, err = u.Write(s.ctx, 0, &sent{Reader: bytes.NewReader(noise(len(content)))}, nil)
		if err == nil { // a whole object is in S3, and does not count yet
			err = s.API.InTenant(s.ctx, func(tx storage.Tx) error { return u.Record(s.ctx, tx) })
		}
		stack.WantErr(t, err, storage.ErrFenced)
		stack.Must(t, again.Release(s.ctx))
		other.send(t, id, content, size, len(content))
		s.checkComplete(t, id, content)
	}
}

// Nobody writes at another offset than the one that is recorded, and more than was announced is not read.
func TestOffsetAndSizeHold(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	content := noise(100)
	id := s.create(t, 100)
	r.send(t, id, content, 0, 40)
	_ = r.under(s.ctx, id, func() {}, func(u *upload) error {
		for _, at := range []int64{0, 39, 41, -1, 100} {
			if n, err := u.Write(s.ctx, at, &sent{Reader: bytes.NewReader(content)}, nil); n != 0 || err == nil {
				t.Errorf("%d bytes were written at %d, %v", n, at, err)
			}
		}
		long := io.MultiReader(bytes.NewReader(content[40:]), bytes.NewReader(noise(1000)))
		n, err := u.Write(s.ctx, 40, &sent{Reader: long}, nil)
		stack.WantErr(t, err, object.ErrBeyondLength)
		stack.Want(t, n, 0, "bytes written of a body that is too long")
		n, err = u.Write(s.ctx, 40, &sent{Reader: bytes.NewReader(content[40:])}, nil)
		stack.Must(t, err)
		stack.Want(t, n, 60, "bytes written of a body that fits")
		return u.finish(s.ctx)
	})
	s.checkComplete(t, id, content)
}

// Another tenant's upload and an unknown id are not found.
func TestUnknownUploads(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	id := s.create(t, 10)
	stranger := tenant.With(t.Context(), tenant.Identity{Tenant: uuid.New(), User: "eva", Role: tenant.Admin})
	_, err := r.Open(stranger, id, nil)
	stack.WantErr(t, err, storage.ErrNotFound)
	_, err = r.head(stranger, id)
	stack.WantErr(t, err, storage.ErrNotFound)
	_, err = r.head(s.ctx, uuid.New())
	stack.WantErr(t, err, storage.ErrNotFound)
	if _, err := r.Open(t.Context(), id, nil); !errors.Is(err, tenant.ErrNoIdentity) {
		t.Errorf("without a tenant: %v", err)
	}
}

// A client sends slowly to one replica, another replica is asked for the offset: what had arrived is kept,
// the first lets go, and the sender can go on elsewhere.
func TestContenderInterruptsAWriter(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one, two := s.replica(t), s.replica(t)
	content := noise(part + mib)
	id := s.create(t, len(content))
	const arrived = part + 1000
	pr, pw := io.Pipe()
	type result struct {
		now int64
		err error
	}
	ended := make(chan result, 1)
	go func() {
		// The reader closes the body when the holder is asked to let go.
		var r result
		r.err = one.under(s.ctx, id, func() { _ = pr.Close() }, func(u *upload) (err error) {
			r.now, err = u.Write(s.ctx, 0, &sent{Reader: pr}, nil)
			return err
		})
		ended <- r
	}()
	_, err := pw.Write(content[:arrived])
	stack.Must(t, err)
	offset, err := two.head(s.ctx, id)
	stack.Must(t, err)
	if r := stack.Receive(t, "end of the interrupted request", ended); r.now != arrived || !errors.Is(r.err, object.ErrTakenOver) {
		t.Errorf("the interrupted request wrote %d bytes, %v", r.now, r.err)
	}
	stack.Want(t, offset, arrived, "offset, which must be the bytes that had arrived")
	two.send(t, id, content, arrived, len(content))
	s.checkComplete(t, id, content)
}

// The part size of a deployment changes while uploads are under way: they go on, whatever their tail.
func TestPartSizeChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	small := s.replica(t)
	large := s.replicaWith(t, config(8*mib), time.Minute)
	for _, tail := range []int{part - 1, part, part + 1, 7 * mib} {
		content := noise(13 * mib)
		id := s.create(t, len(content))
		large.send(t, id, content, 0, tail)
		done := make(chan error, 1)
		go func() {
			_, err := small.patch(s.ctx, id, int64(tail), bytes.NewReader(content[tail:12*mib]))
			done <- err
		}()
		stack.Must(t, stack.Receive(t, fmt.Sprintf("end of a request on a tail of %d bytes", tail), done))
		large.send(t, id, content, 12*mib, len(content))
		s.checkComplete(t, id, content)
	}
}

// Two replicas are asked at once for an upload that has all its bytes and was never finished: it is
// finished once, and both say that it is complete.
func TestFinishAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	replicas := []*replica{s.replica(t), s.replica(t)}
	content := noise(2 * part)
	id := s.create(t, len(content))
	s.finish.next(failBefore)
	if _, err := replicas[0].patch(s.ctx, id, 0, bytes.NewReader(content)); !errors.Is(err, errInjected) {
		t.Errorf("got %v", err)
	}
	g := new(errgroup.Group)
	for _, r := range append(replicas, replicas...) {
		g.Go(func() error {
			offset, err := r.head(s.ctx, id)
			if err == nil && offset != int64(len(content)) {
				err = fmt.Errorf("the offset is %d", offset)
			}
			return err
		})
	}
	stack.Must(t, stack.Ended(t, "HEADs on every replica", g.Wait))
	s.checkComplete(t, id, content)
}
