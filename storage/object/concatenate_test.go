package object_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

// A final upload of partial ones of any size is all their bytes in order, with their SHA-256, became uploaded
// once and leaves nothing else in S3. What is large enough is never sent to S3 again.
func TestConcatenate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		sizes []int
		want  map[string]int // requests to S3
	}{
		{"one that is small", []int{1000}, map[string]int{getObject: 1, putObject: 1, deleteObject: 1}},
		{"one of several parts", []int{2*part + 1}, map[string]int{createUpload: 1, copyPart: 1, completeUpload: 1, deleteObject: 1}},
		{"small ones", []int{100_000, 1, 2 << 20}, map[string]int{getObject: 3, putObject: 1, deleteObject: 3}},
		{"large ones", []int{part, 2*part + 1}, map[string]int{getObject: 1, createUpload: 1, copyPart: 2, completeUpload: 1, deleteObject: 2}},
		{
			"both", []int{part + 9, 1000, 2*part + 7, 5},
			map[string]int{getObject: 4, createUpload: 1, uploadPart: 2, copyPart: 2, completeUpload: 1, deleteObject: 4},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, r := serve(t)
			partials, content := s.partials(t, r, c.sizes...)
			final := s.final(t, partials, len(content))
			s.proxy.spent()
			stack.Must(t, r.concat(s.ctx, final))
			stack.Want(t, s.proxy.spent(), c.want, "requests")
			s.checkConcatenated(t, final, partials, content)
			stack.Must(t, r.concat(s.ctx, final))
			if got := s.proxy.spent(); len(got) > 0 {
				t.Errorf("once more cost %v", got)
			}
		})
	}
}

// S3 refuses, or does it and the answer gets lost, at each request in turn that a concatenation takes: whoever
// asks next finishes it, by going on after the last piece that was made durable.
func TestConcatenateRepeated(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{getObject, copyPart, uploadPart, createUpload, completeUpload} {
		for name, what := range map[string]stack.Fault{"refused": refuse, "answer lost": lose} {
			if kind == createUpload && name == "answer lost" {
				continue // no row names that multipart upload; the reconciler finds it
			}
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				s, r := serve(t)
				partials, content := s.partials(t, r, part, 1000, 2*part, 3)
				final := s.final(t, partials, len(content))
				s.proxy.spent()
				s.proxy.next(kind, what)
				if err := r.concat(s.ctx, final); err == nil {
					t.Fatal("a failure was called success")
				}
				if u, _, _ := s.rows(t, final); !u.Status.Receiving() || u.UploadedAt != nil {
					t.Fatalf("the upload is %s", u.Status)
				}
				at, err := s.replica(t).head(s.ctx, final)
				stack.Must(t, err)
				stack.Want(t, at, int64(len(content)), "offset")
				if n := s.proxy.spent()[copyPart]; n > 3 {
					t.Errorf("%d copies", n)
				}
				s.checkConcatenated(t, final, partials, content)
			})
		}
	}
}

// A store that copies no parts gets their bytes from this server, at the first request. One that says so is not asked again;
// that of an empty answer may be in order next time. For others, uploads go on.
func TestConcatenateWithoutCopies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		what  stack.Fault
		asked int // how often a copy was, for two final uploads
	}{"not implemented": {stack.NotImplemented, 1}, "empty": {stack.EmptyAnswer, 2}, "no ETag": {stack.Fault{Change: stack.NoETag}, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			r := s.replica(t)
			s.proxy.chooses(only(copyPart, c.what))
			s.proxy.spent()
			for range 2 {
				partials, content := s.partials(t, r, part-1, 2, 2*part+5, 3, 100)
				final := s.final(t, partials, len(content))
				stack.Must(t, r.concat(s.ctx, final))
				u, _, _ := s.rows(t, final)
				if got := s.object(t, *u.ObjectKey); !bytes.Equal(got, content) {
					t.Errorf("the object has %d bytes that differ from the %d that were sent", len(got), len(content))
				}
				s.wantFinished(t, final, 1)
			}
			if n := s.proxy.spent()[copyPart]; n != c.asked {
				t.Errorf("%d copies were asked for, want %d", n, c.asked)
			}
			if r.Unavailable() {
				t.Error("what a store lacks counts as an outage")
			}
		})
	}
}

