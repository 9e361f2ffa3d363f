package storage_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tramo/tramo/storage"
)

// content reads where an upload's bytes are.
func (d *database) content(t *testing.T, ctx context.Context, id uuid.UUID) (c storage.Content) {
	t.Helper()
	d.must(t, ctx, func(tx storage.Tx) (err error) {
		c, err = tx.Content(ctx, id)
		return err
	})
	return c
}

func ptr[T any](v T) *T { return &v }

// leased makes an upload with a lease on it.
func (d *database) leased(t *testing.T) (context.Context, uuid.UUID, *storage.Lease) {
	t.Helper()
	r := newReplica(t, d, calmly)
	ctx := d.NewTenant(t, 1<<30)
	id := d.create(t, ctx, 100)
	return ctx, id, r.acquire(t, ctx, id, func() {})
}

// A writer whose view is stale, whose lease is another's, or who comes after the end, changes nothing, not
// even the part that it brings.
func TestSaveContentRefuses(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx, id, lease := d.leased(t)
	begun := storage.Content{Received: 10, HashState: []byte("state"), TailKey: ptr("tail"), TailSize: 10}
	d.must(t, ctx, func(tx storage.Tx) error { return tx.SaveContent(ctx, id, lease.Fence(), storage.Content{}, begun) })
	if s := d.upload(t, ctx, id).Status; s != storage.Uploading {
		t.Errorf("the upload is %s", s)
	}

	more := begun
	more.Received, more.TailSize = 20, 20
	for _, c := range []struct {
		name  string
		fence int64
		from  storage.Content
	}{
		{"stale view", lease.Fence(), storage.Content{}},
		{"view from the future", lease.Fence(), more},
		{"older fence", lease.Fence() - 1, begun},
		{"newer fence", lease.Fence() + 1, begun},
		{"no fence", 0, begun},
	} {
		err := d.API.InTenant(ctx, func(tx storage.Tx) error {
			if err := tx.AddPart(ctx, id, storage.Part{Number: 1, Size: 10, ETag: "e"}); err != nil {
				return err
			}
			return tx.SaveContent(ctx, id, c.fence, c.from, more)
		})
		if !errors.Is(err, storage.ErrFenced) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if got := d.content(t, ctx, id); got.Received != 10 || *got.TailKey != "tail" {
		t.Errorf("the content became %+v", got)
	}
	d.must(t, ctx, func(tx storage.Tx) error {
		parts, err := tx.Parts(ctx, id)
		if len(parts) != 0 {
			t.Errorf("parts are %+v", parts)
		}
		return err
	})

	stored := more
	stored.Received, stored.Stored, stored.ObjectKey, stored.TailKey, stored.TailSize = 100, true, ptr("key"), nil, 0
	d.must(t, ctx, func(tx storage.Tx) error { return tx.SaveContent(ctx, id, lease.Fence(), begun, stored) })
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		return tx.SaveContent(ctx, id, lease.Fence(), stored, stored)
	}), storage.ErrFenced)
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		_, err := tx.ReservePart(ctx, id, lease.Fence(), "mp", "key")
		return err
	}), storage.ErrFenced)
}

// However many reserve at once, no part number is handed out twice, and only one multipart upload counts.
func TestReservePart(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx, id, lease := d.leased(t)
	reserve := func(fence int64, multipart string) (n int32, err error) {
		err = d.API.InTenant(ctx, func(tx storage.Tx) error {
			n, err = tx.ReservePart(ctx, id, fence, multipart, "key")
			return err
		})
		return n, err
	}
	const many = 20
	var taken [many + 1]atomic.Bool
	g := new(errgroup.Group)
	for range many {
		g.Go(func() error {
			n, err := reserve(lease.Fence(), "mp")
			if err == nil && (n < 1 || n > many || taken[n].Swap(true)) {
				t.Errorf("number %d was handed out twice, or is out of order", n)
			}
			return err
		})
	}
	must(t, g.Wait())
	_, err := reserve(lease.Fence(), "another")
	wantErr(t, err, storage.ErrFenced)
	must(t, lease.Release(ctx))
	_, err = reserve(lease.Fence(), "mp")
	wantErr(t, err, storage.ErrFenced)
	if c := d.content(t, ctx, id); *c.MultipartID != "mp" || *c.ObjectKey != "key" {
		t.Errorf("the content is %+v", c)
	}
}

// A hash's state, a key and nothing else: what is saved is what is read.
func TestContentRoundTrip(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	ctx, id, lease := d.leased(t)
	if got := d.content(t, ctx, id); got.Received != 0 || got.HashState != nil || got.TailKey != nil || got.Stored {
		t.Errorf("a new content is %+v", got)
	}
	d.must(t, ctx, func(tx storage.Tx) error {
		n, err := tx.ReservePart(ctx, id, lease.Fence(), "mp", "key")
		if err != nil {
			return err
		}
		if err := tx.AddPart(ctx, id, storage.Part{Number: n, Size: 7, ETag: `"e"`}); err != nil {
			return err
		}
		return tx.SaveContent(ctx, id, lease.Fence(), storage.Content{}, storage.Content{
			Received: 7, HashState: []byte{0, 1, 255}, ObjectKey: ptr("key")})
	})
	got := d.content(t, ctx, id)
	if got.Received != 7 || string(got.HashState) != "\x00\x01\xff" || *got.MultipartID != "mp" || *got.ObjectKey != "key" {
		t.Errorf("got %+v", got)
	}
	wantErr(t, d.API.InTenant(ctx, func(tx storage.Tx) error {
		_, err := tx.Content(ctx, uuid.New())
		return err
	}), storage.ErrNotFound)
}
