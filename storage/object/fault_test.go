package object_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

// Requests to S3 fail at random, before or after S3 has done them, and so does the finisher: no offset that
// a client has heard ever goes back, each is that of durable bytes, and in the end the object is what was
// sent and became uploaded once.
func TestRandomFaults(t *testing.T) {
	t.Parallel()
	random := stack.Random(t)
	s := newSite(t)
	replicas := []*replica{s.replica(t), s.replica(t)}
	for range 6 {
		size := 1 + random.IntN(3*part)
		content := noise(size)
		id := s.create(t, size)
		s.proxy.chooses(randomFaults(random))
		f := &flakyClient{site: s, random: random, id: id, content: content}
		for try := 0; !f.done; try++ {
			if try == 40 {
				s.proxy.chooses(nil) // from now on nothing fails
			}
			if try == 60 {
				t.Fatalf("an upload of %d bytes never got through", size)
			}
			f.send(t, replicas[random.IntN(2)])
			// All bytes may be in one object that the rows do not name yet.
			if u, _, _ := s.rows(t, id); u.Received < u.Size && random.IntN(4) == 0 {
				s.checkDurable(t, id, content)
			}
		}
		s.proxy.chooses(nil)
		s.checkComplete(t, id, content)
	}
	for _, r := range replicas {
		r.wantLost(t, 0)
	}
}

// randomFaults lets three requests in ten go wrong.
func randomFaults(seeds *rand.Rand) func(string, int) stack.Fault {
	random := rand.New(rand.NewPCG(seeds.Uint64(), 0)) // requests come at once
	var mu sync.Mutex
	return func(string, int) stack.Fault {
		mu.Lock()
		defer mu.Unlock()
		switch random.IntN(40) {
		case 0, 1, 2, 3, 4:
			return refuse
		case 5, 6, 7, 8, 9:
			return lose
		case 10:
			return []stack.Fault{hiccup, cutBefore, cutAfter}[random.IntN(3)]
		}
		return stack.Fault{}
	}
}

// A flakyClient is a client as tus wants it: after an error it asks for the offset and goes on from there.
type flakyClient struct {
	site    *site
	random  *rand.Rand
	id      uuid.UUID
	content []byte
	heard   int64 // the highest offset that it was told
	done    bool
}

func (f *flakyClient) send(t *testing.T, r *replica) {
	t.Helper()
	if f.random.IntN(4) == 0 {
		f.site.finish.next(failure(f.random.IntN(2)))
	}
	at, err := r.head(f.site.ctx, f.id)
	if err != nil {
		return
	}
	f.hear(t, at)
	if f.done {
		return
	}
	to := int(at) + piece(f.random, int(at), len(f.content))
	now, err := r.patch(f.site.ctx, f.id, at, bytes.NewReader(f.content[at:to]))
	switch {
	case err == nil && now != int64(to):
		t.Errorf("%d bytes were sent from %d, and the offset is %d without an error", to-int(at), at, now)
	case err == nil:
		f.hear(t, now)
	case errors.Is(err, errMismatch):
		t.Errorf("the offset changed between two requests: %v", err)
	case errors.Is(err, object.ErrLost), errors.Is(err, errGone):
		t.Fatalf("bytes that are there were given up: %v", err)
	}
}

func (f *flakyClient) hear(t *testing.T, offset int64) {
	t.Helper()
	if offset < f.heard {
		t.Errorf("the offset went back from %d to %d", f.heard, offset)
	}
	f.heard = offset
	if offset == int64(len(f.content)) {
		f.done = true
		if f.site.finish.finished(f.id) != 1 {
			t.Error("a client heard that its upload is complete before it was")
		}
	}
}