// Nobody knows how often clients ask for the offset of a final upload while S3 is away: once the circuit is open, no HEAD uses
// up a part number, nor does one that finds out whether S3 is back.
func TestConcatenateDuringAnOutage(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	partials, content := s.partials(t, r, part, 2*part)
	final := s.final(t, partials, len(content))
	s.proxy.spent()
	s.proxy.chooses(func(kind string, n int) stack.Fault {
		if kind == copyPart && n == 2 {
			return refuse // so that there is a multipart upload
		}
		return stack.Fault{}
	})
	if err := r.concat(s.ctx, final); err == nil {
		t.Fatal("a failure was called success")
	}
	s.proxy.chooses(func(string, int) stack.Fault { return stack.Fault{Status: http.StatusServiceUnavailable} })
	for !r.Unavailable() {
		_, err := r.head(s.ctx, final)
		stack.WantErr(t, err, object.ErrUnavailable)
	}
	_, before, _ := s.rows(t, final)
	for range 20 {
		_, err := r.head(s.ctx, final)
		stack.WantErr(t, err, object.ErrUnavailable)
	}
	stack.Until(t, "the circuit to try S3 again", func() bool { return !r.Unavailable() })
	_, err := r.head(s.ctx, final)
	stack.WantErr(t, err, object.ErrUnavailable)
	if _, after, _ := s.rows(t, final); after.NextPart != before.NextPart {
		t.Errorf("the next part is %d, and was %d", after.NextPart, before.NextPart)
	}
	s.proxy.chooses(nil)
	stack.Until(t, "S3 to be back", func() bool { return r.concat(s.ctx, final) == nil })
	s.checkConcatenated(t, final, partials, content)
}

// A final upload has fewer part numbers left than it needs: it begins a new multipart upload, and leaves nothing of the old.
func TestConcatenateWithoutNumbers(t *testing.T) {
	t.Parallel()
	for _, next := range []int{object.MaxParts - 1, object.MaxParts + 1} {
		s, r := serve(t)
		partials, content := s.partials(t, r, part, 1000, 2*part, 3)
		final := s.final(t, partials, len(content))
		s.proxy.next(uploadPart, refuse)
		if err := r.concat(s.ctx, final); err == nil {
			t.Fatal("a failure was called success")
		}
		if _, _, parts := s.rows(t, final); len(parts) != 1 {
			t.Fatalf("%d parts are durable", len(parts))
		}
		s.Exec(t, `update contents set next_part = $1 where upload_id = $2`, next, final)
		stack.Must(t, r.concat(s.ctx, final))
		s.checkConcatenated(t, final, partials, content)
	}
}

// The finish of a final upload fails, before and after it was recorded: nothing of the partial uploads is
// deleted before the final one is committed.
func TestConcatenateKeepsPartialsUntilFinished(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	partials, content := s.partials(t, r, part, 1000)
	final := s.final(t, partials, len(content))
	s.finish.next(failBefore)
	stack.WantErr(t, r.concat(s.ctx, final), errInjected)
	for _, id := range partials {
		_, c, _ := s.rows(t, id)
		if got := s.object(t, *c.ObjectKey); len(got) != int(c.Received) {
			t.Errorf("a partial upload has %d bytes", len(got))
		}
	}
	stack.Must(t, r.concat(s.ctx, final))
	s.checkConcatenated(t, final, partials, content)
}

// S3 has lost a partial upload: it and the final one fail, and the others can be used again.
func TestConcatenateOfALostPartial(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	partials, content := s.partials(t, r, part, part+1)
	final := s.final(t, partials, len(content))
	_, c, _ := s.rows(t, partials[1])
	bucket := openBucket(t, stack.Get(t, ground.S3).Endpoint(), stack.Get(t, ground.S3).Bucket())
	stack.Must(t, bucket.Delete(t.Context(), *c.ObjectKey))
	stack.WantErr(t, r.concat(s.ctx, final), object.ErrLost)
	for id, want := range map[uuid.UUID]storage.Status{final: storage.Failed, partials[0]: storage.Uploading, partials[1]: storage.Failed} {
		if u, _, _ := s.rows(t, id); u.Status != want || u.FinalID != nil {
			t.Errorf("status %s, taken %v; want %s", u.Status, u.FinalID, want)
		}
	}
	r.wantLost(t, 1)
}

