package object_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tramo/tramo/storage"
	"github.com/tramo/tramo/storage/lease"
	"github.com/tramo/tramo/storage/object"
	"github.com/tramo/tramo/test/stack"
)

const maxDeferred = 3 * part

// An upload of unknown size is finished when its length is declared and all is there: with the last bytes, or
// after them, whether they are parts already or a tail. Its tenant is charged with the most, and then with what
// it has.
func TestDeferredLength(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	for _, size := range []int{1, 300_000, part, part + 1, 2*part + 300_000, maxDeferred} {
		for _, early := range []int{0, size / 2, size} {
			id := s.deferred(t)
			before := s.Room(t, s.ctx) + maxDeferred
			content := noise(size)
			if early > 0 {
				stack.Must(t, r.append(s.ctx, id, content[:early], -1))
			}
			stack.Must(t, r.append(s.ctx, id, content[early:], int64(size)))
			s.checkComplete(t, id, content)
			s.WantRoom(t, s.ctx, before-int64(size))
		}
	}
}

// The server dies after a length was declared for bytes that are all there: the next HEAD finishes the upload.
func TestDeclaredAndCutOff(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	id := s.deferred(t)
	content := noise(1000)
	stack.Must(t, r.append(s.ctx, id, content, -1))
	stack.Must(t, r.under(s.ctx, id, func() {}, func(u *upload) error { return u.DeclareLength(s.ctx, 1000) }))
	r.wantOffset(t, id, 1000)
	s.checkComplete(t, id, content)
}

// What goes beyond the most that an upload may have is refused, and what was within it stays.
func TestDeferredBeyondTheMost(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	id := s.deferred(t)
	content := noise(maxDeferred + 1)
	stack.WantErr(t, r.append(s.ctx, id, content, -1), object.ErrTooLong)
	s.checkDurable(t, id, content[:maxDeferred])
	if u, _, _ := s.rows(t, id); u.Received != maxDeferred {
		t.Errorf("%d bytes were kept", u.Received)
	}
}

func TestLengthsRefused(t *testing.T) {
	t.Parallel()
	s, r := serve(t)
	id := s.deferred(t)
	stack.Must(t, r.append(s.ctx, id, noise(10), -1))
	under := func(fn func(*upload) error) error { return r.under(s.ctx, id, func() {}, fn) }
	for length, want := range map[int64]error{0: storage.ErrBadLength, 9: storage.ErrBadLength, maxDeferred + 1: storage.ErrTooLarge} {
		err := under(func(u *upload) error { return u.DeclareLength(s.ctx, length) })
		stack.WantErr(t, err, want)
	}
	stack.WantErr(t, r.declare(s.ctx, id, nil, 20), nil) // nobody has the lease
	stack.Must(t, under(func(u *upload) error {
		stack.WantErr(t, r.declare(s.ctx, id, nil, 20), storage.ErrFenced) // somebody has
		return u.DeclareLength(s.ctx, 20)                                  // the same again
	}))
	stack.WantErr(t, under(func(u *upload) error { return u.DeclareLength(s.ctx, 21) }), storage.ErrWrongStatus)

	s.WantRoom(t, s.ctx, quota-20)
}

func (s *site) deferred(t *testing.T) uuid.UUID {
	t.Helper()
	return s.createAs(t, storage.NewUpload{MaxSize: maxDeferred})
}

// declare gives an upload its length, under a lease or without one.
func (r *replica) declare(ctx context.Context, id uuid.UUID, l *lease.Lease, length int64) error {
	u, err := r.Open(ctx, id, l)
	if err != nil {
		return err
	}
	return u.DeclareLength(ctx, length)
}

// append is a PATCH that says the length, unless it is -1.
func (r *replica) append(ctx context.Context, id uuid.UUID, data []byte, length int64) error {
	return r.under(ctx, id, func() {}, func(u *upload) error {
		if length >= 0 {
			if err := u.DeclareLength(ctx, length); err != nil {
				return err
			}
		}
		n, err := u.Write(ctx, u.Row().Received, &sent{Reader: bytes.NewReader(data)}, nil)
		if u.Row().Received == length && n >= 0 && err == nil {
			err = u.finish(ctx)
		}
		return err
	})
}

// A client is silent after the last byte, for longer than a checkpoint takes, and then sends more: the upload is not
// complete meanwhile, and not afterwards. What came before is kept.
func TestBeyondTheLength(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := config(part)
	c.CheckpointInterval = 100 * time.Millisecond
	r := s.replicaWith(t, c, time.Minute)
	content := noise(part + 1000)
	id, other := s.create(t, len(content)), s.create(t, 100)
	sent := bytes.NewReader(content)
	body := readerFunc(func(p []byte) (int, error) {
		if sent.Len() > 0 {
			return sent.Read(p)
		}
		_, err := r.sending(other, 0).Write(make([]byte, 50)) // it begins later, and has its checkpoint later
		stack.Must(t, err)
		stack.Until(t, "checkpoint of the other upload", func() bool {
			_, c, _ := s.rows(t, other)
			return c.Received == 50
		})
		return 1, nil
	})
	stack.WantErr(t, r.under(s.ctx, id, func() {}, func(u *upload) error {
		_, err := u.Write(s.ctx, 0, &unended{body}, nil)
		return err
	}), object.ErrBeyondLength)
	if _, c, _ := s.rows(t, id); c.Received > int64(part) || c.Stored {
		t.Errorf("%+v", c)
	}
	s.checkDurable(t, id, content)
	s.wantFinished(t, id, 0)
}

// An unended body is none that its client has ended.
type unended struct{ io.Reader }

func (*unended) Ended() bool { return false }
func (*unended) Cut() error  { return nil }