// CompleteMultipartUpload is done, but its answer gets lost, once to be tried again and once for good: the
// upload is finished all the same, at the latest when its client asks for the offset.
func TestCompletionAnswerLost(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	for name, fault := range map[string]stack.Fault{"cut": cutAfter, "lost": lose, "not reached": refuse} {
		content := noise(2*part + 1)
		id := s.create(t, len(content))
		s.proxy.next(completeUpload, fault)
		_, err := r.patch(s.ctx, id, 0, bytes.NewReader(content))
		if name == "cut" {
			stack.Must(t, err)
		} else if err == nil {
			t.Errorf("%s: it was called complete", name)
		}
		if offset, err := r.head(s.ctx, id); err != nil || offset != int64(len(content)) {
			t.Errorf("%s: the offset is %d, %v", name, offset, err)
		}
		s.checkComplete(t, id, content)
	}
	r.wantLost(t, 0)
}

// The finisher fails, before or after it has recorded the end: no client sees an offset equal to the size
// before it has succeeded, and the next request finishes.
func TestFinisherFails(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	for _, size := range []int{100, part + 1} {
		for how, settled := range map[failure]bool{failBefore: false, failAfter: true} {
			content := noise(size)
			id := s.create(t, size)
			s.finish.next(how, how)
			_, err := r.patch(s.ctx, id, 0, bytes.NewReader(content))
			stack.WantErr(t, err, errInjected)
			if !settled {
				if offset, err := r.head(s.ctx, id); !errors.Is(err, errInjected) || offset != 0 {
					t.Errorf("the offset of an upload that is not finished is %d, %v", offset, err)
				}
			}
			s.proxy.spent()
			r.wantOffset(t, id, int64(size))
			s.checkComplete(t, id, content)
			if spent := s.proxy.spent(); len(spent) > 0 {
				t.Errorf("finishing what is stored took %v", spent)
			}
			s.finish.fail = nil
		}
	}
}

// The multipart upload is aborted from outside: at the next part the upload is lost and counted, and not silently corrupt.
func TestMultipartUploadAborted(t *testing.T) {
	t.Parallel()
	// The last part is small: S3 refuses before it has read the body, and closes the connection, so that its answer to a large one
	// can be lost.
	const size = part + 1000
	for name, sent := range map[string]int{"before a part": part, "before completion": size} {
		t.Run(name, func(t *testing.T) {
			s, r := serve(t)
			content := noise(size)
			id := s.create(t, size)
			s.proxy.next(completeUpload, refuse)
			_, _ = r.patch(s.ctx, id, 0, bytes.NewReader(content[:sent])) // the completion is refused
			_, c, _ := s.rows(t, id)
			_, err := stack.Get(t, ground.S3).Client("").AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{
				Bucket: aws.String(stack.Get(t, ground.S3).Bucket()), Key: c.ObjectKey, UploadId: c.MultipartID})
			stack.Must(t, err)
			if sent == len(content) {
				_, err = r.head(s.ctx, id)
			} else {
				_, err = r.patch(s.ctx, id, int64(sent), bytes.NewReader(content[sent:]))
			}
			stack.WantErr(t, err, object.ErrLost)
			r.wantLost(t, 1)
			s.wantFinished(t, id, 0)
		})
	}
}

// The tail is deleted or lengthened from outside: the upload is lost and counted, and not silently corrupt.
func TestTailLost(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"deleted": `delete from tails where upload_id = $1`,
		"longer":  `update tails set data = data || 'x' where upload_id = $1`,
	} {
		t.Run(name, func(t *testing.T) {
			s, r := serve(t)
			content := noise(200)
			id := s.create(t, len(content))
			r.send(t, id, content, 0, 100)
			s.Exec(t, sql, id)
			_, err := r.patch(s.ctx, id, 100, bytes.NewReader(content[100:]))
			stack.WantErr(t, err, object.ErrLost)
			_, err = r.head(s.ctx, id) // the upload has ended, and the client begins a new one
			stack.WantErr(t, err, errGone)
			r.wantLost(t, 1)
		})
	}
}