// A partial upload that is whole waits: HEAD tells its size and finishes it once, it may be cancelled, and then
// S3 has nothing of it.
func TestPartialWaits(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	for _, size := range []int{10, part + 1} {
		partials, _ := s.partials(t, r, size)
		for range 2 {
			at, err := r.head(s.ctx, partials[0])
			stack.Must(t, err)
			if at != int64(size) || s.finish.finished(partials[0]) != 1 {
				t.Errorf("offset %d, finished %d times", at, s.finish.finished(partials[0]))
			}
		}
		stack.Must(t, r.terminate(s.ctx, partials[0]))
		if left := s.left(t); len(left) > 0 {
			t.Errorf("S3 still has %v", left)
		}
		s.WantRoom(t, s.ctx, quota)
	}
}

// Uploads that are being put together cannot be cancelled; a final one that is cancelled lets them go.
func TestCancelWhatIsTaken(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	partials, content := s.partials(t, r, part)
	final := s.final(t, partials, len(content))
	stack.WantErr(t, r.terminate(s.ctx, partials[0]), storage.ErrWrongStatus)
	s.Must(t, s.ctx, func(tx storage.Tx) error { return tx.Move(s.ctx, final, storage.Transition{Move: storage.MoveCancel}) })
	s.WantRoom(t, s.ctx, quota-part)
	stack.Must(t, r.terminate(s.ctx, partials[0]))
	s.WantRoom(t, s.ctx, quota)
}

// partials uploads some, and returns what they have together.
func (s *site) partials(t *testing.T, r *replica, sizes ...int) (ids []uuid.UUID, content []byte) {
	t.Helper()
	for _, size := range sizes {
		id := s.createAs(t, storage.NewUpload{Size: int64(size), Kind: storage.Partial})
		bytes := noise(size)
		r.send(t, id, bytes, 0, size)
		ids, content = append(ids, id), append(content, bytes...)
	}
	return ids, content
}

func (s *site) final(t *testing.T, partials []uuid.UUID, size int) uuid.UUID {
	t.Helper()
	return s.createAs(t, storage.NewUpload{Size: int64(size), Kind: storage.Final, Partials: partials})
}

// concat is what a POST of a final upload comes to: it is opened, and finished with that.
func (r *replica) concat(ctx context.Context, id uuid.UUID) error {
	return r.under(ctx, id, func() {}, func(*upload) error { return nil })
}

// checkConcatenated makes sure that a final upload has taken the place of its partial ones.
func (s *site) checkConcatenated(t *testing.T, final uuid.UUID, partials []uuid.UUID, content []byte) {
	t.Helper()
	u, c, parts := s.rows(t, final)
	sum := sumOf(content)
	if u.Status != storage.Uploaded || !c.Stored || fmt.Sprintf("%x", u.SHA256) != sum || u.ChargedBytes != int64(len(content)) {
		t.Fatalf("the upload is %s, stored %t, charged %d, SHA-256 %x, want %s", u.Status, c.Stored, u.ChargedBytes, u.SHA256, sum)
	}
	if got := s.object(t, *u.ObjectKey); !bytes.Equal(got, content) {
		t.Errorf("the object has %d bytes that differ from the %d that were sent", len(got), len(content))
	}
	for i, p := range parts {
		if i > 0 && p.Number <= parts[i-1].Number {
			t.Errorf("parts %+v", parts)
		}
	}
	s.wantFinished(t, final, 1)
	for _, id := range partials {
		u, c, _ := s.rows(t, id)
		if u.Status != storage.Concatenated || *u.FinalID != final || u.ChargedBytes != 0 || c.Stored || c.ObjectKey != nil {
			t.Errorf("a partial upload is %s with %+v", u.Status, c)
		}
	}
	if left := s.left(t); len(left) != 1 || left[0] != *u.ObjectKey {
		t.Errorf("S3 has %v", left)
	}
	s.WantRoom(t, s.ctx, quota-int64(len(content)))
}