// For a while another server, which answers 404, is at S3's address: nothing is lost, and no upload is recorded as lost.
func TestMisroutedIsNotLost(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	content := noise(2*part + 1)
	id := s.create(t, len(content))
	r.send(t, id, content, 0, part+100)
	for _, kind := range []string{uploadPart, completeUpload} {
		s.proxy.next(kind, misrouted)
		at, err := r.head(s.ctx, id)
		if err == nil {
			_, err = r.patch(s.ctx, id, at, bytes.NewReader(content[at:]))
		}
		if err == nil || errors.Is(err, object.ErrLost) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	r.wantLost(t, 0)
	_, err := r.head(s.ctx, id)
	stack.Must(t, err)
	s.checkComplete(t, id, content)
}

// A writer's request to S3 hangs, its process freezes and loses its lease, and another takes the upload to
// its end; then the request gets through after all. Object and offset stay those of the second writer.
func TestStaleWriter(t *testing.T) {
	t.Parallel()
	const before = part + 100 // where there is a tail after a part
	for _, c := range []struct {
		name     string
		kind     string
		size     int
		from, to int // what the stale writer sends
	}{
		{"whole object", putObject, 1000, 0, 1000},
		{"whole object upon a tail", putObject, 1000, 500, 1000},
		{"part", uploadPart, 2 * part, 0, part}, // with two flushes, either could be the one that hangs
		{"last part", uploadPart, 2 * part, before, 2 * part},
		{"beginning of the multipart upload", createUpload, 2 * part, 0, 2 * part},
		{"completion", completeUpload, 2 * part, before, 2 * part},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			one, two := s.replicaWith(t, config(part), time.Second), s.replica(t)
			content, wrong := noise(c.size), noise(c.size)
			id := s.create(t, c.size)
			if c.from > 0 {
				one.send(t, id, content, 0, c.from)
			}
			g := newGate()
			s.proxy.next(c.kind, g.fault())
			// It sends other bytes, so that one of them in the object would be noticed. At the completion all
			// bytes are recorded already, and are the right ones.
			sends := wrong
			if c.kind == completeUpload {
				sends = content
			}
			ended := make(chan error, 1)
			go func() {
				_, err := one.patch(s.ctx, id, int64(c.from), bytes.NewReader(sends[c.from:c.to]))
				ended <- err
			}()
			stack.Receive(t, "request to S3", g.reached)
			one.die()
			at, err := two.head(s.ctx, id)
			stack.Must(t, err)
			if at != int64(c.size) {
				half := (int(at) + c.size) / 2
				two.send(t, id, content, int(at), half)
				close(g.released)
				stack.Receive(t, "late answer of S3", g.sent)
				two.send(t, id, content, half, c.size)
			} else {
				close(g.released)
			}
			err = stack.Receive(t, "end of the stale request", ended)
			if c.kind != completeUpload && err == nil {
				t.Error("the stale writer was told that its bytes count")
			}
			s.checkComplete(t, id, content)
			if offset, err := two.head(s.ctx, id); offset != int64(c.size) || err != nil {
				t.Errorf("the offset is %d, %v", offset, err)
			}
		})
	}
}

// However far an upload has come, cancelling it leaves nothing in S3 and gives its quota back; once it has
// all its bytes it does not exist any more, and can be brought back.
func TestTerminate(t *testing.T) {
	t.Parallel()
	const size = 2*part + 100
	for _, c := range []struct {
		name  string
		bring func(t *testing.T, s *site, r *replica, id uuid.UUID, content []byte)
		keeps bool // its bytes, for a while
	}{
		{"nothing sent", func(*testing.T, *site, *replica, uuid.UUID, []byte) {}, false},
		{"a tail", func(t *testing.T, _ *site, r *replica, id uuid.UUID, content []byte) {
			r.send(t, id, content, 0, 100)
		}, false},
		{"a part", func(t *testing.T, _ *site, r *replica, id uuid.UUID, content []byte) {
			r.send(t, id, content, 0, part)
		}, false},
		{"a part and a tail", func(t *testing.T, _ *site, r *replica, id uuid.UUID, content []byte) {
			r.send(t, id, content, 0, part+100)
		}, false},
		{"a first part that failed", func(_ *testing.T, s *site, r *replica, id uuid.UUID, content []byte) {
			s.proxy.next(uploadPart, refuse)
			_, _ = r.patch(s.ctx, id, 0, bytes.NewReader(content[:part])) // fails
		}, false},
		{"a part whose answer was lost", func(_ *testing.T, s *site, r *replica, id uuid.UUID, content []byte) {
			s.proxy.next(uploadPart, lose)
			_, _ = r.patch(s.ctx, id, 0, bytes.NewReader(content[:part])) // fails
		}, false},
		{"all bytes, unfinished", func(_ *testing.T, s *site, r *replica, id uuid.UUID, content []byte) {
			s.proxy.next(completeUpload, refuse)
			_, _ = r.patch(s.ctx, id, 0, bytes.NewReader(content)) // all but the end
		}, true},
		{"complete", func(t *testing.T, _ *site, r *replica, id uuid.UUID, content []byte) {
			r.send(t, id, content, 0, size)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, r := serve(t)
			content := noise(size)
			id := s.create(t, size)
			c.bring(t, s, r, id, content)
			stack.Must(t, r.terminate(s.ctx, id))
			if c.keeps {
				stack.WantErr(t, r.terminate(s.ctx, id), storage.ErrNotFound)
				s.Exec(t, `update uploads set deleted_at = null, purge_at = null where id = $1`, id)
				s.checkComplete(t, id, content)
				return
			}
			if left := s.left(t); len(left) > 0 {
				t.Errorf("S3 still has %q", left)
			}
			s.WantRoom(t, s.ctx, quota)
			stack.WantErr(t, r.terminate(s.ctx, id), errGone)
		})
	}
}

// S3 fails while an upload is cancelled: it is cancelled all the same, and charged until S3 has nothing more of it.
func TestTerminateWithoutS3(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	content := noise(2 * part)
	id := s.create(t, len(content))
	r.send(t, id, content, 0, part+100)
	s.proxy.next(abortUpload, refuse)
	s.proxy.next(deleteObject, refuse)
	stack.Must(t, r.terminate(s.ctx, id))
	_, err := r.head(s.ctx, id)
	stack.WantErr(t, err, errGone)
	s.WantRoom(t, s.ctx, quota-2*part)
	if err := r.release(s.ctx, id); err == nil {
		t.Error("S3 has not removed it, and it was released")
	}
	s.WantRoom(t, s.ctx, quota-2*part)
	for range 2 { // once
		stack.Must(t, r.release(s.ctx, id))
		s.WantRoom(t, s.ctx, quota)
	}
	if left := s.left(t); len(left) > 0 {
		t.Errorf("S3 still has %q", left)
	}
}

// A request that is asked to let go before it has begun to read its body reads none of it: whoever waits
// gets the upload although the body never ends.
func TestAskedToLetGoBeforeReading(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first, second := s.replica(t), s.replica(t)
	id := s.create(t, 10)
	asked, endless := make(chan struct{}, 8), make(chan struct{})
	defer close(endless)
	taken := make(chan error, 1)
	err := first.under(s.ctx, id, func() { asked <- struct{}{} }, func(u *upload) error {
		go func() {
			_, err := second.head(s.ctx, id)
			taken <- err
		}()
		stack.Receive(t, "question", asked)
		n, err := u.Write(s.ctx, 0, &sent{Reader: readerFunc(func([]byte) (int, error) { <-endless; return 0, io.EOF })}, nil)
		stack.Want(t, n, 0, "bytes written")
		return err
	})
	stack.WantErr(t, err, object.ErrTakenOver)
	stack.Must(t, stack.Receive(t, "second request", taken))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
